"""A life that begins late: what was cancelled meanwhile is recorded before overdue timers lead to the end."""

from __future__ import annotations

import sys

import pytest
import trio

from jivsd import Context, step, workflow
from jivsd.records import Kind, Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@step
async def hang() -> None:
    await trio.sleep(600)


@workflow("hurries")
async def hurries(ctx: Context) -> None:
    with ctx.move_on_after("1s"):
        await ctx.step(hang)
    await ctx.sleep(0)


async def test_a_step_that_was_cancelled_is_settled_before_the_timers_end_the_run():
    async with Env(here) as env:
        run = await env.start("hurries")
        await trio.sleep(0.5)
        actor = env.engine.actors[run]
        actor.timers["deadline"].cancel()  # its time passes while the node stands still
        await trio.sleep(5)
        actor.fail(RuntimeError("planted"))
        await env.result(run)
        events = await env.store.events(run)
        assert (await env.show(run)).status is Status.COMPLETED
        assert Kind.STEP_CANCELLED in [event.kind for event in events]
