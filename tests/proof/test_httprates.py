"""What is said of starts over HTTP has been measured."""

from __future__ import annotations

import pytest

from jivsd.proof import httprates
from jivsd.proof.ground import ground


@pytest.mark.slow
async def test_starts_are_measured_beside_an_empty_route():
    with ground() as place:
        rates = await httprates.measure(place.store(), rounds=1, requests=64, bulks=1)
    assert min(rates.empty_per_s, rates.starts_per_s, rates.empty_cpu_us, rates.bulk_cpu_us) > 0
    assert rates.bulk_per_s >= rates.bulk_ended_per_s > rates.starts_per_s
    assert rates.bulk_accept_cpu_us <= rates.bulk_cpu_us
    assert rates.start_cpu_us > rates.bulk_cpu_us
