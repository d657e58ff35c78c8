"""Undurable awaits in workflow code, on the real engine: an incident with file and line, and nobody is harmed."""

# ruff: noqa: ASYNC251, SIM105 -- these are the mistakes that authors make
from __future__ import annotations

import inspect
import sys
import time
from typing import Any

import pytest
import trio
import trio.lowlevel

from engine import commands
from jivsd import Context, query, workflow
from jivsd.records import Kind, Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


async def sleep(ctx: Context) -> None:
    await trio.sleep(10)  # here


async def event(ctx: Context) -> None:
    await trio.Event().wait()  # here


async def checkpoint(ctx: Context) -> None:
    await trio.lowlevel.checkpoint()  # here


async def lock(ctx: Context) -> None:
    async with trio.Lock():  # here
        await ctx.sleep(1)


async def channel(ctx: Context) -> None:
    _, receive = trio.open_memory_channel[int](0)
    await receive.receive()  # here


async def nursery(ctx: Context) -> None:
    async with trio.open_nursery() as spawned:
        spawned.start_soon(trio.sleep, 1)
        await trio.sleep(5)  # here


async def command_in_a_nursery(ctx: Context) -> None:
    async with trio.open_nursery():
        await ctx.sleep(1)  # here


async def command_in_a_scope(ctx: Context) -> None:
    with trio.move_on_after(5):
        await ctx.sleep(1)  # here


async def fail_after(ctx: Context) -> None:
    with trio.fail_after(5):
        await trio.sleep(10)  # here


async def thread(ctx: Context) -> None:
    await trio.to_thread.run_sync(time.sleep, 0.01)  # here


async def beside_a_step(ctx: Context) -> None:
    async with ctx.nursery() as both:
        both["step"].start_soon(commands.book, "room")
        both["sleep"].start_soon(late_sleep, ctx)


async def late_sleep(ctx: Context) -> None:
    await ctx.sleep("0.5s")
    await trio.sleep(3)  # here


async def stubborn(ctx: Context) -> None:
    while True:
        try:
            await trio.sleep(1)  # here
        except BaseException:
            pass


PRIMITIVES = {
    function.__name__: function
    for function in (
        sleep,
        event,
        checkpoint,
        lock,
        channel,
        nursery,
        command_in_a_nursery,
        command_in_a_scope,
        fail_after,
        beside_a_step,
        stubborn,
    )
}


@workflow("stray")
class Stray:
    def __init__(self) -> None:
        self.came = "nowhere"

    @query
    def where(self) -> str:
        return self.came

    async def run(self, ctx: Context, what: str) -> None:
        await ctx.step(commands.measure, what)
        self.came = "to the await"
        await PRIMITIVES[what](ctx)


def place(what: str) -> str:
    """File and line of the await that is at fault."""
    function = late_sleep if what == "beside_a_step" else PRIMITIVES[what]
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if "# here" in line]
    return f"{__file__}:{first + offset}"


@pytest.mark.parametrize("what", PRIMITIVES)
async def test_each_primitive_is_an_incident_with_its_place_and_the_actor_stays_healthy(what):
    commands.fresh_world()
    async with Env(here, commands) as env:
        other = await env.start("patient", 60)
        run = await env.start("stray", what)
        await trio.sleep(10)
        row = await env.show(run)
        assert row.status is Status.BLOCKED
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "foreign"
        assert place(what) in incident.message
        assert "workflow code may await only its context" in incident.message
        assert env.engine.actors[run].live
        assert await env.query(run, "where") == "to the await"
        assert (await env.waits(run))[0].kind == "incident"
        await env.signal(run, "kept", 1)
        await env.engine.retry_incident(incident.incident_id, by="ann", why="again")  # it comes to the same await
        await trio.sleep(10)
        assert (await env.show(run)).status is Status.BLOCKED
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED
        assert await env.result(other) == "booked bench"
        kinds = [event.kind for event in await env.events(run)]
        assert kinds.count(Kind.STEP_DONE) == (2 if what == "beside_a_step" else 1)


@workflow("blocks")
async def blocks(ctx: Context) -> int:
    time.sleep(0.08)
    await ctx.step(commands.measure, "after")
    return 1


async def test_code_that_blocks_the_loop_is_reported(capsys):
    commands.fresh_world()
    async with Env(here) as env:
        run = await env.start("blocks")
        assert await env.result(run) == 1
        err = capsys.readouterr().err
        assert "workflow code blocked the loop" in err
        assert run in err


@workflow("catches-all")
async def catches_all(ctx: Context) -> Any:
    while True:
        try:
            await ctx.sleep("1h")
        except BaseException:
            pass


async def test_code_that_swallows_cancellation_for_ever_is_an_incident():
    async with Env(here) as env:
        run = await env.start("catches-all")
        await trio.sleep(1)
        await env.cancel(run)
        await trio.sleep(1)
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "cancelled-loop"
        assert "1000 times in a cancelled scope" in incident.message
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED


async def test_such_code_does_not_keep_the_engine_from_stopping_and_says_nothing_on_the_way():
    async with Env(here) as env:
        run = await env.start("catches-all")
        await trio.sleep(1)
        with trio.fail_after(1):
            await env.engine.stop(0)
        assert [event.kind for event in await env.store.events(run)] == [Kind.STARTED]
