"""What a parked run costs: memory, idle time of a core, and how fast signals bring runs back.

The engine lives in a process of its own, so that its memory can be looked at. It has had all the runs in memory before
it is measured: what they leave behind there counts too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import trio

from jivsd import memory
from jivsd.engine.api import StartOptions
from jivsd.engine.engine import Engine
from jivsd.proof import load
from jivsd.records import Status
from jivsd.registry.registry import Registry
from jivsd.store.sqlite.store import SqliteStore

AT_ONCE: Final = 200
"""How many starts and signals are under way at once."""
WARM_UP: Final = 500
"""How many runs are parked before the first look at the memory."""
WAIT: Final = 1.0
"""Seconds that a run waits in memory."""
IDLE: Final = 10.0
"""Seconds in which nothing happens."""
SIGNALS: Final = 5_000
"""How many of the runs get their signal, at most."""
PAGE: Final = 4096
"""Bytes in a page of memory, as Linux counts them in /proc."""


class Parked(msgspec.Struct, frozen=True):
    """What parked runs cost. `signals_per_s`: acknowledged, applied by a run that came back for it, and ended."""

    runs: int
    rss_bytes_per_run: float
    rss_growth_bytes: int
    idle_cpu_percent: float
    signals_per_s: float


def measure(runs: int) -> Parked:
    """Park so many runs in a process of their own, on a database that is removed afterwards.

    Raises:
        subprocess.CalledProcessError: that process failed; what it said is on stderr.
    """
    command = [sys.executable, "-m", "jivsd.proof.parked", str(runs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Parked)


async def _measure(runs: int) -> Parked:
    registry = Registry()
    registry.add_module(load)
    with tempfile.TemporaryDirectory(prefix="jivsd-parked-") as folder:
        async with SqliteStore(Path(folder) / "parked.db") as store, trio.open_nursery() as nursery:
            epoch = await store.open("parked")
            for plugin in registry.plugins:
                await store.put_plugin(plugin.stored)
            memory.settle()
            engine = Engine(store, registry, node="parked", epoch=epoch, passivate_after=WAIT)
            await nursery.start(_serve, engine)
            await _start(engine, WARM_UP)
            before = _resident()
            parked = await _start(engine, runs)
            growth = _resident() - before
            cpu = time.process_time()
            await trio.sleep(IDLE)
            percent = (time.process_time() - cpu) / IDLE * 100
            rate = await _signal(engine, parked[:SIGNALS])
            await engine.stop(5)
    return Parked(runs, round(growth / runs, 1), growth, round(percent, 3), round(rate, 1))


async def _serve(engine: Engine, task_status: trio.TaskStatus[None]) -> None:
    await engine.run(task_status=task_status)


async def _start(engine: Engine, runs: int) -> list[str]:
    """Start runs; return their ids when all have left memory."""
    found: list[str] = []
    left = iter(range(runs))

    async def one_after_another() -> None:
        for _ in left:
            started = await engine.start("parked", b"null", StartOptions())
            found.append(started.run.run_id)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_another)
    while engine.actors:  # noqa: ASYNC110 -- the engine tells nobody that it is empty
        await trio.sleep(WAIT / 4)
    return found


async def _signal(engine: Engine, runs: list[str]) -> float:
    """Signal each run and wait for its end; return how many that were in a second."""
    left = iter(runs)

    async def one_after_another() -> None:
        for run_id in left:
            await engine.signal(run_id, "go", b'"go"')
            run = await engine.result(run_id, 60)
            if run.status is not Status.COMPLETED:
                raise RuntimeError(f"run {run_id} was signalled and is {run.status}")

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_another)
    return len(runs) / (time.perf_counter() - began)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(trio.run(_measure, int(sys.argv[1]))).decode())
