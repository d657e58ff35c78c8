"""What is said of starts over HTTP has been measured."""

from __future__ import annotations

import pytest

from jivsd.proof import httprates


@pytest.mark.slow
async def test_starts_are_measured_beside_an_empty_route():
    rates = await httprates.measure(rounds=1, requests=64, bulks=1)
    assert min(rates.empty_per_s, rates.starts_per_s, rates.empty_cpu_us, rates.bulk_cpu_us) > 0
    assert rates.bulk_per_s > rates.starts_per_s
    assert rates.start_cpu_us > rates.bulk_cpu_us
