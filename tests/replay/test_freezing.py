"""Dropping a run's code, whatever it does about it: no commands, no spinning, nothing said counts (rules 8 and 14)."""

# ruff: noqa: SIM105 -- these are the loops that authors write
from __future__ import annotations

import gc
import time

import pytest

from jivsd import step, workflow
from jivsd.engine.replay.machine import graveyard
from jivsd.records import Options
from replay.script import Script


@step
async def work() -> None: ...


@work.compensate
async def undo_work(result: None) -> None: ...


async def plain(ctx):
    await ctx.step(work)


async def finally_step(ctx):
    try:
        await ctx.step(work)
    finally:
        await ctx.step(work)


async def finally_shield(ctx):
    try:
        await ctx.step(work)
    finally:
        with ctx.shield():
            await ctx.sleep(5)


async def bare_except(ctx):
    try:
        await ctx.step(work)
    except:  # noqa: E722 -- what authors should not write
        await ctx.step(work)


async def swallow_and_return(ctx):
    try:
        await ctx.step(work)
    except BaseException:
        return


async def finally_return(ctx):
    try:
        await ctx.step(work)
    finally:
        return  # noqa: B012 -- what authors should not write


async def finally_raise(ctx):
    with ctx.fail_after(5):
        async with ctx.saga(), ctx.nursery("n") as nursery:
            nursery.start_soon(work)
            try:
                await ctx.step(work)
            finally:
                raise ValueError


async def swallow_step(ctx):
    while True:
        try:
            await ctx.step(work)
        except BaseException:
            pass


async def swallow_sleep(ctx):
    while True:
        try:
            await ctx.sleep(1)
        except BaseException:
            pass


async def swallow_now(ctx):
    await swallow(ctx, lambda: ctx.now())


async def swallow_random(ctx):
    await swallow(ctx, lambda: (ctx.random.random(), ctx.uuid()))


async def swallow(ctx, call):
    while True:
        try:
            call()
            await ctx.step(work)
        except BaseException:
            pass


async def swallow_nursery(ctx):
    while True:
        try:
            async with ctx.nursery("n") as nursery:
                nursery.start_soon(work)
        except BaseException:
            pass


async def swallow_in_nursery(ctx):
    async with ctx.nursery("n") as nursery:
        nursery["a"].start_soon(swallow_step, ctx)
        while True:
            try:
                nursery.start_soon(work)
                await ctx.sleep(1)
            except BaseException:
                pass


async def swallow_race(ctx):
    while True:
        try:
            async with ctx.race() as race:
                race["a"].start_soon(work)
                race["b"].start_soon(ctx.sleep, 1)
        except BaseException:
            pass


async def swallow_saga(ctx):
    while True:
        try:
            async with ctx.saga():
                await ctx.step(work)
                raise ValueError
        except BaseException:
            pass


async def swallow_scope(ctx):
    while True:
        try:
            with ctx.fail_after(1) as scope:
                scope.cancel()
                await ctx.sleep(1)
        except BaseException:
            pass


async def swallow_deadline(ctx):
    while True:
        try:
            with ctx.move_on_after(5), ctx.cancel_scope(), ctx.shield():
                await ctx.step(work)
        except BaseException:
            pass


async def swallow_others(ctx):
    while True:
        for call in (
            lambda: ctx.wait_signal("never"),
            lambda: ctx.wait_until(lambda: False),
            lambda: ctx.side_effect(lambda: 1),
            lambda: ctx.version("v", 1, 2),
            lambda: ctx.run("other"),
        ):
            try:
                await call()
            except BaseException:
                pass


async def async_generator(ctx):
    async def numbers():
        try:
            while True:
                await ctx.step(work)
                yield 1
        finally:
            await ctx.step(work)

    async for _ in numbers():
        await ctx.step(work)


async def rude_async_generator(ctx):
    async def numbers():
        while True:
            try:
                yield await ctx.step(work)
            except BaseException:
                pass

    async for _ in numbers():
        pass


async def generator_left(ctx):
    async def numbers():
        try:
            while True:
                await ctx.sleep(0)
                yield 1
        finally:
            await ctx.step(work)

    async for _ in numbers():
        break
    await ctx.step(work)


async def children_that_clean(ctx):
    async def child():
        try:
            await ctx.sleep(5)
        finally:
            await ctx.step(work)

    async with ctx.nursery("n", limit=2) as nursery:
        for _ in range(4):
            nursery.start_soon(child)


BODIES = [
    one
    for one in list(globals().values())
    if getattr(one, "__module__", "") == __name__ and one.__code__.co_varnames[:1] == ("ctx",) and one is not swallow
]


def outlast(script: Script, events: int) -> None:
    """Let the code do some of what it is about."""
    for _ in range(events):
        entry = next((entry for entry in script.machine.open.values() if not entry.abandoned), None)
        if entry is None or script.machine.outcome is not None:
            return
        match entry.command.kind:
            case "step":
                script.done(entry.path)
            case "timer":
                script.fire(entry.path)
            case _:
                script.signal("never")


@pytest.mark.parametrize("events", [0, 1, 2, 3])
@pytest.mark.parametrize("body", BODIES)
def test_freezing_ends_any_code_without_a_command(body, events):
    script = Script(workflow("stubborn")(body), options=Options(timeout=1_000_000_000))
    outlast(script, events)
    machine = script.machine
    before = list(script.issued), dict(machine.open), list(machine.fresh), list(machine.dropped), machine.outcome
    started = time.perf_counter()
    assert machine.freeze() == ()
    assert time.perf_counter() - started < 1
    assert before == (list(script.issued), dict(machine.open), machine.fresh, machine.dropped, machine.outcome)
    seq = machine.seq
    for path in list(machine.open):
        script.done(path)
    assert machine.seq == seq
    assert before[0] == script.issued


async def test_a_generator_that_is_left_is_never_closed_by_the_garbage_collector():
    """It would run its `finally` in another turn in life, under trio, than in a replay elsewhere."""
    script = Script(workflow("left")(generator_left))
    script.fire("sleep")
    gc.collect()
    assert script.issued == ["sleep", "work"]
    script.done("work")
    assert script.machine.outcome is not None


def test_what_cannot_be_ended_is_buried():
    before = len(graveyard)
    Script(workflow("stubborn")(swallow_sleep)).machine.freeze()
    assert len(graveyard) == before + 1


def test_a_thousand_cancelled_in_a_row_are_an_incident():
    @workflow("deaf")
    async def deaf(ctx):
        with ctx.move_on_after(1):
            while True:
                try:
                    await ctx.step(work)
                except BaseException:
                    pass

    script = Script(deaf)
    script.fire("deadline")
    machine = script.machine
    assert machine.blocked is not None
    assert machine.blocked.kind == "cancelled-loop"
    assert __file__ in machine.blocked.message
    assert script.issued == ["deadline", "work"]
    assert machine.fresh == []
    assert machine.freeze() == ()


def test_a_thousand_cancelled_with_a_pause_between_are_none():
    @workflow("patient")
    async def patient(ctx):
        with ctx.move_on_after(1):
            for _ in range(900):
                try:
                    await ctx.sleep(1)
                except BaseException:
                    pass
            with ctx.shield():
                await ctx.sleep(1)
            for _ in range(900):
                try:
                    await ctx.sleep(1)
                except BaseException:
                    pass

    script = Script(patient)
    script.fire("deadline")
    assert script.machine.blocked is None
    script.fire("sleep#2")
    assert script.machine.blocked is None
    assert script.machine.outcome is not None
