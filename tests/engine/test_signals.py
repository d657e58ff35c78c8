"""Signals: durable, deduplicated, in order, never lost; dead letters."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel

from engine import commands
from jivsd import Context, signal, step, workflow
from jivsd.engine.api import Conflict, Invalid, NotFound
from jivsd.records import Kind, Status, payload_of
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


class Bid(msgspec.Struct):
    who: str
    amount: int


@workflow("auction", signals={"bid": Bid})
async def auction(ctx: Context, bids: int) -> list[str]:
    return [(await ctx.wait_signal("bid", Bid)).who for _ in range(bids)]


@workflow("listens")
async def listens(ctx: Context, count: int) -> list[int]:
    await ctx.sleep("1m")
    return [await ctx.wait_signal("number", int) for _ in range(count)]


async def test_signals_are_applied_once_and_in_order():
    async with Env(here) as env:
        run = await env.start("auction", 3, id="lot-1")
        first = await env.engine.signal("auction:lot-1", "bid", b'{"who": "ann", "amount": 1}', message_id="m1")
        again = await env.engine.signal(run, "bid", b'{"who": "ann", "amount": 1}', message_id="m1")
        assert (first.run_id, first.duplicate, again.run_id, again.duplicate) == (run, False, run, True)
        await env.signal(run, "bid", {"who": "bob", "amount": 2})
        await env.signal(run, "bid", {"who": "cid", "amount": 3})
        assert await env.result(run) == ["ann", "bob", "cid"]
        late = await env.engine.signal("auction:lot-1", "bid", b'{"who": "ann", "amount": 1}', message_id="m1")
        assert late.duplicate  # also after the end


async def test_signals_that_nobody_waits_for_yet_are_kept():
    async with Env(here) as env:
        run = await env.start("listens", 3)
        for number in range(5):
            await env.signal(run, "number", number)
        assert await env.result(run) == [0, 1, 2]
        ended = payload_of((await env.events(run))[-1])
        assert len(ended.unread) == 2


async def test_a_signal_that_comes_with_the_start_is_not_lost():
    async with Env(here) as env:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.engine.start, "listens", b"1", commands.named("at-once"))
            while not env.engine.committer.pending:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(send_soon, env)
        assert await env.result("listens:at-once") == [7]


async def send_soon(env: Env) -> None:
    while True:
        try:
            await env.signal("listens:at-once", "number", 7, message_id="soon")
        except NotFound:
            await trio.lowlevel.checkpoint()
        else:
            return


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b'{"who": "ann"}', "missing required field `amount`"),
        (b'{"who": "ann", "amount": "much"}', "Expected `int`, got `str`"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"{", "signal 'bid'"),
    ],
)
async def test_a_payload_that_does_not_fit_its_declared_type_is_refused(payload, problem):
    async with Env(here) as env:
        run = await env.start("auction", 1)
        with pytest.raises(Invalid, match=problem):
            await env.engine.signal(run, "bid", payload)
        assert len(await env.events(run)) == 1
        assert await env.store.messages(run) == []


async def test_json_that_is_none_is_refused_for_any_signal():
    async with Env(here) as env:
        run = await env.start("listens", 1)
        with pytest.raises(Invalid, match="signal 'anything'"):
            await env.engine.signal(run, "anything", b'{"a": ')


async def test_a_misfit_is_a_dead_letter_and_the_wait_goes_on():
    async with Env(here) as env:
        run = await env.start("listens", 1)
        await env.signal(run, "number", "three", message_id="odd")
        await env.signal(run, "number", 3)
        assert await env.result(run) == [3]
        (letter,) = (await env.engine.incidents(ref=run)).items
        assert (letter.kind, letter.details["message_id"]) == ("message", "odd")
        assert "Expected `int`, got `str`" in letter.message
        closed = await env.engine.resolve_incident(letter.incident_id, b"null", by="ann", why="a typo")
        assert (closed.state, closed.resolved_by) == ("RESOLVED", "ann")


async def test_a_dead_letter_stays_dead_when_the_run_comes_back():
    async with Env(here) as env:
        run = await env.start("listens", 2)
        await trio.sleep(100)
        await env.signal(run, "number", "three", message_id="odd")
        await trio.testing.wait_all_tasks_blocked()
        (letter,) = (await env.engine.incidents(ref=run)).items
        await env.engine.resolve_incident(letter.incident_id, b"null", by="ann", why="seen")
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(1)
        assert not (await env.engine.incidents(ref=run)).items
        await env.signal(run, "number", 1)
        await env.signal(run, "number", 2)
        assert await env.result(run) == [1, 2]


async def test_an_ended_run_takes_no_signals():
    async with Env(here) as env:
        run = await env.start("listens", 0)
        await env.result(run)
        with pytest.raises(Conflict, match="has ended") as caught:
            await env.signal(run, "number", 1)
        assert caught.value.code == "ended"
        with pytest.raises(NotFound):
            await env.signal("listens:nobody", "number", 1)


async def test_by_workflow_id_a_signal_reaches_the_run_that_is_open_now():
    async with Env(here) as env:
        first = await env.start("listens", 0, id="same")
        await env.result(first)
        second = await env.start("listens", 1, id="same")
        await env.signal("listens:same", "number", 5)
        assert await env.result(second) == [5]


@workflow("board")
class Board:
    """Handlers that change state, cancel a scope, start keyed children, and one that raises."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.scope: Any = None
        self.jobs: Any = None
        self.ctx: Any = None

    @signal
    def stop(self) -> None:
        if self.scope is not None:
            self.scope.cancel()

    @signal
    def order(self, what: str) -> None:
        self.jobs[what].start_soon(commands.book, what)

    @signal
    def break_(self, how: str) -> None:
        if how == "raise":
            raise ValueError("cannot do that")
        if how == "call":
            self.ctx.now()

    async def run(self, ctx: Context) -> list[str]:
        self.ctx = ctx
        with ctx.cancel_scope() as self.scope:
            async with ctx.nursery("jobs") as self.jobs:
                await ctx.wait_until(lambda: False)
        await ctx.step(note, "stopped")
        return [*self.done, "stopped"]


@step
async def note(what: str) -> None:
    pass


async def test_handlers_change_state_cancel_scopes_and_start_keyed_children():
    commands.fresh_world()
    async with Env(here) as env:
        run = await env.start("board")
        await env.signal(run, "order", "lamp")
        await env.signal(run, "order", "desk")
        await trio.sleep(5)
        assert {path.rpartition("jobs")[2] for path in commands.world.executed} == {"[lamp]/book", "[desk]/book"}
        await env.signal(run, "stop")
        assert await env.result(run) == ["stopped"]


@pytest.mark.parametrize(("how", "problem"), [("raise", "cannot do that"), ("call", "outside its workflow's code")])
async def test_a_handler_that_raises_holds_the_run_until_it_is_terminated(how, problem):
    async with Env(here) as env:
        run = await env.start("board")
        await env.signal(run, "break_", how)
        await trio.testing.wait_all_tasks_blocked()
        row = await env.show(run)
        assert row.status is Status.BLOCKED
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "handler"
        assert problem in incident.message
        with pytest.raises(Conflict, match="holds the whole run"):
            await env.resolve(run, 1)
        await env.signal(run, "stop")  # kept, like everything that is said to it
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED
        (incident,) = (await env.engine.incidents(None, ref=run)).items
        assert (incident.state, incident.resolution) == ("RESOLVED", "ended")


async def test_a_signal_says_who_sent_it():
    async with Env(here) as env:
        run = await env.start("listens", 1)
        await env.engine.signal(run, "number", b"4", by="ann")
        await env.result(run)
        (event,) = [event for event in await env.events(run) if event.kind == Kind.SIGNAL]
        assert (event.by, payload_of(event).name) == ("ann", "number")
