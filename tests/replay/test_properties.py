"""Replay, hammered with random programs (DESIGN.md section 4). See `checks` for what must hold."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.checks import check
from replay.programs import Maker

CAMPAIGN = int(os.environ.get("JIVSD_REPLAY_PROGRAMS", "2000"))
"""How many programs a soak lives through."""


@st.composite
def programs(draw, most=25):
    """A random program, drawn so that Hypothesis can shrink it."""
    return Maker(draw(st.randoms(use_true_random=False)), size=draw(st.integers(1, most))).program()


quick = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(program=programs(), seed=st.integers(0, 2**32))
def test_every_life_of_a_program_is_a_prefix_of_its_replay(program, seed):
    check(program, seed)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(0, CAMPAIGN, 1000))
def test_a_long_campaign(first):
    for seed in range(first, min(first + 1000, CAMPAIGN)):
        rng = Random(seed)
        check(Maker(rng, size=rng.randint(1, 40)).program(), seed)
