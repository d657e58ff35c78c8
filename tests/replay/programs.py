"""Random workflow programs: a small language, the one workflow that interprets it, and a generator.

A program is JSON, and the run's input, so that a journal says by itself what code it belongs to. Every branch writes
what it sees into one shared fingerprint, and every step takes the fingerprint as an argument: two incarnations whose
branches interleaved differently ask for different commands.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from jivsd import Cancelled, Context, NotDurable, Retry, query, signal, step, update, workflow
from jivsd.authoring.errors import Failure, Frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random


class Declined(Failure):
    """An author's own error, which carries data."""


def _mark(tag: str, state: int, box: list[Any]) -> Any:
    """What steps do: change their argument, and return what JSON does not keep as it is."""
    box.append("changed by the step")
    return (tag, {1: state}, box)


@step(name="deadline", retry=Retry(attempts=3))
async def work(tag: str, state: int, box: list[Any]) -> Any:
    return _mark(tag, state, box)


@step(name="lock", retry=Retry(attempts=2), on_exhausted="incident")
async def doable(tag: str, state: int, box: list[Any]) -> Any:
    return _mark(tag, state, box)


@doable.compensate
async def undo_doable(result: Any, tag: str, state: int, box: list[Any]) -> None: ...


@step(retry=Retry(attempts=3))
async def undoable(tag: str, state: int, box: list[Any]) -> Any:
    return _mark(tag, state, box)


@undoable.compensate
async def undo(result: Any, tag: str, state: int, box: list[Any]) -> None: ...


@step(retry=Retry(attempts=2), cancel="wait")
async def patient(tag: str, state: int, box: list[Any]) -> Any:
    return _mark(tag, state, box)


@patient.compensate
async def undo_patient(result: Any, tag: str, state: int, box: list[Any]) -> None: ...


@step(name="timeout", retry=Retry(attempts=2), cancel="wait")
async def steady(tag: str, state: int, box: list[Any]) -> Any:
    return _mark(tag, state, box)


STEPS = {one.name: one for one in (work, doable, undoable, patient, steady)}
"""Some bear names that the machine has uses of its own for."""


@workflow("other")
async def other(ctx: Context, tag: str, state: int) -> Any:
    return tag


@step
async def undo_other(result: Any, tag: str, state: int) -> None: ...


class Frame:
    """What the interpreter knows about a saga by itself: the tags of the steps that it called in it."""

    def __init__(self) -> None:
        self.tags: list[str] = []


def describe(value: Any) -> Any:
    """A value and its types, in an order that does not depend on hashing."""
    match value:
        case dict():
            return ["dict", *([describe(key), describe(inner)] for key, inner in value.items())]
        case list() | tuple():
            return [type(value).__name__, *map(describe, value)]
        case BaseExceptionGroup():
            return ["group", *map(describe, value.exceptions)]
        case BaseException():
            return [type(value).__name__, str(value), describe(getattr(value, "data", None))]
        case _:
            return [type(value).__name__, value]


@workflow("program")
class Program:
    def __init__(self) -> None:
        self.print = 0
        self.counter = 0
        self.times: dict[str, int] = {}
        self.scopes: dict[str, Any] = {}
        self.nurseries: dict[str, Any] = {}
        self.frame = Frame()
        self.undone: list[str] = []
        """Tags of steps in inner sagas that were left by an exception."""
        self.received: list[str] = []
        self.context: Any = None

    @signal
    def bump(self, by: int) -> None:
        self.counter += by
        self.note("bump", by)

    @signal
    def stop(self, tag: str) -> None:
        self.note("stop", tag)
        if tag in self.scopes:
            self.scopes[tag].cancel()

    @signal
    def spawn(self, tag: str) -> None:
        self.note("spawn", tag)
        if tag in self.nurseries:
            nursery, frame = self.nurseries[tag]
            try:
                nursery["by signal"].start_soon(self.block, self.context, [["step", f"{tag}*", "undoable"]], frame)
            except NotDurable:
                self.note("closed", tag)

    @update
    def add(self, by: int) -> list[int]:
        if by < 0:
            raise Declined("nothing below zero", by=by)
        self.counter += by
        self.note("add", by)
        return [self.print, self.counter]

    @add.validator
    def is_small(self, by: int) -> None:
        if by > 1 and self.counter % 2:
            raise ValueError("too much")

    @update
    async def errand(self, ctx: Context, kind: str) -> list[Any]:
        self.note("errand", kind)
        bodies = {
            "step": [["step", "e1", "undoable"]],
            "sleep": [["within", "e2", True, 5, [["sleep", "e3", 10]]]],
            "saga": [["saga", "e4", [["step", "e5", "lock"], ["raise", "e6", "value"]]]],
            "shield": [["try", "e7", "nothing", [["sleep", "e8", 60]], [], True, [["step", "e9", "deadline"]]]],
            "nursery": [["nursery", "e10", 1, [[None, [["step", "e1", "patient"]]], ["a", [["sleep", "e2", 1]]]], []]],
        }
        await self.block(ctx, bodies[kind], self.frame)
        return [self.print, ctx.random.random()]

    @query
    def state(self) -> int:
        return self.print

    async def run(self, ctx: Context, program: list[Any]) -> Any:
        self.context = ctx
        await self.block(ctx, program, self.frame)
        return [self.print, self.counter]

    def note(self, *seen: Any) -> None:
        self.print = zlib.crc32(repr(describe(seen)).encode(), self.print)

    def new_tag(self, tag: str) -> str:
        count = self.times[tag] = self.times.get(tag, 0) + 1
        return f"{tag}.{count}"

    async def block(self, ctx: Context, nodes: list[Any], frame: Frame) -> None:
        for kind, *rest in nodes:
            self.note(kind, rest[0] if rest else "")
            await getattr(self, f"_{kind}")(ctx, frame, *rest)
            self.note("done", kind)

    def _arguments(self, frame: Frame, tag: str) -> tuple[str, int, list[Any]]:
        tag = self.new_tag(tag)
        frame.tags.append(tag)
        return tag, self.print, [self.counter]

    async def _step(self, ctx: Context, frame: Frame, tag: str, name: str) -> None:
        tag, state, box = self._arguments(frame, tag)
        result = await ctx.step(STEPS[name], tag, state, box)
        box.append("changed by the workflow")
        self.note(tag, result, box)
        if isinstance(result, list):
            result.append("changed by the workflow")

    async def _child(self, ctx: Context, frame: Frame, tag: str, undo: bool) -> None:
        tag, state, _ = self._arguments(frame, tag)
        child = other.options(compensate=undo_other) if undo else other
        self.note(tag, await ctx.run(child, tag, state))

    async def _sleep(self, ctx: Context, frame: Frame, tag: str, seconds: int) -> None:
        await ctx.sleep(seconds)

    async def _signal(self, ctx: Context, frame: Frame, tag: str, name: str, typed: bool) -> None:
        value = await (ctx.wait_signal(name, int) if typed else ctx.wait_signal(name))
        self.received.append(f"{value}")
        self.note(tag, value)

    async def _until(self, ctx: Context, frame: Frame, tag: str, threshold: int) -> None:
        self.note(tag, await ctx.wait_until(lambda: self.counter >= threshold and self.counter))

    async def _bump(self, ctx: Context, frame: Frame, tag: str, by: int) -> None:
        self.counter += by

    async def _effect(self, ctx: Context, frame: Frame, tag: str) -> None:
        value = await ctx.side_effect(lambda: (tag, {2: 3}))
        self.note(tag, value)

    async def _attribute(self, ctx: Context, frame: Frame, tag: str, name: str, gone: bool) -> None:
        await ctx.set_attributes(**{name: None if gone else self.print})
        self.note(tag, ctx.attributes)

    async def _map(self, ctx: Context, frame: Frame, tag: str, limit: int | None, count: int, nodes: list[Any]) -> None:
        async def one(place: int) -> int:
            await self.block(ctx, nodes, frame)
            return place

        self.note(tag, await ctx.map(one, range(count), name=tag, limit=limit))

    async def _version(self, ctx: Context, frame: Frame, tag: str, change: str) -> None:
        self.note(tag, await ctx.version(change, 1, 2))

    async def _draw(self, ctx: Context, frame: Frame, tag: str, what: str) -> None:
        match what:
            case "now":
                self.note(tag, ctx.now().isoformat())
            case "random":
                self.note(tag, ctx.random.random())
            case _:
                self.note(tag, str(ctx.uuid()))

    async def _raise(self, ctx: Context, frame: Frame, tag: str, kind: str) -> None:
        match kind:
            case "value":
                raise ValueError(tag)
            case "cancelled":
                raise Cancelled
            case _:
                raise Declined(tag, state=self.print)

    async def _cancel(self, ctx: Context, frame: Frame, tag: str, target: str) -> None:
        if target in self.scopes:
            self.note(tag, target)
            self.scopes[target].cancel()

    async def _spawn(self, ctx: Context, frame: Frame, tag: str, target: str, key: Any, nodes: list[Any]) -> None:
        if target in self.nurseries:
            nursery, inner = self.nurseries[target]
            self._start(ctx, nursery, inner, key, nodes)

    def _start(self, ctx: Context, nursery: Any, frame: Frame, key: Any, nodes: list[Any]) -> None:
        place = nursery if key is None else nursery[key]
        if len(nodes) == 1 and nodes[0][0] == "step":
            _, tag, name = nodes[0]
            tag, state, box = self._arguments(frame, tag)
            place.start_soon(STEPS[name], tag, state, box)
            box.append("changed by the workflow")
        elif len(nodes) == 1 and nodes[0][0] == "sleep":
            place.start_soon(ctx.sleep, nodes[0][2])
        else:
            place.start_soon(self.block, ctx, nodes, frame)

    async def _nursery(
        self, ctx: Context, frame: Frame, tag: str, limit: int | None, children: list[Any], nodes: list[Any]
    ) -> None:
        try:
            async with ctx.nursery(tag, limit=limit) as nursery:
                self.scopes[tag], self.nurseries[tag] = nursery, (nursery, frame)
                for key, child in children:
                    self._start(ctx, nursery, frame, key, child)
                await self.block(ctx, nodes, frame)
        finally:
            self.scopes.pop(tag, None)
            self.nurseries.pop(tag, None)

    async def _race(self, ctx: Context, frame: Frame, tag: str, children: list[Any]) -> None:
        try:
            async with ctx.race(tag) as race:
                self.scopes[tag], self.nurseries[tag] = race, (race, frame)
                for key, child in children:
                    self._start(ctx, race, frame, key, child)
        finally:
            self.scopes.pop(tag, None)
            self.nurseries.pop(tag, None)
        try:
            self.note(tag, race.winner.key, race.winner.result)
        except RuntimeError:
            self.note(tag, "nobody")

    async def _repeat(self, ctx: Context, frame: Frame, tag: str, times: int, nodes: list[Any]) -> None:
        for _ in range(times):
            await self.block(ctx, nodes, frame)

    async def _stream(self, ctx: Context, frame: Frame, tag: str, most: int, closing: bool, nodes: list[Any]) -> None:
        """An async generator that is closed, or left to the garbage collector."""

        async def pieces() -> AsyncIterator[int]:
            try:
                for piece in range(3):
                    await self.block(ctx, nodes, frame)
                    yield piece
            finally:
                self.note(tag, "closed")

        generator = pieces()
        async for piece in generator:
            if piece >= most:
                break
        if closing:
            await generator.aclose()

    async def _saga(self, ctx: Context, frame: Frame, tag: str, nodes: list[Any]) -> None:
        inner = Frame()
        try:
            async with ctx.saga():
                await self.block(ctx, nodes, inner)
        except Frozen:
            raise
        except BaseException:
            self.undone += inner.tags
            raise
        frame.tags += inner.tags

    async def _shield(self, ctx: Context, frame: Frame, tag: str, nodes: list[Any]) -> None:
        with ctx.shield() as scope:
            await self._inside(ctx, frame, tag, scope, nodes)

    async def _scope(self, ctx: Context, frame: Frame, tag: str, nodes: list[Any]) -> None:
        with ctx.cancel_scope() as scope:
            await self._inside(ctx, frame, tag, scope, nodes)
        self.note(tag, scope.cancelled)

    async def _within(self, ctx: Context, frame: Frame, tag: str, fail: bool, seconds: int, nodes: list[Any]) -> None:
        with ctx.fail_after(seconds) if fail else ctx.move_on_after(seconds) as scope:
            await self._inside(ctx, frame, tag, scope, nodes)
        self.note(tag, scope.cancelled)

    async def _inside(self, ctx: Context, frame: Frame, tag: str, scope: Any, nodes: list[Any]) -> None:
        self.scopes[tag] = scope
        try:
            await self.block(ctx, nodes, frame)
        finally:
            self.scopes.pop(tag, None)

    async def _try(
        self,
        ctx: Context,
        frame: Frame,
        tag: str,
        catch: str,
        nodes: list[Any],
        handler: list[Any],
        shielded: bool,
        final: list[Any],
    ) -> None:
        kinds = {"nothing": (), "errors": (Exception,), "all": (Exception, Cancelled), "bare": (BaseException,)}[catch]
        try:
            await self.block(ctx, nodes, frame)
        except kinds as error:
            self.note(tag, error)
            await self.block(ctx, handler, frame)
        finally:
            if shielded:
                await self._shield(ctx, frame, f"{tag}f", final)
            else:
                await self.block(ctx, final, frame)


class Maker:
    """Draws programs from a random generator (Hypothesis' own, so that they shrink, or a seeded one)."""

    def __init__(self, rng: Random, *, size: int = 25) -> None:
        self._rng = rng
        self._left = size
        self._names = 0
        self._scopes: list[str] = []
        self._nurseries: list[str] = []

    def program(self) -> list[Any]:
        nodes: list[Any] = []
        while self._left > 0:
            nodes.append(self.node(0))
        return nodes

    def _tag(self) -> str:
        self._names += 1
        return f"t{self._names}"

    def block(self, depth: int, most: int = 3) -> list[Any]:
        return [self.node(depth) for _ in range(self._rng.randint(0 if depth else 1, most)) if self._left > 0]

    def node(self, depth: int) -> list[Any]:
        self._left -= 1
        rng = self._rng
        kinds = LEAVES if depth == DEEPEST else LEAVES | BRANCHES | {"step": 15} if depth else BRANCHES
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        return [kind, *getattr(self, f"_{kind}")(self._tag(), depth + 1)]

    def _key(self) -> Any:
        return self._rng.choice([None, "a", "b", "a/b#2", 7])

    def _step(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(list(STEPS))]

    def _child(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.random() < 0.5]

    def _sleep(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice([0, 1, 5, 5, 60])]

    def _signal(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(["go", "come"]), self._rng.random() < 0.5]

    def _until(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.randint(0, 3)]

    def _bump(self, tag: str, depth: int) -> list[Any]:
        return [tag, 1]

    def _effect(self, tag: str, depth: int) -> list[Any]:
        return [tag]

    def _attribute(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(["region", "tier"]), self._rng.random() < 0.3]

    def _map(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice([None, 1, 2]), self._rng.randint(0, 3), self.block(depth, 2)]

    def _version(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(["one", "two"])]

    def _draw(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(["now", "random", "uuid"])]

    def _raise(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(["value", "value", "declined", "cancelled"])]

    def _cancel(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(self._scopes) if self._scopes else ""]

    def _spawn(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.choice(self._nurseries) if self._nurseries else "", self._key(), self.block(depth)]

    def _children(self, tag: str, depth: int) -> list[Any]:
        return [[self._key(), self.block(depth)] for _ in range(self._rng.randint(1, 4))]

    def _nursery(self, tag: str, depth: int) -> list[Any]:
        self._scopes.append(tag)
        self._nurseries.append(tag)
        limit = self._rng.choice([None, None, 1, 2])
        return [tag, limit, self._children(tag, depth), self.block(depth, 2)]

    def _race(self, tag: str, depth: int) -> list[Any]:
        self._scopes.append(tag)
        self._nurseries.append(tag)
        return [tag, self._children(tag, depth)]

    def _repeat(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.randint(2, 3), self.block(depth, 2)]

    def _stream(self, tag: str, depth: int) -> list[Any]:
        return [tag, self._rng.randint(0, 3), self._rng.random() < 0.5, self.block(depth, 2)]

    def _saga(self, tag: str, depth: int) -> list[Any]:
        return [tag, self.block(depth)]

    def _shield(self, tag: str, depth: int) -> list[Any]:
        self._scopes.append(tag)
        return [tag, self.block(depth)]

    def _scope(self, tag: str, depth: int) -> list[Any]:
        self._scopes.append(tag)
        return [tag, self.block(depth)]

    def _within(self, tag: str, depth: int) -> list[Any]:
        self._scopes.append(tag)
        return [tag, self._rng.random() < 0.5, self._rng.choice([-1, 0, 1, 5, 30]), self.block(depth)]

    def _try(self, tag: str, depth: int) -> list[Any]:
        catch = self._rng.choice(["nothing", "errors", "errors", "all", "bare"])
        handler, shielded, final = self.block(depth, 1), self._rng.random() < 0.5, self.block(depth, 1)
        return [tag, catch, self.block(depth), handler, shielded, final]


DEEPEST = 4
LEAVES = {
    "step": 15,
    "child": 1,
    "sleep": 3,
    "signal": 1.5,
    "until": 1.5,
    "bump": 1.5,
    "effect": 1,
    "attribute": 1,
    "version": 1,
    "draw": 1,
    "raise": 1,
    "cancel": 2,
    "spawn": 1.5,
}
BRANCHES = {
    "step": 5,
    "nursery": 6,
    "race": 2.5,
    "map": 1.5,
    "saga": 2.5,
    "shield": 1,
    "scope": 1.5,
    "within": 2.5,
    "try": 3,
    "repeat": 1.5,
    "stream": 1,
}
