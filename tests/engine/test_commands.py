"""Every command of the Context, through the engine and its journal."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, Context, Failure, StepContext, TimedOut, query, signal, sizes, step, workflow
from jivsd.engine import pen
from jivsd.engine.api import Invalid
from jivsd.records import Kind, Status
from jivsd.testing import Env, RunFailed

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


class Point(msgspec.Struct):
    x: int
    y: int


@step
async def add(point: Point, other: Point) -> Point:
    return Point(point.x + other.x, point.y + other.y)


@step
def describe(ctx: StepContext, point: Point) -> str:
    return f"{ctx.attempt} {ctx.path} {ctx.workflow_id} {point.x}"


@workflow("points")
async def points(ctx: Context, start: Point) -> str:
    moved = await ctx.step(add, start, Point(1, 1))
    moved = await ctx.step(add.options(name="again"), moved, other=Point(y=2, x=2))
    return await ctx.step(describe, moved)


async def test_steps_take_and_give_typed_values():
    async with Env(here) as env:
        run = await env.start("points", {"x": 3, "y": 4}, id="p")
        assert await env.result(run) == "1 describe p 6"
        kinds = [event.kind for event in await env.events(run)]
        assert kinds == [Kind.STARTED, Kind.STEP_DONE, Kind.STEP_DONE, Kind.STEP_DONE, Kind.ENDED]  # one append a step
        paths = [event.path for event in await env.events(run)]
        assert paths == ["", "add", "again", "describe", ""]


@workflow("naps")
async def naps(ctx: Context) -> list[float]:
    began = ctx.now()
    await ctx.sleep("1h30m")
    first = ctx.now()
    await ctx.sleep_until(began + timedelta(days=2))
    await ctx.sleep_until(began)  # over already
    return [(first - began).total_seconds(), (ctx.now() - began).total_seconds()]


async def test_sleep_is_exact_and_never_early():
    async with Env(here) as env:
        assert await env.result(await env.start("naps")) == [5400, 2 * 86400]


async def test_all_commands_one_after_the_other():
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("everything", "Ann")
        found = await env.result(run)
        assert found["booked"] == "booked Ann"
        assert found["measured"] == 3
        assert found["flaky"] == 3
        assert found["entered"] == 7
        assert found["version"] == 2
        assert found["drawn"] == 42
        assert found["rooms"] == ["booked red", "booked green", "booked blue"]
        assert found["moved on"] is True
        assert found["timed out"]
        assert found["winner"] == "fast"
        assert found["declined"] == "no"
        assert found["undone"] is True
        assert found["child"] == "booked for kid"
        assert found["bad child"] == "COMPENSATED"
        assert found["shielded"] == 4
        assert commands.world.undone == ["inner: booked inner", "for bad: booked for bad"]


@workflow("draws")
async def draws(ctx: Context) -> list[Any]:
    before = [ctx.random.random(), str(ctx.uuid()), ctx.now().isoformat()]
    await ctx.sleep("1m")
    return [*before, ctx.random.random(), str(ctx.uuid()), ctx.run_id, ctx.workflow_id]


async def test_what_is_drawn_is_the_same_in_a_replay_and_another_in_another_run(tmp_path):
    async with Env(here) as env:
        first, second = await env.start("draws", id="one"), await env.start("draws", id="two")
        drawn, other = await env.result(first), await env.result(second)
        assert drawn[5:] == [first, "one"]
        assert len({drawn[0], drawn[3], other[0], other[3]}) == 4
        assert len({drawn[1], drawn[4], other[1], other[4]}) == 4


class Flaw(Failure):
    pass


def explode() -> int:
    raise Flaw("in the side effect", code=7)


def fits_not() -> int:
    return "seven"  # pyright: ignore


calls: list[str] = []


@workflow("side-effects")
async def side_effects(ctx: Context, which: str) -> Any:
    calls.append("reached")
    if which == "value":
        value = await ctx.side_effect(lambda: calls.append("called") or 5)
        await ctx.sleep("1m")
        return value
    try:
        return await ctx.side_effect(explode if which == "raise" else fits_not)
    except Flaw as error:
        return [str(error), error.data]


async def test_a_side_effect_is_called_once_and_its_error_is_recorded_too():
    calls.clear()
    async with Env(here) as env:
        assert await env.result(await env.start("side-effects", "value")) == 5
        assert calls.count("called") == 1
        run = await env.start("side-effects", "raise")
        assert await env.result(run) == ["in the side effect", {"code": 7}]
        assert [event.kind for event in await env.events(run)][1] == Kind.MARKER
        row = await env.ended(await env.start("side-effects", "misfit"))
        assert row.status is Status.FAILED
        assert row.error is not None
        assert "Expected `int`, got `str`" in row.error.message


@workflow("fan-out")
async def fan_out(ctx: Context, count: int, limit: int | None) -> list[str]:
    async with ctx.nursery("all", limit=limit) as every:
        jobs = [every[number].start_soon(work, ctx, number) for number in range(count)]
    return [job.result for job in jobs]


running: list[int] = []
most: list[int] = []


@step
async def toil(number: int) -> str:
    running.append(number)
    most.append(len(running))
    await trio.sleep(1 + number % 3)
    running.remove(number)
    return f"did {number}"


async def work(ctx: Context, number: int) -> str:
    await ctx.sleep(0.5)
    return await ctx.step(toil, number)


@pytest.mark.parametrize("limit", [1, 4, None])
async def test_a_nursery_holds_its_limit_and_keeps_the_order(limit):
    most.clear()
    async with Env(here) as env:
        found = await env.result(await env.start("fan-out", {"count": 12, "limit": limit}))
        assert found == [f"did {number}" for number in range(12)]
        assert max(most) == (limit or 12)


@step(retry=NO_RETRY)
async def fail(message: str) -> None:
    await trio.sleep(2)
    raise Flaw(message)


@workflow("crowd")
async def crowd(ctx: Context) -> list[str]:
    try:
        async with ctx.nursery("crowd") as people:
            people["a"].start_soon(fail, "first")
            people["b"].start_soon(fail, "second")
            people["c"].start_soon(toil.options(name="long"), 100)
    except ExceptionGroup as group:
        return sorted(str(error) for error in group.exceptions)
    return []


async def test_what_children_raise_comes_out_as_a_group_and_cancels_the_others():
    async with Env(here) as env:
        run = await env.start("crowd")
        assert await env.result(run) in (["first"], ["second"], ["first", "second"])


@workflow("deadlines")
async def deadlines(ctx: Context) -> list[Any]:
    found: list[Any] = []
    with ctx.move_on_after(0) as none:
        await ctx.step(toil, 1)
    found.append(none.cancelled)
    with ctx.move_on_after("1m") as plenty:
        await ctx.step(toil, 2)
    found.append(plenty.cancelled)
    try:
        with ctx.fail_after("1s"):
            await ctx.wait_until(lambda: False)
    except TimedOut:
        found.append("timed out")
    with ctx.cancel_scope() as scope:
        scope.cancel()
        await ctx.sleep("1h")
    found.append(scope.cancelled)
    with ctx.move_on_after("1s"):
        with ctx.shield():
            await ctx.sleep("5s")
        await ctx.sleep("1h")
    found.append(ctx.now().second)
    return found


async def test_deadlines_and_scopes():
    async with Env(here) as env:
        # steps: 3 s; fail_after: 1 s; the shield: 5 s
        assert await env.result(await env.start("deadlines")) == [True, False, "timed out", True, 9]


@workflow("versions")
async def versions(ctx: Context) -> list[int]:
    return [await ctx.version("a", 1, 3), await ctx.version("b", 0, 0), await ctx.version("a", 1, 3)]


async def test_version_is_recorded_once_for_each_change():
    async with Env(here) as env:
        run = await env.start("versions")
        assert await env.result(run) == [3, 0, 3]
        assert [event.path for event in await env.events(run) if event.kind == Kind.MARKER] == [
            "version:a",
            "version:b",
        ]


@workflow("misfit")
async def misfit(ctx: Context) -> int:
    return "no number"  # pyright: ignore


async def test_the_output_is_checked_at_the_end():
    async with Env(here) as env:
        with pytest.raises(RunFailed, match="Expected `int`, got `str`"):
            await env.result(await env.start("misfit"))


@step
async def lie() -> int:
    return "no number"  # pyright: ignore


@workflow("lies")
async def lies(ctx: Context) -> int:
    return await ctx.step(lie.options(retry=NO_RETRY))


async def test_a_step_whose_result_does_not_fit_fails():
    async with Env(here) as env:
        with pytest.raises(RunFailed, match="the result of step 'lie' does not fit its annotation"):
            await env.result(await env.start("lies"))


@step
async def load() -> str:
    return "x" * 2000


@workflow("loads")
async def loads(ctx: Context) -> str:
    return await ctx.step(load.options(retry=NO_RETRY))


@workflow("swells")
async def swells(ctx: Context, size: int) -> str:
    return "x" * size


@workflow("tells")
async def tells(ctx: Context, run: str) -> None:
    await ctx.signal(run, "news", "x" * 2000)


@workflow("starts")
async def starts(ctx: Context) -> str:
    return await ctx.run("echoes", "x" * 2000)


@workflow("echoes")
async def echoes(ctx: Context, text: str) -> str:
    await ctx.wait_signal("news", str)
    return text


@workflow("hoards")
async def hoards(ctx: Context) -> str:
    return await ctx.side_effect(lambda: "x" * 2000)


@workflow("goes on")
async def goes_on(ctx: Context, text: str) -> None:
    await ctx.continue_as_new(text + "x" * 1000)


async def test_what_is_too_large_for_the_journal_is_refused_and_that_is_said(monkeypatch):
    monkeypatch.setattr(sizes, "LARGEST", 2001)
    async with Env(here) as env:
        assert len(await env.result(await env.start("swells", 1999))) == 1999
        with pytest.raises(RunFailed, match="the run's output has 2,002 bytes, of at most 2,001: keep it elsewhere"):
            await env.result(await env.start("swells", 2000))
        with pytest.raises(RunFailed, match="the result of step 'load' has 2,002 bytes, of at most 2,001: keep it"):
            await env.result(await env.start("loads"))
        with pytest.raises(RunFailed, match="the input has 2,002 bytes"):
            await env.result(await env.start("starts"))
        with pytest.raises(Invalid, match="the input has 2,002 bytes"):
            await env.start("echoes", "x" * 2000)
        with pytest.raises(RunFailed, match="the input has 2,002 bytes"):
            await env.result(await env.start("goes on", ""))
        receiver = await env.start("echoes", "")
        with pytest.raises(Invalid, match=r"the signal has 2,\d\d\d bytes"):
            await env.signal(receiver, "news", "x" * 2000)
        with pytest.raises(RunFailed, match=r"the signal has 2,\d\d\d bytes"):
            await env.result(await env.start("tells", receiver))


async def test_an_event_that_is_too_large_is_an_incident(monkeypatch):
    monkeypatch.setattr(sizes, "LARGEST", 2001)
    monkeypatch.setattr(pen, "OWN_BYTES", 0)
    async with Env(here) as env:
        run = await env.start("hoards")
        await trio.sleep(3600)
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert "Marker lambda has 2,0" in incident.message


@workflow("counter")
class Counter:
    """State in a class, changed by signals, looked at by queries."""

    def __init__(self) -> None:
        self.value = 0

    @signal
    def add(self, number: int) -> None:
        self.value += number

    @query
    def total(self, plus: int = 0) -> int:
        return self.value + plus

    async def run(self, ctx: Context, goal: int) -> int:
        return await ctx.wait_until(lambda: self.value if self.value >= goal else None)


async def test_a_class_has_state_of_its_own_in_each_run():
    async with Env(here) as env:
        one, two = await env.start("counter", 10), await env.start("counter", 100)
        for number in range(5):
            await env.signal(one, "add", number)
            await env.signal(two, "add", 10 * number)
        assert await env.result(one) == 10
        assert await env.result(two) == 100
        assert await env.query(one, "total") == 10
        assert await env.query(two, "total", 5) == 105
