"""The workflow that interprets the torturer's programs. A plugin: the torturer's daemons load it with --plugins.

It raises no errors but those that a program asks for. What it does for a node, `jivsd.proof.torture.model` foresees.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from jivsd import Context, NotDelivered, query, signal, update, workflow
from jivsd.proof.torture import language as say
from jivsd.proof.torture.language import Program, Result

from .steps import THREAD_S, Job, step_of, undo_child

__all__ = ["NAME", "Torture"]

NAME = "torture"

NEVER = "never"
"""A signal that nobody sends."""


class Deliberate(Exception):
    """What a Raise raises."""


class NotYet(Exception):
    """The code does not wait for this update yet, and wants no early ones."""


class Taken(Exception):
    """There has been an update of that name."""


def token() -> str:
    """Something that is another each time."""
    return os.urandom(8).hex()


@workflow(say.WORKFLOW)
class Torture:
    """Interprets one program. `counter` is what the model foresees; `stage` says whether it has come to its Hold."""

    def __init__(self) -> None:
        self.world = ""
        self.home = ""
        self.counter = 0
        self.stage = "run"
        self.added: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.drawn: dict[str, str] = {}
        self.asked: dict[str, bool] = {}
        """The updates that the code waits, or has waited, for; whether they have been answered."""
        self.taken: dict[str, int] = {}

    @signal
    def add(self, to: str, amount: int) -> None:
        self.added[to] = self.added.get(to, 0) + amount
        self.counter += amount

    @update
    def put(self, to: str, amount: int, early: bool) -> int:
        self.taken[to] = amount
        self.counter += amount
        self.asked[to] = True
        return amount

    @put.validator
    def may_put(self, to: str, amount: int, early: bool) -> None:
        if to in self.taken:
            raise Taken(to)
        if not early and to not in self.asked:
            raise NotYet(to)

    @update
    async def perform(self, ctx: Context, to: str, amount: int, early: bool, nodes: list[say.Node_]) -> int:
        self.taken[to] = amount
        try:
            await self._block(ctx, nodes)
        finally:
            self.asked[to] = True
        self.counter += amount
        return amount

    @perform.validator
    def may_perform(self, to: str, amount: int, early: bool, nodes: list[say.Node_]) -> None:
        self.may_put(to, amount, early)

    @query
    def standing(self) -> str:
        return self.stage

    @query
    def count(self) -> int:
        return self.counter

    async def run(self, ctx: Context, program: Program) -> Result:
        self.world, self.home = program.world, program.home
        self.counter += program.counter
        for to, amount in program.added.items():  # some may have come before: this run waited for its turn
            self.added[to] = self.added.get(to, 0) + amount
        self.drawn.update(program.drawn)
        self.taken.update(program.taken)
        await self._block(ctx, program.nodes)
        if program.rounds:
            nodes, *rounds = program.rounds
            known = self.counter, self.added, self.drawn, self.taken
            await ctx.continue_as_new(Program(self.world, nodes, rounds, *known))
        return Result(self.counter, self.drawn)

    async def _block(self, ctx: Context, nodes: list[say.Node_]) -> None:
        for node in nodes:
            await self._do(ctx, node)

    async def _do(self, ctx: Context, node: say.Node_) -> None:
        match node:
            case say.Work() | say.Stuck() | say.Late():
                self._count(await ctx.step(step_of(node), self._job(node)))
            case say.Ledger():
                self._count(await ctx.step(step_of(node), ctx.run_id, node.name, node.amount, node.doomed))
            case say.Sleep():
                await self._sleep(ctx, node)
            case say.Await():
                limit = "1h" if node.limited else None
                await ctx.wait_until(lambda: self.added.get(node.name, 0) >= sum(node.amounts), timeout=limit)
            case say.Receive():
                self._count(await ctx.wait_signal(node.name, int, timeout="1h" if node.limited else None))
            case say.Vain():
                await self._hold(ctx, node.what, timedelta(milliseconds=node.ms))
            case say.Emit():
                await ctx.emit(say.topic_of(node), node.amount)
            case say.Attribute():
                for value in node.values:
                    await ctx.set_attributes(**{node.name: value})
                    read = ctx.attributes.get(node.name)
                    self._count(read if isinstance(read, int) else 0)
            case say.Draw():
                await self._draw(ctx, node)
            case say.Child():
                child = Torture.options(compensate=undo_child) if node.undo else Torture
                result: Result = await ctx.run(child, Program(self.world, node.nodes, node.rounds))
                self._count(result.counter)
            case say.Launch():
                program = Program(self.world, node.launched, home=ctx.run_id)
                launched = await ctx.start_child(Torture, program)
                await ctx.signal(launched, say.ADD, say.message(node.name, node.there))
                await self._do(ctx, say.Hear(node.name, node.back))
            case say.Hear():
                await ctx.wait_until(lambda: self.added.get(node.name, 0) >= node.amount)
            case say.Tell():
                with suppress(NotDelivered):
                    await ctx.signal(self.home, say.ADD, say.message(node.name, node.amount))
            case say.Raise():
                raise Deliberate(node.name)
            case say.Hold():
                self.stage = "hold" if node.last else self.stage
                await self._hold(ctx, node.how)
            case say.Ask():
                self.asked.setdefault(node.name, False)
                await ctx.wait_until(lambda: self.asked[node.name])
            case say.Arrive():
                self.arrived[node.name] = self.arrived.get(node.name, 0) + 1
            case say.Gather():
                await ctx.wait_until(lambda: self.arrived.get(node.name, 0) >= node.count)
            case _:
                await self._structure(ctx, node)

    def _count(self, amount: int) -> None:
        """Not `self.counter += await ...`: that would read the counter before the wait, and lose what others add."""
        self.counter += amount

    def _job(self, node: say.Work | say.Stuck | say.Late, detail: str = "") -> Job:
        match node:
            case say.Work():
                return Job(self.world, node.name, node.amount, node.fails, node.ms, detail, node.beats)
            case say.Stuck():
                return Job(self.world, node.name, node.amount)
            case say.Late():
                return Job(self.world, node.name)

    async def _sleep(self, ctx: Context, node: say.Sleep) -> None:
        length = timedelta(milliseconds=node.ms)
        await (ctx.sleep_until(ctx.now() + length) if node.until else ctx.sleep(length))

    async def _draw(self, ctx: Context, node: say.Draw) -> None:
        match node.what:
            case "side_effect":
                value = await ctx.side_effect(token)
            case "version":
                value = str(await ctx.version(node.name, 1, 2))
            case "random":
                value = str(ctx.random.random())
            case "uuid":
                value = str(ctx.uuid())
            case "now":
                value = ctx.now().isoformat()
        self.drawn[node.name] = value
        taker = say.Work(node.name)
        await ctx.step(step_of(taker), self._job(taker, value))

    async def _hold(self, ctx: Context, how: str, limit: timedelta | None = None) -> None:
        match how:
            case "sleep":
                await ctx.sleep(timedelta(milliseconds=say.HOUR_MS))
            case "until":
                await ctx.wait_until(lambda: self.added.get(NEVER), timeout=limit)
            case _:
                await ctx.wait_signal(NEVER, timeout=limit)

    async def _structure(self, ctx: Context, node: say.Node_) -> None:
        match node:
            case say.Fan():
                await self._fan(ctx, node)
            case say.Map():
                await self._map(ctx, node)
            case say.Race():
                await self._race(ctx, node)
            case say.Saga():
                async with ctx.saga():
                    await self._block(ctx, node.nodes)
            case say.Lock():
                async with ctx.lock(f"torture-section-{node.key}"):
                    try:
                        await self._block(ctx, [node.enter, *node.nodes])
                    finally:
                        with ctx.shield():
                            await self._do(ctx, node.leave)
            case say.Within():
                with ctx.fail_after("1h") if node.fail else ctx.move_on_after("1h"):
                    await self._block(ctx, node.nodes)
            case say.Expire():
                await self._expire(ctx, node)
            case say.Scope():
                with ctx.cancel_scope() as scope:
                    await self._block(ctx, node.nodes)
                    scope.cancel()
                    await self._block(ctx, node.never)
            case say.Cleanup():
                with ctx.move_on_after(timedelta(milliseconds=node.ms)):
                    try:
                        await ctx.wait_signal(NEVER)
                    finally:
                        with ctx.shield():
                            await self._block(ctx, node.nodes)
            case say.Try():
                try:
                    await self._block(ctx, node.nodes)
                except Exception:
                    await self._block(ctx, node.handler)
            case _:
                raise AssertionError(f"not a node: {node}")

    async def _fan(self, ctx: Context, node: say.Fan) -> None:
        async with ctx.nursery(node.name, limit=node.limit) as nursery:
            jobs: list[Any] = []
            for number, nodes in enumerate(node.children):
                match node.style, nodes:
                    case "steps", [say.Work() as work]:
                        jobs.append(nursery.start_soon(step_of(work), self._job(work)))
                    case "names", _:
                        nursery.start_soon(self._block, ctx, nodes)
                    case _:
                        nursery[number].start_soon(self._block, ctx, nodes)
        self.counter += sum(job.result for job in jobs)

    async def _map(self, ctx: Context, node: say.Map) -> None:
        places = range(len(node.items))
        key = partial(say.item_key, node) if node.keyed else None
        results: list[int]
        match node.what, node.items:
            case "steps", [[say.Work() as first], *_]:
                jobs = [self._job(work) for (work,) in node.items if isinstance(work, say.Work)]
                name = {job: key(place) for place, job in enumerate(jobs)}.__getitem__ if key else None
                results = await ctx.map(step_of(first), jobs, name=node.name, key=name, limit=node.limit)
            case "runs", _:
                programs = [Program(self.world, nodes) for nodes in node.items]
                ended = await ctx.map(Torture, programs, name=node.name, limit=node.limit)
                results = [result.counter for result in ended]
            case _:

                async def block(place: int) -> int:
                    await self._block(ctx, node.items[place])
                    return place

                results = await ctx.map(block, places, name=node.name, key=key, limit=node.limit)
        self.counter += sum((place + 1) * result for place, result in enumerate(results))

    async def _race(self, ctx: Context, node: say.Race) -> None:
        async with ctx.race(node.name) as race:
            for number, nodes in enumerate(node.children):
                race[number].start_soon(self._block, ctx, nodes)
        self.counter += int(race.winner.key)

    async def _expire(self, ctx: Context, node: say.Expire) -> None:
        length = timedelta(milliseconds=node.ms)
        with ctx.fail_after(length) if node.fail else ctx.move_on_after(length):
            match node.hold:
                case "async" | "patient":
                    await ctx.step(step_of(node), Job(self.world, node.name))
                case "plain":
                    await ctx.step(step_of(node), Job(self.world, node.name, ms=round(THREAD_S * 1000)))
                case "child":
                    await ctx.run(Torture, Program(self.world, [say.Work(node.name, undo=node.undo), say.Hold()]))
                case _:
                    await self._hold(ctx, node.hold)
