"""Code of authors that calls sys.exit or raises KeyboardInterrupt: it ends what it is part of, never the daemon."""

from __future__ import annotations

import signal as signals
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, Context, Transaction, query, signal, step, workflow
from jivsd.engine.api import Invalid
from jivsd.records import Status
from jivsd.testing import Env

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


way_out: type[BaseException] = SystemExit


@pytest.fixture(params=[SystemExit, KeyboardInterrupt], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[type[BaseException]]:
    """How the code leaves, in a process whose SIGINT has a handler of its own, as a daemon's has."""
    global way_out
    before = signals.signal(signals.SIGINT, lambda *_: None)
    way_out = request.param
    yield way_out
    signals.signal(signals.SIGINT, before)


def leave() -> int:
    raise way_out(3)


@step(retry=NO_RETRY)
async def in_a_step() -> None:
    leave()


@step(retry=NO_RETRY)
def in_a_plain_step() -> None:
    leave()


@step(retry=NO_RETRY)
async def in_a_transaction(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS left_behind (a INTEGER)")
    leave()


async def a_step(ctx: Context) -> None:
    await ctx.step(in_a_step)


async def a_plain_step(ctx: Context) -> None:
    await ctx.step(in_a_plain_step)


async def a_transaction(ctx: Context) -> None:
    await ctx.step(in_a_transaction)


async def a_side_effect(ctx: Context) -> None:
    await ctx.side_effect(leave)


async def a_predicate(ctx: Context) -> None:
    await ctx.sleep("1s")
    await ctx.wait_until(leave)


async def the_code(ctx: Context) -> None:
    await ctx.sleep("1s")
    leave()


async def a_branch(ctx: Context) -> None:
    async with ctx.nursery() as nursery:
        nursery["a"].start_soon(the_code, ctx)


async def a_late_predicate(ctx: Context) -> None:
    calls: list[int] = []

    def second_time() -> bool:
        calls.append(1)
        return len(calls) > 1 and bool(leave())

    async with ctx.nursery() as nursery:
        nursery["nap"].start_soon(nap, ctx)
        await ctx.wait_until(second_time)


async def nap(ctx: Context) -> None:
    await ctx.sleep("1s")


WHERE = {
    function.__name__: function
    for function in (
        a_step,
        a_plain_step,
        a_transaction,
        a_side_effect,
        a_predicate,
        a_late_predicate,
        the_code,
        a_branch,
    )
}


@workflow("exits")
class Exits:
    @signal
    def handler(self) -> None:
        leave()

    @query
    def asked(self) -> int:
        return leave()

    async def run(self, ctx: Context, where: str) -> Any:
        if where == "nowhere":
            return await ctx.wait_signal("go")
        return await WHERE[where](ctx)


@pytest.mark.parametrize("where", WHERE)
async def test_exit_in_code_fails_its_run_and_hurts_nobody(where, way):
    commands.fresh_world()
    async with Env(here, commands) as env:
        other = await env.start("patient", 10)
        run = await env.start("exits", where)
        row = await env.ended(run)
        assert row.status is Status.FAILED
        assert row.error is not None
        assert way.__name__ in str(row.error)
        assert await env.result(other) == "booked bench"


async def test_exit_in_a_handler_blocks_its_run_and_in_a_query_answers_nothing(way):
    commands.fresh_world()
    async with Env(here, commands) as env:
        other = await env.start("patient", 10)
        run = await env.start("exits", "nowhere")
        with pytest.raises(Invalid, match=f"query 'asked' failed: {way.__name__}: 3"):
            await env.query(run, "asked")
        await env.signal(run, "handler")
        await trio.sleep(1)
        assert (await env.show(run)).status is Status.BLOCKED
        assert await env.result(other) == "booked bench"
