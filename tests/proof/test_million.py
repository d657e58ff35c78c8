"""The measurement of what a million runs cost, in small: everything is asked, and answered."""

from __future__ import annotations

import pytest

from jivsd.proof import shop
from jivsd.proof.million.__main__ import _words
from jivsd.proof.million.campaign import Plan, campaign
from jivsd.proof.million.scenes import scene
from jivsd.proof.past import past
from jivsd.records import Status
from jivsd.testing.history import History, replay

SMALL = Plan(runs=2_000, prune=200, waiting=30, queueing=20, stuck=10, paused=5, work=20, times=1, quiet=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def test_everything_is_asked(tmp_path, kind):
    said = []
    with scene(tmp_path, postgres=kind == "postgresql", durable=False) as place:
        outcome = campaign(tmp_path, place, SMALL, said.append)
    assert (outcome.store, outcome.runs, outcome.events) == (kind, 2_000, 10_000)
    looked = {look.what for look in outcome.looks}
    assert len(looked) > 100
    assert {look.what for look in outcome.settled} <= looked
    assert {"overview", "runs", "run, held", "incidents", "locks", "docs"} <= {look.page for look in outcome.looks}
    assert min(look.cpu_ms for look in outcome.looks) > 0
    assert 100 < outcome.pruned < 300
    assert min(outcome.speed.share, outcome.quiet.runs, outcome.pruning.runs, outcome.start.rss_mb) > 0
    assert list(_words(outcome))[-1].startswith(("good", "WRONG"))


def test_the_past_of_a_run_replays():
    """What is made up is what the code would have done."""
    ended = next(one for one in past(50, 3) if one.run.status is Status.COMPLETED)
    outcome = replay(History.of(ended.run, ended.events), shop).outcome
    assert outcome is not None
    assert outcome.status is Status.COMPLETED
