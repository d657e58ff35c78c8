"""The proof of cut ways to PostgreSQL: what it would find, and one short cut."""

from __future__ import annotations

import msgspec
import pytest

from jivsd.proof.severed import Cut, Plan, campaign

GOOD = Cut(way="asked", noticed=5.0, let_go=18.0, taken_over=22.0, shared=3.0, gap=1.0)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"noticed": 20.5}, ["asked: noticed after 20.5 s, 20 s are allowed"]),
        ({"let_go": None}, ["asked: let go never, 20 s are allowed"]),
        ({"taken_over": 31.0}, ["asked: taken over after 31.0 s, 30 s are allowed"]),
        ({"shared": 16.0}, ["asked: shared again after 16.0 s, 15 s are allowed"]),
        ({"gap": 6.0}, ["asked: at the others nothing had ended after 6.0 s, 5 s are allowed"]),
    ],
)
def test_what_takes_too_long(changes, wrong):
    assert msgspec.structs.replace(GOOD, **changes).wrong(Plan()) == wrong


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_node_that_hears_no_answers_lets_go_and_comes_back():
    """The long form, at the default leases, is a program: `python -m jivsd.proof.severed`."""
    outcome = await campaign(Plan(ways=("answered",), lease=2.5, postgresql_lease=8.0, patience=4.0))
    assert outcome.wrong == []
    assert outcome.runs > 0
