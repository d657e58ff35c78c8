"""Random orders, crashes and absences of the store, all at once: the journals hold what was promised."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio

from engine import commands
from engine.stores import FickleStore
from engine.test_supervision import Restarting, explode
from jivsd.engine.api import Conflict, EngineError, Invalid, Unavailable
from jivsd.records import ENDED, Kind, Status, payload_of
from jivsd.store.api import RunFilter

pytestmark = [pytest.mark.jump, pytest.mark.slow]

CAMPAIGN = int(os.environ.get("JIVSD_CHAOS", "300"))
"""How many seeds a soak goes through."""
OUTCOMES = {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED, Kind.TIMER_FIRED, Kind.MARKER}
STARTS: list[tuple[str, Any]] = [
    ("everything", "Ann"),
    ("trip", "good"),
    ("trip", "bad"),
    ("trip", "child"),
    ("patient", 7),
    ("patient", 30),
    ("talk", 1),
    ("decide", "what?"),
    ("children", ["child:good", "trip:bad", "patient:x"]),
    ("lingers", 8),
    ("lingers", 100),
    ("repairable", "mill"),
]


class Chaos:
    """One seed's worth."""

    def __init__(self, env: Restarting, store: FickleStore, seed: int) -> None:
        self.env = env
        self.store = store
        self.random = Random(seed)
        self.runs: list[str] = []
        self.crashes = 0

    async def play(self) -> None:
        for _ in range(self.random.randint(10, 40)):
            often = [self.start] * 4 + [self.order] * 4 + [self.speak] * 2
            act = self.random.choice([*often, self.crash_actor, self.crash_engine, self.leave])
            with suppress(EngineError):
                await act()
            if self.random.random() < 0.7:
                await trio.sleep(self.random.choice([0, 0.01, 1, 5, 20, 400]))

    async def start(self) -> None:
        workflow, input = self.random.choice(STARTS)
        self.runs.append(await self.env.start(workflow, input, lock_wait=self.random.choice([None, None, "10s"])))

    async def order(self) -> None:
        if self.runs:
            order = self.random.choice(["pause", "resume", "resume", "cancel", "terminate", "retry", "resolve"])
            run = self.random.choice(self.runs)
            if order == "resolve":
                await self.env.resolve(run, 7)
            elif order == "retry":
                commands.world.broken.clear()
                self.runs.append(await self.env.retry(run))
            else:
                await getattr(self.env, order)(run)

    async def speak(self) -> None:
        if self.runs:
            run = self.random.choice(self.runs)
            name, payload = self.random.choice(
                [("vote", "ann"), ("word", {"text": "x"}), ("word", "misfit"), ("done", "yes")]
            )
            await self.env.signal(run, name, payload, message_id=f"m{self.random.randint(0, 20)}")

    async def crash_actor(self) -> None:
        actors = sorted(self.env.engine.actors)
        if actors:
            self.crashes += 1
            self.env.engine.actors[self.random.choice(actors)].fail(RuntimeError("planted"))

    async def crash_engine(self) -> None:
        self.crashes += 1
        self.env.engine.nursery.start_soon(explode)
        await trio.sleep(0.1)

    async def leave(self) -> None:
        self.store.writes_fail = True
        self.store.reads_fail = self.random.random() < 0.5
        await trio.sleep(self.random.choice([0.1, 3, 30]))
        self.store.writes_fail = self.store.reads_fail = False

    async def settle(self) -> None:
        """Bring everything to an end: what waits for somebody is helped."""
        await trio.sleep(30)
        for _ in range(8):
            page = await self.env.engine.runs(RunFilter(open_only=True), 1000)
            if not page.items:
                return
            for run in page.items:
                await self.help(run.run_id)
            await trio.sleep(4000)
        waits = {run.workflow: await self.env.waits(run.run_id) for run in page.items}
        raise AssertionError(f"still open: {waits}")

    async def help(self, run: str) -> None:
        for give in (
            lambda: self.env.resume(run),
            lambda: self.env.resolve(run, 7),
            lambda: self.env.resolve(run, None),
            lambda: self.env.signal(run, "vote", "bob"),
            lambda: self.env.signal(run, "word", {"text": "end"}),
            lambda: self.env.signal(run, "done", "yes"),
        ):
            with suppress(Conflict, Invalid, Unavailable):
                await give()


async def check(chaos: Chaos) -> None:
    env, world = chaos.env, commands.world
    rows = (await env.engine.runs(RunFilter(), 1000)).items
    assert {row.run_id for row in rows} >= set(chaos.runs)
    held: list[tuple[int, int]] = []
    for row in rows:
        assert row.status in ENDED
        events = await env.store.events(row.run_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.kind for event in events].count(Kind.ENDED) == 1
        assert events[-1].kind == Kind.ENDED
        assert payload_of(events[-1]).status == row.status
        assert all(earlier.at <= later.at for earlier, later in pairwise(events))
        twice = [path for path, count in Counter(e.path for e in events if e.kind in OUTCOMES).items() if count > 1]
        assert not twice, (row.workflow, twice)
        messages = [payload_of(event).message_id for event in events if event.kind == Kind.SIGNAL]
        assert len(messages) == len(set(messages))
        granted = [event.at for event in events if event.kind == Kind.LOCK_GRANTED]
        if granted and row.status is not Status.FAILED:
            held.append((granted[-1], events[-1].at))
    held.sort()
    assert all(end <= begin for (_, end), (begin, _) in pairwise(held))
    assert all(len(keys) == 1 for keys in world.keys.values())
    assert not env.engine.actors
    assert not env.engine.suspended
    assert not env.engine.waiters._waiting
    assert await env.store.lock_queue() == []
    assert await env.store.check() == []
    open_incidents = (await env.engine.incidents(limit=1000)).items
    assert all(incident.kind == "message" for incident in open_incidents), open_incidents


async def live_through(seed: int) -> None:
    commands.fresh_world().broken.update({"mill"} if seed % 2 else set())
    store = FickleStore()
    async with Restarting(commands, store=store) as env:
        chaos = Chaos(env, store, seed)
        await chaos.play()
        await chaos.settle()
        await check(chaos)


@pytest.mark.parametrize("seed", range(12))
async def test_chaos(seed):
    await live_through(seed)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(100, 100 + CAMPAIGN))
async def test_more_chaos(seed):
    await live_through(seed)
