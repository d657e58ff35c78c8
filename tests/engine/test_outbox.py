"""Events that runs publish: each once, in order, whatever happens."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest
import trio

from jivsd import Cancelled, Context, workflow
from jivsd.records import Kind
from jivsd.store.api import RunFilter
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@workflow("shop")
async def shop(ctx: Context, order: str, parcels: int = 2) -> str:
    await ctx.emit("order.placed", {"order": order})
    async with ctx.nursery("parcels") as nursery:
        for number in range(parcels):
            nursery[number].start_soon(ship, ctx, order, number)
    await ctx.emit("order.done", order)
    return order


async def ship(ctx: Context, order: str, number: int) -> None:
    await ctx.sleep(number + 1)
    await ctx.emit("parcel.sent", [order, number])


@workflow("moody")
async def moody(ctx: Context, how: str) -> str:
    with ctx.cancel_scope() as scope:
        scope.cancel()
        with suppress(Cancelled):
            await ctx.emit("never", how)
    try:
        await ctx.emit("x" * 201 if how == "topic" else "fine", object() if how == "payload" else how)
    except (ValueError, TypeError) as error:
        return str(error)
    return "emitted"


async def test_what_is_emitted_stands_in_the_outbox_in_order_with_where_it_came_from():
    async with Env(here) as env:
        run = await env.start("shop", {"order": "o1"}, id="one")
        await env.result(run)
        page = await env.engine.outbox()
        assert [one.topic for one in page.items] == ["order.placed", "parcel.sent", "parcel.sent", "order.done"]
        assert [one.number for one in page.items] == [1, 2, 3, 4]
        assert [one.path for one in page.items] == ["emit", "parcels[0]/emit", "parcels[1]/emit", "emit#2"]
        assert {(one.run_id, one.workflow, one.workflow_id) for one in page.items} == {(run, "shop", "one")}
        assert await env.published("parcel.sent") == [["o1", 0], ["o1", 1]]
        markers = {event.path: event.at for event in await env.events(run) if event.kind == Kind.MARKER}
        assert [markers[one.path] for one in page.items] == [one.at for one in page.items]


async def test_pages_go_on_where_the_last_one_ended():
    async with Env(here) as env:
        await env.result(await env.start("shop", {"order": "o", "parcels": 5}))
        first = await env.engine.outbox(limit=3)
        rest = await env.engine.outbox(after=first.next)
        assert [one.number for one in first.items + rest.items] == [1, 2, 3, 4, 5, 6, 7]
        assert rest.next is None
        assert (await env.engine.outbox(after=7)).items == []


async def test_a_paused_run_publishes_nothing_before_it_is_resumed():
    async with Env(here) as env:
        run = await env.start("shop", {"order": "o"})
        await env.pause(run)
        await trio.sleep(60)
        assert await env.published() == [{"order": "o"}]
        await env.resume(run)
        assert await env.result(run) == "o"
        assert len(await env.published()) == 4


@pytest.mark.parametrize(("how", "message"), [("topic", "a topic has 1 to 200"), ("payload", "has no JSON form")])
async def test_what_cannot_be_published_is_the_codes_own_error(how, message):
    async with Env(here) as env:
        assert message in await env.result(await env.start("moody", how))
        assert await env.published() == []


async def test_nothing_is_published_in_a_cancelled_scope():
    async with Env(here) as env:
        assert await env.result(await env.start("moody", "fine")) == "emitted"
        assert await env.published() == ["fine"]


async def test_the_outbox_is_emptied_by_age_and_with_the_run():
    async with Env(here) as env:
        await env.result(await env.start("shop", {"order": "old"}))
        between = env.engine.clock.now() + 1
        await trio.sleep(3600)
        run = await env.start("shop", {"order": "new"})
        await env.result(run)
        assert await env.engine.clear_outbox(between) == 4
        assert [one.run_id for one in (await env.engine.outbox()).items] == [run] * 4
        assert (await env.engine.prune(RunFilter(ended_before=env.engine.clock.now() + 1))).pruned == 2
        assert await env.published() == []
        await env.result(await env.start("shop", {"order": "newest", "parcels": 0}))
        assert [one.number for one in (await env.engine.outbox()).items] == [9, 10], "no number is used again"


def test_no_crash_loses_an_event_or_publishes_it_twice():
    async def scenario(env):
        await env.result(await env.start("shop", {"order": "o"}, id="s"))
        assert await env.published() == [{"order": "o"}, ["o", 0], ["o", 1], "o"]

    assert crash_everywhere([here], scenario) > 5
