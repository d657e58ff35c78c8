"""Nothing is appended behind a run's end, whatever comes while that is being committed."""

from __future__ import annotations

import sys

import pytest
import trio

from engine.stores import FickleStore
from jivsd import NO_RETRY, Context, Failure, step, workflow
from jivsd.engine.api import Conflict
from jivsd.records import Kind, Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


class SlowStore(FickleStore):
    """Whose commits take as long as a test wants."""

    seconds = 0.0

    async def commit(self, batch, more=None):
        await trio.sleep(self.seconds)
        return await super().commit(batch)


@workflow("sleeper")
async def sleeper(ctx: Context) -> None:
    await ctx.sleep("10s")


@step(retry=NO_RETRY, on_exhausted="incident")
async def refuse() -> int:
    raise Failure("no")


@step
async def book() -> None: ...


@book.compensate
async def unbook(nothing: None) -> None: ...


@workflow("booked")
async def booked(ctx: Context) -> None:
    await ctx.step(book)
    await ctx.sleep("10s")


@workflow("asks")
async def asks(ctx: Context) -> int:
    return await ctx.step(refuse)


@workflow("keyed", lock_key="key")
async def keyed(ctx: Context, seconds: float) -> None:
    await ctx.sleep(seconds)


@workflow("parent")
async def parent(ctx: Context) -> None:
    with ctx.move_on_after("1h"):
        await ctx.run("child-of-nobody", None)


async def terminated_at(env: Env, run: str, second: float) -> None:
    """Terminate a run: its end is being committed from a second after that on, for a second."""
    await trio.sleep(second - trio.current_time())
    env.store.seconds = 1  # type: ignore[attr-defined]
    await env.terminate(run)


async def check_end(env: Env, run: str) -> None:
    await trio.sleep(30)
    row = await env.show(run)
    kinds = [event.kind for event in await env.events(run)]
    assert row.status is Status.TERMINATED
    assert kinds.count(Kind.ENDED) == 1
    assert kinds[-1] == Kind.ENDED, kinds
    assert not (await env.engine.incidents()).items
    assert not env.engine.actors


async def test_a_timer_that_fires_while_the_end_is_committed():
    async with Env(here, store=SlowStore()) as env:
        run = await env.start("sleeper")
        await terminated_at(env, run, 8.5)
        await check_end(env, run)


async def test_a_run_deadline_that_comes_while_the_end_is_committed():
    async with Env(here, store=SlowStore()) as env:
        run = await env.start("asks", timeout="10s")
        await terminated_at(env, run, 8.5)
        await check_end(env, run)


@pytest.mark.parametrize("decision", ["retry", "resolve"])
async def test_a_decision_that_comes_while_the_end_is_committed(decision):
    async with Env(here, store=SlowStore()) as env:
        run = await env.start("asks")
        await trio.sleep(1)
        (incident,) = (await env.engine.incidents()).items

        async def decide() -> None:
            await trio.sleep(1.5)
            with pytest.raises(Conflict):
                if decision == "retry":
                    await env.engine.retry_incident(incident.incident_id, by="ann", why="")
                else:
                    await env.engine.resolve_incident(incident.incident_id, b"7", by="ann", why="")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminated_at, env, run, 2)
            await trio.sleep(1)
            nursery.start_soon(decide)
        await check_end(env, run)


@pytest.mark.parametrize("decision", ["retry", "resolve"])
async def test_a_decision_that_is_being_recorded_when_its_step_is_cancelled_is_the_only_one(decision):
    async with Env(here, store=SlowStore()) as env:
        run = await env.start("asks")
        await trio.sleep(1)
        (incident,) = (await env.engine.incidents()).items
        env.store.seconds = 1  # type: ignore[attr-defined]

        async def decide() -> None:
            if decision == "retry":
                await env.engine.retry_incident(incident.incident_id, by="ann", why="")
            else:
                await env.engine.resolve_incident(incident.incident_id, b"7", by="ann", why="")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.cancel, run)
            await trio.sleep(1.5)  # the cancellation is being recorded, and is delivered before the decision
            nursery.start_soon(decide)
        await env.ended(run)
        outcomes = [
            event.kind for event in await env.events(run) if event.kind in (Kind.STEP_DONE, Kind.STEP_CANCELLED)
        ]
        assert outcomes == [Kind.STEP_CANCELLED if decision == "retry" else Kind.STEP_DONE]


async def test_a_lock_that_is_granted_while_the_end_is_committed():
    async with Env(here, store=SlowStore()) as env:
        first = await env.start("keyed", 9.5)
        second = await env.start("keyed", 1)
        await terminated_at(env, second, 8.0)
        await env.ended(first)
        await check_end(env, second)


async def test_who_cancels_while_the_pause_is_committed_resumes_it():
    async with Env(here, store=SlowStore()) as env:
        run = await env.start("booked")
        await trio.sleep(1)
        env.store.seconds = 1  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.pause, run)
            await trio.sleep(0.5)  # it is heard of while the pause that its message becomes is being recorded
            nursery.start_soon(env.cancel, run)
        row = await env.ended(run, "1h")
        assert (row.status, row.paused) == (Status.CANCELLED, False)
