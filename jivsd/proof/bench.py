"""`jivsd bench`: how many durable steps a second the engine makes, beside what the store could write at best.

Engine and raw limit take turns in one process, because the speed of a machine varies within minutes: only figures
that were measured side by side can be compared. All are medians over the turns.
"""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import version
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from jivsd.engine.api import StartOptions
from jivsd.proof import asked, parked, recovering, signalling, together
from jivsd.proof.drive import drive
from jivsd.proof.engines import engine_with
from jivsd.proof.ground import ground
from jivsd.proof.parked import Parked
from jivsd.proof.rawlimit import Raw
from jivsd.proof.recovering import Recovery
from jivsd.proof.together import Together
from jivsd.records import ENDED, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.engine import Engine
    from jivsd.proof.ground import Ground

TURNS: Final = 5
"""How often engine and raw limit take turns."""
ALONE: Final = 100
"""How many runs are timed one at a time for the latencies, in each turn."""
PATIENCE: Final = 600.0
"""Seconds that one run may take."""
LOOP: Final = 1_000_000
"""Rounds of the fixed Python loop by which machines are compared."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the call of start to the result, one run at a time; through the socket: in one request."""

    p50: float
    p99: float


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the bench found. `cpu_us_per_step` is of the whole process, with SQLite and without a PostgreSQL server;
    `loop_ms` is the time of a fixed Python loop, by which the figures of different machines are compared.
    `signals_per_s`: signals to parked runs, each of which comes back for it and ends. `together`: what several workers
    do, if that was asked for; all the rest is of one process.
    """

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
    one_step_socket_ms: Latency
    parked: Parked
    signals_per_s: float
    recovery: Recovery
    loop_ms: float
    versions: dict[str, str]
    together: Together | None = None


class _Turn(msgspec.Struct, frozen=True):
    seconds: float
    cpu: float
    batch: float
    raw: Raw
    one_step: list[float]
    ten_steps: list[float]
    loop: float


class _Waits(NamedTuple):
    one_step_socket: list[float]
    parked: Parked
    signals_per_s: float
    recovery: Recovery
    together: Together | None


def bench(
    *,
    store: str | None = None,
    runs: int = 10_000,
    steps: int = 10,
    concurrency: int = 1000,
    parked_runs: int = 2000,
    in_flight: int = 1000,
    idle: float = parked.IDLE,
    requests: int = asked.REQUESTS,
    workers: int = 1,
    on_turn: Callable[[int], None] = lambda _: None,
) -> BenchReport:
    """Measure, on databases or schemas of its own that are removed afterwards.

    Args:
        store: the URL of a PostgreSQL database to measure in; None: the embedded store, in temporary files.
        runs: how many runs there are in all, spread over the turns.
        steps: how many steps each has.
        concurrency: how many runs are open at once.
        parked_runs: how many runs are parked in a daemon; and, apart from that, how many get a signal.
        in_flight: how many runs are in a step when a daemon is killed.
        idle: seconds in which parked runs are left alone, to see what they take of a core.
        requests: how many runs are started through the socket of a daemon, one at a time.
        workers: how many processes are measured together besides; 1: none. They share a PostgreSQL database.
        on_turn: told how many turns are done, after each.

    Raises:
        DaemonFailed, NotRecovered.
    """
    each = max(1, runs // TURNS)
    with ground(store) as found:
        turns, versions = trio.run(_turns, found, each, steps, concurrency, on_turn)
        waits = _Waits(
            asked.measure(requests, store=found.url()),
            parked.measure(parked_runs, store=found.url(), idle=idle),
            signalling.measure(parked_runs, found.store()),
            recovering.measure(in_flight, store=found.url()),
            together.measure(found.url(), workers, runs=runs, steps=steps, concurrency=concurrency, parked=parked_runs)
            if workers > 1
            else None,
        )
        return _report(turns, waits, found.name, versions, each, steps, concurrency)


async def _turns(
    found: Ground, each: int, steps: int, concurrency: int, on_turn: Callable[[int], None]
) -> tuple[list[_Turn], dict[str, str]]:
    turns: list[_Turn] = []
    async with engine_with(found.store()) as engine:
        await many(engine, min(each, 200), steps, concurrency)  # warm up
        for number in range(TURNS):
            turns.append(await _turn(engine, found, each, steps, concurrency))
            on_turn(number + 1)
    return turns, await found.versions()


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
        one_step=await many(engine, ALONE, 1, 1),
        ten_steps=await many(engine, ALONE, 10, 1),
        loop=_loop(),
    )


async def many(engine: Engine, runs: int, steps: int, concurrency: int) -> list[float]:
    """Start runs and wait for their results, so many open at once; return how many milliseconds each took."""
    return await drive(range(runs), lambda _: _one_run(engine, steps), min(runs, concurrency))


async def _one_run(engine: Engine, steps: int) -> None:
    """Start a run and wait for its result."""
    started = await engine.start("bench", str(steps).encode(), _options)
    run = started.run if started.run.status in ENDED else await engine.result(started.run.run_id, PATIENCE)
    if run.status is not Status.COMPLETED:
        raise RuntimeError(f"run {run.run_id} of the bench is {run.status}")


_options: Final = StartOptions()


def _loop() -> float:
    began = time.perf_counter()
    total = 0
    for number in range(LOOP):
        total += number & 7
    return (time.perf_counter() - began) * 1000


def _report(
    turns: list[_Turn], waits: _Waits, store: str, versions: dict[str, str], runs: int, steps: int, concurrency: int
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
        one_step_socket_ms=_latency(waits.one_step_socket),
        parked=waits.parked,
        signals_per_s=waits.signals_per_s,
        recovery=waits.recovery,
        loop_ms=middle(lambda turn: turn.loop, 2),
        versions=_versions() | versions,
        together=waits.together,
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
