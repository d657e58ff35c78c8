"""How throughput and latency depend on how many runs are open at once: the curves of the bench's report."""

from __future__ import annotations

import time
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.proof.bench import Latency, many
from jivsd.proof.engines import engine_with
from jivsd.proof.ground import ground

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.proof.ground import Ground

CONCURRENCIES: Final = (1, 10, 100, 1000, 10_000)
ALONE: Final = 200
"""Runs at a concurrency of one; the others have as many as are open at once, twice, and at least ten times these."""


class Point(msgspec.Struct, frozen=True):
    """One point of the curves. `run_ms`: from the start of a run to its result, while the others run too."""

    concurrency: int
    runs: int
    steps_per_s: float
    run_ms: Latency


def sweep(
    *,
    store: str | None = None,
    steps: int = 10,
    concurrencies: tuple[int, ...] = CONCURRENCIES,
    runs: int | None = None,
    on_point: Callable[[Point], None] = lambda _: None,
) -> list[Point]:
    """Measure every concurrency, on a database of its own each.

    Args:
        store: as for `bench`.
        steps: how many steps a run has.
        concurrencies: how many runs are open at once.
        runs: how many runs each point has; by default more, the more are open at once.
        on_point: told each point.
    """

    async def all_points() -> list[Point]:
        points: list[Point] = []
        for concurrency in concurrencies:
            count = runs or min(max(2 * concurrency, ALONE * min(concurrency, 10)), 20_000)
            points.append(await _point(found, concurrency, count, steps))
            on_point(points[-1])
        return points

    with ground(store) as found:
        return trio.run(all_points)


async def _point(found: Ground, concurrency: int, runs: int, steps: int) -> Point:
    async with engine_with(found.store()) as running:
        await many(running, min(runs, 200), steps, concurrency)  # warm up
        began = time.perf_counter()
        took = await many(running, runs, steps, concurrency)
        seconds = time.perf_counter() - began
    cuts = quantiles(took, n=100)
    return Point(concurrency, runs, round(runs * steps / seconds, 1), Latency(round(cuts[49], 2), round(cuts[98], 2)))
