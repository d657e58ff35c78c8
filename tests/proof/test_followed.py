"""The short form of the campaign in which events are followed while the daemon is killed."""

from __future__ import annotations

import msgspec
import pytest

from jivsd.admin.feedwire import FeedEventView, FeedPage
from jivsd.proof import followed


@pytest.mark.slow
def test_all_followers_see_all(capsys):
    assert followed.main(["--runs", "600", "--followers", "4", "--kills", "1", "--json"]) == 0
    outcome = msgspec.json.decode(capsys.readouterr().out)
    assert (outcome["runs"], outcome["kills"], len(outcome["followers"])) == (600, 1, 4)
    assert all(one["events"] == outcome["events"] >= 600 * 12 for one in outcome["followers"])
    assert outcome["followers"][3]["returns"] > 1


def test_what_is_missed_or_comes_twice_is_found():
    page = FeedPage([], "c")
    one = followed._Follower(0, 1)
    one._take(page)
    assert one.seen.wrong == []
    for seqs, says in (((1, 3), "event 3 came after 1"), ((1, 2, 2), "event 2 came after 2")):
        one = followed._Follower(0, 1)
        one._take(msgspec.structs.replace(page, events=[event(seq) for seq in seqs]))
        assert says in one.seen.wrong[0]


def event(seq):
    return msgspec.convert(
        {
            "run_id": "r",
            "workflow": "w",
            "id": "i",
            "status": "RUNNING",
            "seq": seq,
            "kind": "StepDone",
            "path": "a",
            "attempt": 1,
            "by": "",
            "at": "2026-11-21T00:00:00Z",
            "cursor": f"c.{seq}",
        },
        FeedEventView,
    )
