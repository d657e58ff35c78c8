"""Replay, hammered with random programs (DESIGN.md section 4). See `checks` for what must hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jivsd.records import encode
from replay.checks import check, check_forks, check_instants
from replay.elsewhere import digest
from replay.programs import Maker
from replay.simulator import Life

CAMPAIGN = int(os.environ.get("JIVSD_REPLAY_PROGRAMS", "2000"))
"""How many programs a soak lives through."""


@st.composite
def programs(draw, most=25):
    """A random program, drawn so that Hypothesis can shrink it."""
    return Maker(draw(st.randoms(use_true_random=False)), size=draw(st.integers(1, most))).program()


quick = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(program=programs(), seed=st.integers(0, 2**32))
def test_every_life_of_a_program_is_a_prefix_of_its_replay(program, seed):
    check(program, seed)


@settings(quick, max_examples=20)
@given(program=programs(most=15), seed=st.integers(0, 2**32))
def test_whatever_comes_at_one_instant_may_come_in_any_order(program, seed):
    check_instants(program, seed)


@settings(quick, max_examples=30)
@given(program=programs(most=20), seed=st.integers(0, 2**32))
def test_a_reset_lives_on_from_any_event(program, seed):
    check_forks(program, seed)


@pytest.mark.parametrize("hash_seed", ["0", "1234"])
def test_another_process_with_another_hash_seed_replays_alike(hash_seed, tmp_path):
    journals = [Life(Maker(Random(seed), size=30).program(), seed, crashes=(3, 5)).run().journal for seed in range(60)]
    file = tmp_path / "journals.json"
    file.write_bytes(encode(journals))
    replayed = subprocess.run(
        [sys.executable, "-m", "replay.elsewhere", file],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parent.parent)},
        check=True,
        stdout=subprocess.PIPE,
    )
    assert json.loads(replayed.stdout) == [digest(journal) for journal in journals]


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(0, CAMPAIGN, 1000))
def test_a_long_campaign(first):
    for seed in range(first, min(first + 1000, CAMPAIGN)):
        rng = Random(seed)
        program = Maker(rng, size=rng.randint(1, 40)).program()
        check(program, seed)
        if seed % 10 == 0:
            check_instants(program, seed)
            check_forks(program, seed)
