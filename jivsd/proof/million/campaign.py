"""The campaign: fill, start, look, run beside an empty database, remove."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.client import Client
from jivsd.engine.api import NewStart, StartOptions
from jivsd.places import socket_path
from jivsd.proof import bench, shop
from jivsd.proof.daemons import Daemon, DaemonFailed, insist
from jivsd.proof.engines import engine_with
from jivsd.proof.million.asking import Asker, Look, rss_mb, worked_ms
from jivsd.proof.million.questions import Facts, lists, pages
from jivsd.proof.million.stalls import Stalls, stalls
from jivsd.proof.past import DAY
from jivsd.records import Status
from jivsd.registry.registry import Registry
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from jivsd.engine.engine import Engine
    from jivsd.proof.million.scenes import Scene

SPAN: Final = 60 * DAY
"""The time over which the runs are spread, in microseconds."""
STEPS: Final = 3
"""Of the runs that have ended."""
GOAL_MS: Final = 200.0
LOCKS: Final = 10
LOOK_AGAIN: Final = 0.1


class Readiness(msgspec.Struct, frozen=True):
    """How long a daemon took until it answered that it is ready, how long processors worked for it, and how much memory
    it then had."""

    ready_s: float
    cpu_s: float
    rss_mb: float


class Speed(msgspec.Struct, frozen=True):
    """Steps a second of new runs, and how long processors worked for a step; `share`: as a part of that on an empty
    database, `cpu_share`: as so many times of that."""

    steps_per_s: float
    steps_per_s_empty: float
    share: float
    cpu_us: float
    cpu_us_empty: float
    cpu_share: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `settled`: the same looks when the server had seen what is in its tables."""

    store: str
    runs: int
    events: int
    bytes: int
    fill_s: float
    start: Readiness
    looks: list[Look]
    settled: list[Look]
    speed: Speed
    quiet: Stalls
    pruning: Stalls
    pruned: int
    pruned_per_s: float

    @property
    def slow(self) -> list[Look]:
        """What took longer than it should."""
        return [look for look in (*self.looks, *self.settled) if look.ms > GOAL_MS]


class Plan(msgspec.Struct, frozen=True):
    """How much there is of everything."""

    runs: int
    prune: int
    """Ended runs that are removed, about."""
    waiting: int = 3000
    queueing: int = 300
    stuck: int = 1000
    paused: int = 100
    work: int = 2000
    """Runs of 10 steps in each turn."""
    times: int = 5
    """How often each question is asked, and how many turns new runs take."""
    quiet: float = 15.0
    """Seconds in which runs go on without pruning."""


def campaign(folder: Path, scene: Scene, plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Do all of it."""
    code = Registry().add_module(shop).stored.code_hash
    tell(f"filling a database with {plan.runs:,} runs")
    began = time.perf_counter()
    events = scene.fill(plan.runs, steps=STEPS, span=SPAN, code=code, tell=lambda _: None)
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"events": events, "fill_s": round(seconds, 1), "bytes": scene.bytes()}
    daemon = partial(_daemon, folder, scene)
    tell("starting runs that wait")
    trio.run(_inhabit, daemon, plan)
    tell("looking")
    found["start"], found["looks"] = trio.run(_looking, daemon, scene, plan.times)
    found["settled"] = []
    if scene.settle():
        tell("looking again, when the server has analysed its tables")
        _, found["settled"] = trio.run(_looking, daemon, scene, plan.times)
    tell("running beside an empty database")
    found["speed"] = trio.run(_speed, scene, plan)
    tell("running while old ones are removed")
    found |= trio.run(_pruning, daemon, plan)
    return Outcome(store="sqlite" if scene.url is None else "postgresql", runs=plan.runs, **found)


@asynccontextmanager
async def _daemon(folder: Path, scene: Scene, **settings: str) -> AsyncGenerator[Daemon]:
    if scene.url is not None:
        settings["JIVSD_STORE"] = scene.url
    arguments = ["--plugins", shop.__file__, "--log-level", "warning"]
    daemon = Daemon(folder / "state", folder / "log", arguments, settings)
    try:
        await daemon.start()
        yield daemon
        await daemon.stop()
    finally:
        await daemon.aclose()


async def _inhabit(daemon: Callable[..., Any], plan: Plan) -> None:
    """Start runs that wait, that queue for locks and that an incident holds, and pause some."""
    async with daemon(JIVSD_LIMITS__PASSIVATE_AFTER="1s") as one, Client.connect(one.data_dir) as client:
        starts = [
            *(_start("waiting", number, region="eu") for number in range(plan.waiting)),
            *(_start("queueing", f"key {number % LOCKS}") for number in range(plan.queueing)),
            *(_start("stuck", number) for number in range(plan.stuck)),
        ]
        for result in await client.start_many(starts):
            if result.result != "accepted":
                raise DaemonFailed(f"a run was not started: {result.why}")
        for run in (await client.runs(RunFilter(workflow="waiting"), plan.paused)).items:
            await client.pause(run.run_id)
        while (status := await insist(client.status)).incidents < plan.stuck or status.actors:  # noqa: ASYNC110 -- another process
            await trio.sleep(LOOK_AGAIN)


def _start(workflow: str, input: Any, **attributes: Any) -> NewStart:
    return NewStart(workflow, msgspec.Raw(msgspec.json.encode(input)), StartOptions(attributes=attributes))


async def _looking(daemon: Callable[..., Any], scene: Scene, times: int) -> tuple[Readiness, list[Look]]:
    began = time.perf_counter()
    async with daemon() as one:
        asker = Asker(socket_path(one.data_dir), lambda: [one.pid, *scene.processes()])
        if asker.json("/health/ready")["status"] != "UP":
            raise DaemonFailed("the daemon answers, and is not ready")
        ready = Readiness(round(time.perf_counter() - began, 2), round(worked_ms([one.pid]) / 1000, 2), rss_mb(one.pid))
        facts = Facts(asker, timedelta(microseconds=SPAN))
        looks = [asker.look(question, times) for question in (*pages(facts), *lists(facts))]
        asker.close()
        return ready, looks


async def _speed(scene: Scene, plan: Plan) -> Speed:
    """New runs on either database, in turns."""
    async with engine_with(scene.full()) as full, engine_with(scene.empty()) as empty:
        for engine in (full, empty):
            await _one_turn(engine, scene, plan.work // 10)
        pairs = [
            (await _one_turn(full, scene, plan.work), await _one_turn(empty, scene, plan.work))
            for _ in range(plan.times)
        ]
    return Speed(
        steps_per_s=round(median(one for (one, _), _ in pairs)),
        steps_per_s_empty=round(median(one for _, (one, _) in pairs)),
        share=round(median(one / other for (one, _), (other, _) in pairs), 3),
        cpu_us=round(median(cpu for (_, cpu), _ in pairs), 1),
        cpu_us_empty=round(median(cpu for _, (_, cpu) in pairs), 1),
        cpu_share=round(median(one / other for (_, one), (_, other) in pairs), 3),
    )


async def _one_turn(engine: Engine, scene: Scene, runs: int) -> tuple[float, float]:
    """Steps a second, and microseconds that processors worked for each."""
    worked = time.process_time() * 1000 + worked_ms(scene.processes())
    began = time.perf_counter()
    await bench.many(engine, runs, 10, 1000)
    seconds = time.perf_counter() - began
    worked = time.process_time() * 1000 + worked_ms(scene.processes()) - worked
    return runs * 10 / seconds, worked * 1000 / (runs * 10)


async def _pruning(daemon: Callable[..., Any], plan: Plan) -> dict[str, Any]:
    """Runs go on, first alone and then beside the removal of old ones."""
    async with daemon() as one, Client.connect(one.data_dir) as client:
        quiet = await stalls(client, partial(trio.sleep, plan.quiet))
        before = time.time_ns() // 1000 - SPAN + SPAN * min(plan.prune, plan.runs) // plan.runs - 30 * 1_000_000
        where = RunFilter(ended_before=before, statuses=[Status.COMPLETED])
        removed: list[int] = []

        async def prune() -> None:
            removed.append(await client.prune(where))

        pruning = await stalls(client, prune)
    return {
        "quiet": quiet,
        "pruning": pruning,
        "pruned": removed[0],
        "pruned_per_s": round(removed[0] / pruning.seconds, 1),
    }
