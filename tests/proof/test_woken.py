"""The proof of nodes that stand still: what it would find, and a short campaign, also of the plugin with a bug."""

from __future__ import annotations

import pytest

from jivsd.proof.woken.belief import Belief
from jivsd.proof.woken.campaign import Plan, campaign
from jivsd.proof.woken.checks import Line, stale

OWNERS = {(7, 1): "a", (7, 2): "b", (7, 3): "a"}


def lines(text):
    """What was written, from a text such as "a1 b2": node and fence."""
    return [Line(word[0], f"jivsd migration epoch 1, fence {word[1:]}", "run") for word in text.split()]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a1 a1 b2 b2 a3", ""),
        ("b2", ""),
        ("a1 b2 a1 b2", "a has written for run run by fence 1 after b had gone on with it by fence 2"),
        ("a1 b1", "b has written for run run by fence 1, which was a's"),
        ("a4", "a has written for run run by fence 4, which was nobody's"),
    ],
)
def test_what_is_found_among_what_was_written(text, wrong):
    assert stale(lines(text), {"run": 7}, OWNERS) == ([wrong] if wrong else [])


def test_a_claim_is_a_right_and_a_strange_session_has_none():
    claim, strange = Line("a", "jivsd migration claim, fence 1", "run"), Line("a", "psql", "run")
    assert stale([claim], {"run": 7}, OWNERS) == []
    assert stale([strange], {"run": 7}, OWNERS) == ["a has written for run run without a right: 'psql'"]


def test_what_a_node_believes_by_its_log(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"event": "shards taken", "shards": [1, 2, 3, 4]}\n{"event": "shards lost", "shards": [1]}\n')
    belief = Belief(log)
    assert belief.mark() == {2, 3, 4}
    with log.open("a") as file:
        file.write('Traceback\n{"event": "shards handed over", "shards": [2]}\n')
        file.write('{"event": "shards lost", "shards": [3], "why": "its lease could not be renewed in time"}\n')
        file.write('{"event": "shards taken", "shards": [3]}\n{"event": "shards lost", "sha')
    belief.read()
    assert (belief.held, belief.let_go, belief.lost_by_itself) == ({3, 4}, {2, 3}, {3})
    with log.open("a") as file:
        file.write('rds": [4], "why": "another node has claimed it"}\n')
    assert belief.mark() == {3}
    assert belief.let_go == set()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_woken_node_writes_nothing_any_more():
    """The long form is a program: `python -m jivsd.proof.woken`."""
    outcome = await campaign(Plan(rounds=2, rows=60, width=2, seed=3))
    assert outcome.wrong == []
    assert outcome.in_flight > 0
    assert outcome.written > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_without_the_fence_it_does_and_that_is_found():
    outcome = await campaign(Plan(rounds=20, nodes=2, rows=100, width=3, seed=3, stale_writer=True))
    assert any("after" in one and "had gone on with it by fence" in one for one in outcome.wrong), outcome.wrong
