"""`jivsd nodes`: against a daemon alone, and as a page of several."""

from __future__ import annotations

import re
from math import inf

import msgspec
import pytest
from cli.test_pages import shown

from jivsd.admin.nodewire import NodePage, NodeView
from jivsd.cli.nodes import page, spans
from jivsd.store.sharing import ALONE, POSTGRESQL, REDIS, Member, NodeState


def test_a_daemon_alone_has_all_shards(jivsd):
    shown = jivsd("nodes")
    assert re.search(r"NODE +SHARDS +WHICH", shown.out)
    assert re.search(r"64 +0-63 .* alone ", shown.out)
    (item,) = jivsd("nodes", "--json").json["items"]
    assert (item["shards"], item["by"], item["lease_left"]) == (list(range(64)), ALONE, None)
    assert item["since"].endswith("Z")
    assert item["owned"][63]["epoch"] >= 1


def member(node, by, left, **more):
    return Member(node, "1", 1_000_000, left, by, more.pop("leaving", False), full=False, version="1.2")


STATES = [
    NodeState("a", member("a", REDIS, 12.0), [(0, 5, 2_000_000), (1, 5, 2_000_000), (3, 7, 3_000_000)]),
    NodeState("b", member("b", POSTGRESQL, -4.2), [(2, 4, 2_000_000)]),
    NodeState("c", member("c", REDIS, 19.0, leaving=True), []),
    NodeState("d", None, [(4, 1, 0)]),
    NodeState("e", member("e", "", 6.0), []),
    NodeState("f", member("f", ALONE, inf), []),
]


def test_a_page_of_several_nodes():
    lines = shown(page(STATES))
    for node, words in {
        "a": r"3 +0-1, 3 +5, 7 .* redis ",
        "b": r"1 +2 +4 .* silent for 4 s ",
        "c": r"0 +- +- +- +leaving ",
        "d": r"1 +4 +1 .* gone +- +-",
        "e": r"0 .* joining ",
        "f": r"0 .* alone .* 1\.2",
    }.items():
        assert any(re.match(rf"{node} +{words}", line) for line in lines), (node, lines)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 3], "0-3"), ([0, 1, 5, 7, 8], "0-1, 5, 7-8")]
)
def test_neighbours_are_put_together(numbers, text):
    assert spans(numbers) == text


def test_what_is_said_over_http_comes_back_whole():
    sent = msgspec.json.encode(NodePage([NodeView.of(state) for state in STATES]))
    assert [view.record() for view in msgspec.json.decode(sent, type=NodePage).items] == STATES
