"""The proof of locks: what it would find, and a short campaign with kills."""

from __future__ import annotations

import pytest
from databases import NEWEST

from jivsd.proof import redisserver
from jivsd.proof.locking.campaign import Plan, campaign
from jivsd.proof.locking.checks import Line, Ran, violations

RUNS = [Ran("a", 1, "COMPLETED", True), Ran("b", 2, "COMPLETED", True), Ran("c", 3, "COMPLETED", False)]


def ledger(text):
    """Lines from a text such as "a+1 a-1": run, whether it enters, fence."""
    return [
        Line(entry, word[0], "k", "enter" if word[1] == "+" else "leave", int(word[2:]))
        for entry, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("a+1 a-1 b+2 b-2 c+3 c-3", ""),
        ("c+1 c-1 a+2 a-2 b+3 b-3", ""),
        ("a+1 a-2 b+4 b-4 c+5 c-5", ""),
        ("a+1 b+2 a-1 b-2 c+3 c-3", "run b entered (line 1) while a was inside"),
        ("b+1 b-1 a+2 a-2 c+3 c-3", "run b came before run a, which was started before it"),
        ("a+1 a-1 b+1 b-1 c+3 c-3", "run b had the fence 1, one before it had 1"),
        ("a+2 a-1 b+3 b-3 c+4 c-4", "the fence of run a went down from 2 to 1"),
        ("a+1 a-1 b+2 b-2 c+3", "run c wrote 'leave' 0 times"),
        ("a+1 a-1 a+2 a-2 b+3 b-3 c+4 c-4", "run a wrote 'enter' 2 times"),
        ("a+1 b-1 a-1 b+2 b-2 c+3 c-3", "run b left (line 1) without being inside"),
    ],
)
def test_what_is_found_in_a_ledger(lines, wrong):
    found = violations(ledger(lines), RUNS)
    assert bool(found) == bool(wrong)
    assert wrong in " ".join(found)


def test_a_run_that_did_not_complete():
    runs = [*RUNS[:2], Ran("c", 3, "FAILED", False)]
    assert violations(ledger("a+1 a-1 b+2 b-2 c+3 c-3"), runs) == ["run c is FAILED"]


@pytest.mark.slow
async def test_a_short_campaign(postgres):
    """The long form is a program: `python -m jivsd.proof.locking`."""
    with redisserver.Server() as redis:
        plan = Plan(
            store=postgres(NEWEST).fresh(),
            redis=redis.url,
            runs=300,
            keys=5,
            nodes=3,
            every=(1, 3),
            away=(0, 1.5),
            lease=1,
            seed=7,
        )
        outcome = await campaign(plan)
    assert outcome.wrong == []
    assert outcome.runs == 300
    assert outcome.kills > 0
