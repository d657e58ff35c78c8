"""How long steps stand still while something else goes on: read off the journals of runs that went on meanwhile.

Their steps do nothing, so that what lies between one outcome and the next is the engine's, the journal's, and that of
whatever is in their way.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.client import Client

AT_ONCE: Final = 10
"""Runs that are open at a time."""
STEPS: Final = 10
MOST: Final = 2_000
"""Runs whose journals are read."""


class Stalls(msgspec.Struct, frozen=True):
    """How many runs went on in how many seconds; milliseconds from one outcome of a run to the next."""

    runs: int
    seconds: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


async def stalls(client: Client, meanwhile: Callable[[], Awaitable[Any]]) -> Stalls:
    """Have runs go on for as long as something else takes."""
    done: list[str] = []
    over = False

    async def one_after_another() -> None:
        while not over:
            started = await client.start("sale", {"customer": 1, "items": STEPS, "express": False}, wait="60s")
            done.append(started.run.run_id)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_another)
        await meanwhile()
        over = True
    seconds = time.perf_counter() - began
    gaps: list[float] = []
    for run_id in done[:: len(done) // MOST + 1]:
        events = (await client.timeline(run_id, limit=STEPS + 2)).items
        gaps += ((later.at - earlier.at) / 1000 for earlier, later in pairwise(events))
    gaps.sort()
    p50, p99 = gaps[len(gaps) // 2], gaps[int(len(gaps) * 0.99)]
    return Stalls(len(done), round(seconds, 1), round(p50, 2), round(p99, 2), round(gaps[-1], 2))
