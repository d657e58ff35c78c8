"""How fast signals bring parked runs back: each is durable, brings its run to memory, and the run ends with it.

In process, as the throughput of steps is measured: through the socket each signal is a request, and the endpoint would
be what is measured.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

from jivsd.engine.api import NewStart
from jivsd.proof.drive import drive
from jivsd.proof.engines import engine_with
from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.engine.engine import Engine
    from jivsd.store.api import Store

AT_ONCE: Final = 1000
"""How many signals are under way at once, and how many runs are started with one call."""
PATIENCE: Final = 60.0
"""Seconds that a run may take to end."""
LOOK_AGAIN: Final = 0.02
"""Seconds between two looks whether all runs have left memory."""


def measure(runs: int, store: Store) -> float:
    """How many signals a second: acknowledged, applied by a run that came back for it, and the run has ended."""
    return trio.run(_measure, runs, store)


async def _measure(runs: int, store: Store) -> float:
    async with engine_with(store, passivate_after=0) as engine:
        parked = await _park(engine, runs)
        began = time.perf_counter()
        await drive(parked, lambda run_id: _one_signal(engine, run_id), min(runs, AT_ONCE))
        return round(runs / (time.perf_counter() - began), 1)


async def _park(engine: Engine, runs: int) -> list[str]:
    """Start runs; return their ids when all have left memory."""
    found: list[str] = []
    for first in range(0, runs, AT_ONCE):
        for result in await engine.start_many([NewStart("parked")] * min(AT_ONCE, runs - first)):
            if result.run_id is None:
                raise RuntimeError(f"a run was not started: {result.why}")
            found.append(result.run_id)
    while engine.actors:  # noqa: ASYNC110 -- the engine tells nobody that it is empty
        await trio.sleep(LOOK_AGAIN)
    return found


async def _one_signal(engine: Engine, run_id: str) -> None:
    await engine.signal(run_id, "go", b'"go"')
    run = await engine.result(run_id, PATIENCE)
    if run.status is not Status.COMPLETED:
        raise RuntimeError(f"run {run_id} was signalled and is {run.status}")
