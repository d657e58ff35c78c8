"""Steps that take far too long, and runs that do not move: found, said, and mended or gone."""

from __future__ import annotations

import sys

import pytest
import trio

from jivsd import NO_RETRY, Context, Retry, StepContext, step, workflow
from jivsd.clock import SECOND
from jivsd.engine.api import Conflict
from jivsd.engine.stuck import Patience, Stuck
from jivsd.records import Kind, Status, payload_of
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@step(retry=Retry(attempts=3, first="1s", jitter=0))
async def fetch(ctx: StepContext, seconds: float) -> int:
    await trio.sleep(seconds if ctx.attempt == 1 else 1)
    return ctx.attempt


@step(timeout="10s", retry=NO_RETRY)
async def stubborn() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(1000)


@workflow("fetches")
async def fetches(ctx: Context, seconds: float) -> int:
    return await ctx.step(fetch, seconds)


@workflow("stubborn")
async def stays(ctx: Context) -> None:
    await ctx.step(stubborn)


@workflow("naps")
async def naps(ctx: Context) -> str:
    await ctx.sleep("1h")
    return "slept"


async def used(env: Env) -> Stuck:
    """A sweep over a host that has run the step often, for a second each."""
    series = env.engine.metrics.step_duration.labels("fetches", "fetch")
    for _ in range(30):
        series.observe(1)
    return Stuck(env.engine, Patience())


async def pass_time(env: Env, sweep: Stuck, seconds: int) -> None:
    for _ in range(seconds // 10):
        sweep.run_once()
        await env.sleep("10s")
    sweep.run_once()
    await env.sleep("1ms")


async def test_a_step_that_takes_far_longer_than_usual_is_an_incident_until_it_ends():
    async with Env(here) as env:
        sweep = await used(env)
        run = await env.start("fetches", 500)
        await pass_time(env, sweep, 60)
        assert not (await env.engine.incidents()).items
        await pass_time(env, sweep, 40)
        (incident,) = (await env.engine.incidents()).items
        assert (incident.kind, incident.path) == ("stuck", "fetch")
        assert incident.message.startswith("fetch runs for ")
        assert "it usually takes 1 s" in incident.message
        assert (await env.show(run)).status is Status.RUNNING
        assert await env.result(run) == 1
        closed = await env.engine.incident(incident.incident_id)
        assert (closed.state, closed.resolution) == ("RESOLVED", "gone")


async def test_a_person_stops_a_stuck_step_and_it_is_tried_again():
    async with Env(here) as env:
        sweep = await used(env)
        run = await env.start("fetches", 100_000)
        await pass_time(env, sweep, 100)
        (incident,) = (await env.engine.incidents()).items
        await env.engine.retry_incident(incident.incident_id, by="ann", why="it hangs")
        assert await env.result(run) == 2
        (failed,) = [event for event in await env.events(run) if event.kind == Kind.ATTEMPT_FAILED]
        assert payload_of(failed).error.message == "step 'fetch' was stopped by ann"
        assert not (await env.engine.incidents()).items


async def test_a_step_that_has_not_run_often_is_left_alone():
    async with Env(here) as env:
        sweep = Stuck(env.engine, Patience())
        run = await env.start("fetches", 500)
        await pass_time(env, sweep, 400)
        assert not (await env.engine.incidents(None)).items
        assert await env.result(run) == 1


async def test_a_step_that_does_not_let_itself_be_stopped_by_its_timeout():
    async with Env(here) as env:
        run = await env.start("stubborn")
        await pass_time(env, Stuck(env.engine, Patience()), 60)
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert "it has a timeout of 10 s and does not let itself be stopped" in incident.message


async def test_a_run_whose_timer_was_forgotten_is_found_and_tried_again():
    async with Env(here) as env:
        sweep = Stuck(env.engine, Patience(still=30 * SECOND))
        run = await env.start("naps")
        await env.sleep("1s")
        actor = await env.engine.present(run)
        assert actor is not None
        with env.engine.passivation.keeping(run):
            for timer in actor.timers.values():
                timer.cancel()
            await env.sleep("1h")
            await pass_time(env, sweep, 100)
            (incident,) = (await env.engine.incidents(ref=run)).items
            assert incident.kind == "still"
            assert incident.message == "the run has not moved: the timer sleep is overdue"
        with pytest.raises(Conflict, match="holds the whole run"):
            await env.engine.resolve_incident(incident.incident_id, None, by="ann", why="")
        await env.engine.retry_incident(incident.incident_id, by="ann", why="again")
        assert await env.result(run) == "slept"
