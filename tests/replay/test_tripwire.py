"""Undurable awaits in workflow code: an incident with file and line, and a task that is as healthy as before."""

# ruff: noqa: SIM105, ASYNC100 -- these are the mistakes that authors make
from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from jivsd import step, workflow
from jivsd.engine.unwind import undo
from replay.script import Script


@step
async def work() -> None: ...


class Fixture:
    """What the primitives below use. Made inside the trio task that drives the workflow."""

    event: trio.Event
    lock: trio.Lock
    send: trio.MemorySendChannel[None]
    receive: trio.MemoryReceiveChannel[None]
    cleaned: list[str]

    @classmethod
    def renew(cls):
        cls.event, cls.lock, cls.cleaned = trio.Event(), trio.Lock(), []
        cls.send, cls.receive = trio.open_memory_channel[None](0)


async def a_sleep(ctx):
    await trio.sleep(10)  # here


async def an_event(ctx):
    await Fixture.event.wait()  # here


async def a_checkpoint(ctx):
    await trio.lowlevel.checkpoint()  # here


async def a_checkpoint_again_and_again(ctx):
    while True:
        await trio.lowlevel.checkpoint()  # here


async def a_lock(ctx):
    async with Fixture.lock:  # here
        Fixture.cleaned.append("locked")
        await ctx.step(work)


async def a_taken_lock(ctx):
    Fixture.lock.acquire_nowait()
    try:
        async with trio.Lock():  # here
            pass
    finally:
        Fixture.lock.release()


async def a_channel(ctx):
    await Fixture.receive.receive()  # here


async def a_send(ctx):
    await Fixture.send.send(None)  # here


async def a_thread(ctx):
    await trio.to_thread.run_sync(lambda: Fixture.cleaned.append("thread"))  # here


async def a_thread_let_go(ctx):
    await trio.to_thread.run_sync(lambda: None, abandon_on_cancel=True)  # here


async def a_step_in_a_scope(ctx):
    with trio.CancelScope():
        await ctx.step(work)  # here


async def a_step_with_a_deadline(ctx):
    with trio.move_on_after(5), trio.fail_after(6):
        await ctx.step(work)  # here


async def a_sleep_in_a_scope(ctx):
    with trio.move_on_after(1):
        await trio.sleep(5)  # here


async def a_nursery(ctx):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 100)
        await ctx.step(work)  # here


async def a_nursery_left(ctx):
    async with trio.open_nursery() as nursery:  # here
        nursery.start_soon(trio.sleep, 100)


async def an_empty_nursery(ctx):
    async with trio.open_nursery():  # here
        pass


async def a_nursery_in_a_nursery(ctx):
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        outer.start_soon(trio.sleep, 100)
        inner.start_soon(trio.sleep_forever)
        await trio.sleep(1)  # here


async def a_scope_left_open(ctx):
    trio.CancelScope().__enter__()
    await ctx.step(work)  # here


async def a_scope_left_open_at_the_end(ctx):
    trio.CancelScope().__enter__()


async def a_nursery_left_open(ctx):
    nursery = await AsyncExitStack().enter_async_context(trio.open_nursery())
    nursery.start_soon(trio.sleep, 100)
    await ctx.step(work)  # here


async def a_sleep_swallowed(ctx):
    while True:
        try:
            await trio.sleep(1)  # here
        except BaseException:
            pass


async def a_step_swallowed_in_a_scope(ctx):
    with trio.CancelScope():
        while True:
            try:
                await ctx.step(work)  # here
            except BaseException:
                pass


async def a_sleep_in_finally(ctx):
    try:
        await trio.sleep(1)  # here
    finally:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        Fixture.cleaned.append("finally")


async def a_step_swallowed_when_cancelled(ctx):
    with ctx.cancel_scope() as scope:
        scope.cancel()
        with trio.CancelScope():
            while True:
                try:
                    await ctx.step(work)  # here
                except BaseException:
                    pass


class Bare:
    def __await__(self):
        return iter([None])


async def something_of_asyncio(ctx):
    await Bare()  # here


async def in_a_branch(ctx):
    async with ctx.nursery("n") as nursery:
        nursery["a"].start_soon(ctx.step, work)
        nursery["b"].start_soon(a_step_in_a_scope, ctx)


async def in_two_branches(ctx):
    async def rude():
        try:
            await ctx.step(work)
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()

    async with ctx.nursery("n") as nursery:
        nursery["a"].start_soon(rude)
        nursery["b"].start_soon(a_step_in_a_scope, ctx)


PRIMITIVES = [
    one
    for name, one in list(globals().items())
    if inspect.iscoroutinefunction(one) and name.split("_")[0] in ("a", "an", "something", "in")
]


def place_of(function):
    lines, first = inspect.getsourcelines(function)
    for number, line in enumerate(lines):
        if "# here" in line:
            return f"{Path(__file__)}:{first + number}"
    return ""


def probe():
    return trio.lowlevel.current_task()._cancel_status


async def is_healthy(before):
    assert probe() is before
    assert not trio.lowlevel.current_task().child_nurseries
    with trio.move_on_after(0.001) as scope:
        await trio.sleep(10)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
    await trio.to_thread.run_sync(lambda: None)


@pytest.mark.parametrize("primitive", PRIMITIVES)
async def test_an_undurable_await_blocks_the_run_and_harms_nothing(primitive):
    with trio.fail_after(5):
        await block_and_unwind(primitive)


async def block_and_unwind(primitive):
    Fixture.renew()
    before = probe()
    script = Script(workflow("foreign")(primitive), probe=probe)
    machine = script.machine
    assert machine.blocked is not None
    assert machine.blocked.kind == ("cancelled-loop" if "cancelled" in primitive.__name__ else "foreign")
    assert place_of(a_step_in_a_scope if primitive in (in_a_branch, in_two_branches) else primitive) in (
        machine.blocked.message
    )
    assert not machine.fresh
    issued = list(script.issued)
    for foreign in machine.freeze():
        await undo(foreign)
    await is_healthy(before)
    assert script.issued == issued
    assert not Fixture.lock.locked()


async def test_what_unwinds_runs_its_finally_blocks():
    Fixture.renew()
    for foreign in Script(workflow("foreign")(a_sleep_in_finally), probe=probe).machine.freeze():
        await undo(foreign)
    assert Fixture.cleaned == ["finally"]


async def test_a_thread_is_waited_for():
    Fixture.renew()
    for foreign in Script(workflow("foreign")(a_thread), probe=probe).machine.freeze():
        await undo(foreign)
    assert Fixture.cleaned == ["thread"]


def test_without_trio_a_foreign_yield_is_found_too():
    machine = Script(workflow("foreign")(something_of_asyncio)).machine
    assert machine.blocked is not None
    assert place_of(something_of_asyncio) in machine.blocked.message
    assert [foreign.yielded for foreign in machine.freeze()] == [None]


async def test_a_trio_scope_without_an_await_inside_is_harmless():
    @workflow("harmless")
    async def harmless(ctx):
        with trio.CancelScope():
            pass
        await ctx.step(work)

    script = Script(harmless, probe=probe)
    assert script.machine.blocked is None
    script.done("work")
    assert script.machine.outcome is not None


async def test_a_block_that_comes_later_names_its_line():
    @workflow("later")
    async def later(ctx):
        await ctx.step(work)
        await trio.sleep(1)  # here

    script = Script(later, probe=probe)
    assert script.machine.blocked is None
    machine = script.done("work")
    assert machine.blocked is not None
    assert "trio" not in Path(machine.blocked.message.split(":")[0]).parts
    for foreign in machine.freeze():
        await undo(foreign)


def test_slow_code_is_reported(monkeypatch):
    clock = iter([0.0, 0.2])
    monkeypatch.setattr("jivsd.engine.replay.machine.time.perf_counter", lambda: next(clock))

    @workflow("slow")
    async def slow(ctx):
        await ctx.step(work)

    assert Script(slow).machine.slow == (("", 0.2),)
