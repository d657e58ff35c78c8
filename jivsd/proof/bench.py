"""`jivsd bench`: how many durable steps a second the engine makes, beside what the store could write at best.

Engine and raw limit take turns in one process, because the speed of a machine varies within minutes: only figures
that were measured side by side can be compared. All are medians over the turns.
"""

from __future__ import annotations

import platform
import sys
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import memory
from jivsd.daemon import SWITCH_INTERVAL
from jivsd.engine.api import StartOptions
from jivsd.engine.engine import Engine
from jivsd.metrics import Metrics
from jivsd.proof import load
from jivsd.proof.ground import ground
from jivsd.proof.rawlimit import Raw
from jivsd.records import ENDED, Status
from jivsd.registry.registry import Registry
from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from jivsd.proof.ground import Ground
    from jivsd.store.api import Store

TURNS: Final = 5
"""How often engine and raw limit take turns."""
ALONE: Final = 100
"""How many runs are timed one at a time for the latencies, in each turn."""
PATIENCE: Final = 600.0
"""Seconds that one run may take."""
LOOP: Final = 1_000_000
"""Rounds of the fixed Python loop by which machines are compared."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the call of start to the result, one run at a time."""

    p50: float
    p99: float


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the bench found. `cpu_us_per_step` is of the whole process, with SQLite and without a
    PostgreSQL server; `loop_ms` is the time of a
    fixed Python loop, by which the figures of different machines are compared."""

    store: str
    runs: int
    steps: int
    concurrency: int
    steps_per_s: float
    runs_per_s: float
    raw_rows_per_s: float
    raw_commits_per_s: float
    batch_rows: float
    cpu_us_per_step: float
    one_step_ms: Latency
    ten_steps_ms: Latency
    loop_ms: float
    versions: dict[str, str]


class _Turn(msgspec.Struct, frozen=True):
    seconds: float
    cpu: float
    batch: float
    raw: Raw
    one_step: list[float]
    ten_steps: list[float]
    loop: float


def bench(
    *,
    store: str | None = None,
    runs: int = 10_000,
    steps: int = 10,
    concurrency: int = 1000,
    on_turn: Callable[[int], None] = lambda _: None,
) -> BenchReport:
    """Measure, on a database or a schema of its own that is removed afterwards.

    Args:
        store: the URL of a PostgreSQL database to measure in; None: the embedded store, in temporary files.
        runs: how many runs there are in all, spread over the turns.
        steps: how many steps each has.
        concurrency: how many runs are open at once.
        on_turn: told how many turns are done, after each.
    """
    with ground(store) as found:
        return trio.run(_bench, found, runs, steps, concurrency, on_turn)


async def _bench(found: Ground, runs: int, steps: int, concurrency: int, on_turn: Callable[[int], None]) -> BenchReport:
    each = max(1, runs // TURNS)
    turns: list[_Turn] = []
    async with engine_with(found.store()) as engine:
        await many(engine, min(each, 200), steps, concurrency)  # warm up
        for number in range(TURNS):
            turns.append(await _turn(engine, found, each, steps, concurrency))
            on_turn(number + 1)
    return _report(turns, found.name, await found.versions(), each, steps, concurrency)


def engine_on(path: Path) -> AbstractAsyncContextManager[Engine]:
    """An engine that runs the bench's workflow on the database file at `path`."""
    return engine_with(SqliteStore(path))


@asynccontextmanager
async def engine_with(store: Store) -> AsyncGenerator[Engine]:
    """An engine that runs the bench's workflow on a store, which is closed at the end."""
    registry = Registry()
    registry.add_module(load)
    async with store:
        epoch = await store.open("bench")
        for plugin in registry.plugins:
            await store.put_plugin(plugin.stored)
        memory.settle()
        sys.setswitchinterval(SWITCH_INTERVAL)
        engine = Engine(store, registry, node="bench", epoch=epoch, metrics=Metrics())
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, engine)
            yield engine
            await engine.stop(5)


async def _serve(engine: Engine, task_status: trio.TaskStatus[None]) -> None:
    await engine.run(task_status=task_status)


async def _turn(engine: Engine, found: Ground, runs: int, steps: int, concurrency: int) -> _Turn:
    sizes = engine.metrics.journal_batch_size
    rows, commits = sizes.total, sum(sizes.counts)
    cpu, began = time.process_time(), time.perf_counter()
    await many(engine, runs, steps, concurrency)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    batch = (sizes.total - rows) / (sum(sizes.counts) - commits)
    written = runs * (steps + 2)
    limit = await found.raw(rows=written, runs=min(runs, concurrency), batch=max(1, round(batch)))
    return _Turn(
        seconds=seconds,
        cpu=cpu,
        batch=batch,
        raw=limit,
        one_step=[await _alone(engine, 1) for _ in range(ALONE)],
        ten_steps=[await _alone(engine, 10) for _ in range(ALONE)],
        loop=_loop(),
    )


async def many(engine: Engine, runs: int, steps: int, concurrency: int) -> None:
    left = iter(range(runs))

    async def one_after_another() -> None:
        for _ in left:
            await one_run(engine, steps)

    async with trio.open_nursery() as nursery:
        for _ in range(min(runs, concurrency)):
            nursery.start_soon(one_after_another)


async def one_run(engine: Engine, steps: int) -> None:
    """Start a run and wait for its result."""
    started = await engine.start("bench", str(steps).encode(), _options)
    run = started.run if started.run.status in ENDED else await engine.result(started.run.run_id, PATIENCE)
    if run.status is not Status.COMPLETED:
        raise RuntimeError(f"run {run.run_id} of the bench is {run.status}")


_options: Final = StartOptions()


async def _alone(engine: Engine, steps: int) -> float:
    began = time.perf_counter()
    await one_run(engine, steps)
    return (time.perf_counter() - began) * 1000


def _loop() -> float:
    began = time.perf_counter()
    total = 0
    for number in range(LOOP):
        total += number & 7
    return (time.perf_counter() - began) * 1000


def _report(
    turns: list[_Turn], store: str, versions: dict[str, str], runs: int, steps: int, concurrency: int
) -> BenchReport:
    def middle(value: Callable[[_Turn], float], digits: int = 1) -> float:
        return round(median(value(turn) for turn in turns), digits)

    return BenchReport(
        store=store,
        runs=runs * TURNS,
        steps=steps,
        concurrency=min(runs, concurrency),
        steps_per_s=middle(lambda turn: runs * steps / turn.seconds),
        runs_per_s=middle(lambda turn: runs / turn.seconds),
        raw_rows_per_s=middle(lambda turn: turn.raw.rows / turn.raw.seconds),
        raw_commits_per_s=middle(lambda turn: turn.raw.commits / turn.raw.seconds),
        batch_rows=middle(lambda turn: turn.batch),
        cpu_us_per_step=middle(lambda turn: turn.cpu / (runs * steps) * 1e6),
        one_step_ms=_latency([ms for turn in turns for ms in turn.one_step]),
        ten_steps_ms=_latency([ms for turn in turns for ms in turn.ten_steps]),
        loop_ms=middle(lambda turn: turn.loop, 2),
        versions=_versions() | versions,
    )


def _latency(milliseconds: list[float]) -> Latency:
    cuts = quantiles(milliseconds, n=100)
    return Latency(round(cuts[49], 2), round(cuts[98], 2))


def _versions() -> dict[str, str]:
    return {
        "jivsd": version("jivsd"),
        "python": sys.version.split()[0],
        "trio": trio.__version__,
        "msgspec": msgspec.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }
