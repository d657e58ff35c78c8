"""Random programs through hundreds of deaths, lost answers and crashed actors: what the model says comes of them."""

from __future__ import annotations

import os
from math import inf
from random import Random

import pytest
from proof.rehearsal import Fates, rehearse

pytestmark = [pytest.mark.jump, pytest.mark.slow]

CAMPAIGN = int(os.environ.get("JIVSD_CHAOS", "200"))
"""How many seeds a soak goes through."""


def fates(seed: int) -> Fates:
    random = Random(f"{seed}/fates")
    return Fates(
        appends=random.choice((0, 5, 20, 60, 300)),
        moments=random.choice((0.3, 1, 3, 10)),
        answers=random.choice((0, 0.05, 0.2, 0.4)),
        actors=random.choice((0, 0.3, 1)),
        passivate=random.choice((inf, 0, 0.05, 0.3)),
        resident=random.choice((1, 3, 20_000)),
        room=random.choice((2, 5, 1000)),
        clock=random.choice((0, 0, 5, 100)),
    )


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_it_comes_out_as_the_model_says(seed, tmp_path):
    assert await rehearse(tmp_path, seed, fates(seed), seconds=4) == []


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(1000, 1000 + CAMPAIGN))
async def test_a_long_rehearsal(seed, tmp_path):
    assert await rehearse(tmp_path, seed, fates(seed), seconds=30) == []
