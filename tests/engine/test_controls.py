"""Cancel, terminate, time out, pause and resume, in every phase of a run."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, Context, Failure, step, workflow
from jivsd.engine.api import Conflict
from jivsd.records import Kind, Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

log: list[str] = []


class Refused(Failure):
    pass


@step
async def make(what: str, seconds: float = 0) -> str:
    log.append(f"make {what}")
    await trio.sleep(seconds)
    return what


@make.compensate
async def unmake(made: str | None, what: str, seconds: float) -> None:
    log.append(f"unmake {what} {made}")
    await trio.sleep(5 if what == "slowly" else 0)


@step(cancel="wait")
async def finish(seconds: float) -> str:
    log.append("finish")
    await trio.sleep(seconds)
    log.append("finished")
    return "finished"


@step(retry=NO_RETRY)
async def refuse() -> None:
    raise Refused("no")


@step(retry=NO_RETRY, on_exhausted="incident")
async def get_stuck() -> None:
    raise Refused("stuck")


@workflow("phases", timeout="1h")
async def phases(ctx: Context, phase: str) -> str:
    await ctx.step(make, "slowly")
    match phase:
        case "step":
            await ctx.step(make, "long", 10_000)
        case "retry":
            await ctx.step(refuse.options(retry=commands.QUICK))
        case "sleep":
            await ctx.sleep("2h")
        case "signal":
            await ctx.wait_signal("never")
        case "until":
            await ctx.wait_until(lambda: False)
        case "nursery":
            async with ctx.nursery() as nursery:
                nursery["a"].start_soon(make, "a", 10_000)
                nursery["b"].start_soon(make, "b", 10_000)
        case "child":
            await ctx.run("phases", "sleep")
        case "held":
            await ctx.step(get_stuck)
        case "compensating":
            await ctx.step(refuse)
        case _:
            raise AssertionError(phase)
    return "came through"


PHASES = ["step", "retry", "sleep", "signal", "until", "nursery", "child", "held"]


async def begin(env: Env, phase: str) -> str:
    log.clear()
    run = await env.start("phases", phase)
    await trio.sleep(0.5 if phase == "retry" else 60)
    return run


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_cancel_in_every_phase_compensates(phase, paused):
    async with Env(here) as env:
        run = await begin(env, phase)
        if paused:
            await env.pause(run)
        await env.cancel(run)
        row = await env.ended(run, "10m")
        assert row.status is Status.CANCELLED
        assert not row.paused
        assert "unmake slowly slowly" in log
        if phase in ("step", "nursery"):
            assert [line for line in log if line.endswith("None")]  # what was cut short is in doubt
        if phase == "child":
            assert log.count("unmake slowly slowly") == 2
        assert not (await env.engine.incidents()).items


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_terminate_in_every_phase_runs_nothing(phase, paused):
    async with Env(here) as env:
        run = await begin(env, phase)
        if paused:
            await env.pause(run)
        before = list(log)
        await env.terminate(run)
        row = await env.ended(run, "1m")
        assert row.status is Status.TERMINATED
        assert not row.paused
        assert log == before
        await trio.testing.wait_all_tasks_blocked()
        statuses = {run.status for run in (await env.engine.runs(commands.ALL)).items}
        assert statuses == {Status.TERMINATED}  # a child too
        last = (await env.events(run))[-1]
        assert (last.kind, last.by) == (Kind.ENDED, "test")
        assert not (await env.engine.incidents()).items


@pytest.mark.parametrize("phase", PHASES)
async def test_a_run_whose_time_is_up_compensates(phase):
    async with Env(here) as env:
        run = await begin(env, phase)
        row = await env.ended(run, "2h")
        if phase == "retry":
            assert row.status is Status.COMPENSATED  # its retries were used up long before
            return
        assert row.status is Status.TIMED_OUT
        assert row.error is not None
        assert row.error.type == "TimedOut"
        assert "unmake slowly slowly" in log
        assert row.ended_at is not None
        assert 3600 <= (row.ended_at - row.created_at) / 1e6 <= 3611


async def test_the_time_of_a_run_stops_when_compensation_begins():
    async with Env(here) as env:
        run = await env.start("phases", "compensating", timeout="2s")
        row = await env.ended(run)
        assert row.status is Status.COMPENSATED


async def test_cancel_and_terminate_while_it_compensates():
    async with Env(here) as env:
        cancelled, terminated = await env.start("phases", "compensating"), await env.start("phases", "compensating")
        await trio.sleep(2)  # each compensation takes 5 s
        assert (await env.show(cancelled)).status is Status.COMPENSATING
        await env.cancel(cancelled)
        assert (await env.ended(cancelled)).status is Status.COMPENSATED  # that was under way already
        run = await env.start("phases", "compensating")
        await trio.sleep(2)
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED
        await env.ended(terminated)


@pytest.mark.parametrize("what", ["cancel", "terminate", "pause", "resume"])
async def test_an_ended_run_takes_no_orders(what):
    async with Env(here) as env:
        run = await begin(env, "compensating")
        with pytest.raises(Conflict, match="has ended: COMPENSATED") as caught:
            await getattr(env, what)(run)
        assert caught.value.code == "ended"


@workflow("slow-to-cancel")
async def slow_to_cancel(ctx: Context) -> str:
    try:
        await ctx.step(finish, 30)
    finally:
        with ctx.shield():
            await ctx.step(make, "tidy")
    return "no"


async def test_a_step_may_have_its_cancellation_waited_for():
    log.clear()
    async with Env(here) as env:
        run = await env.start("slow-to-cancel")
        await trio.sleep(10)
        await env.cancel(run)
        row = await env.ended(run)
        assert row.status is Status.CANCELLED
        assert log == ["finish", "make tidy", "unmake tidy tidy"]


# ---- pause and resume


@workflow("busy")
async def busy(ctx: Context) -> list[Any]:
    async with ctx.nursery() as nursery:
        nursery["steps"].start_soon(many_steps, ctx)
        nursery["naps"].start_soon(many_naps, ctx)
        child = nursery["child"].start_soon(later_child, ctx)
    return [child.result, round(ctx.now().timestamp()) % 86400]


async def many_steps(ctx: Context) -> None:
    for number in range(3):
        await ctx.step(make, f"step {number}", 10)


async def many_naps(ctx: Context) -> None:
    for number in range(3):
        await ctx.sleep(8)
        log.append(f"nap {number}")


async def later_child(ctx: Context) -> str:
    await ctx.step(make, "first", 15)
    return await ctx.run("phases-child")


@workflow("phases-child")
async def phases_child(ctx: Context) -> str:
    return await ctx.step(make, "in the child")


async def test_nothing_starts_while_a_run_is_paused():
    log.clear()
    async with Env(here) as env:
        run = await env.start("busy")
        await trio.sleep(12)
        assert sorted(log) == ["make first", "make step 0", "make step 1", "nap 0"]
        await env.pause(run)
        row = await env.show(run)
        assert (row.paused, row.status) == (True, Status.RUNNING)
        log.clear()
        await trio.sleep(1000)  # step 1, first, and the second nap's time are over; nothing follows from them
        assert log == []
        kinds = {wait.kind for wait in await env.waits(run)}
        assert "pause" in kinds
        await env.resume(run)
        assert not (await env.show(run)).paused
        result, _ = await env.result(run)
        assert result == "in the child"
        assert sorted(log) == ["make in the child", "make step 2", "nap 1", "nap 2"]


async def test_messages_reach_a_paused_run_and_clocks_do_not_stop():
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("talk", 1)
        await env.pause(run)
        await env.signal(run, "vote", "ann")
        await env.signal(run, "word", {"text": "one"})
        await trio.sleep(10)
        assert await env.query(run, "tally") == ["ann"]
        assert not commands.world.executed
        await env.resume(run)
        await trio.sleep(10)
        assert len(commands.world.executed) == 1
        await env.signal(run, "word", {"text": "two"})
        assert await env.result(run) == ["one", "two"]


async def test_a_deadline_that_passed_during_a_pause_fires_on_resume_after_the_messages():
    async with Env(here) as env:
        run = await env.start("signal-or-deadline")
        await env.pause(run)
        await trio.sleep(3600)
        await env.resume(run)
        assert await env.result(run) == "nothing came"
        run = await env.start("signal-or-deadline")
        await env.pause(run)
        await env.signal(run, "word", "before the deadline")
        await trio.sleep(3600)
        await env.resume(run)  # the step begins, and the deadline that is over calls it off
        assert await env.result(run) == "nothing came"


@workflow("signal-or-deadline")
async def signal_or_deadline(ctx: Context) -> str:
    with ctx.move_on_after("1m"):
        word = await ctx.wait_signal("word", str)
        return await ctx.step(make, word)
    return "nothing came"


async def test_of_two_resumes_at_once_one_is_a_conflict():
    async with Env(here) as env:
        run = await begin(env, "sleep")
        outcomes: list[str] = []

        async def order(what: str) -> None:
            try:
                await getattr(env, what)(run)
                outcomes.append("done")
            except Conflict as error:
                outcomes.append(error.code)

        for what in ("pause", "resume"):
            outcomes.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(order, what)
                nursery.start_soon(order, what)
            assert sorted(outcomes) == ["done", "state"]
            with pytest.raises(Conflict, match="is paused" if what == "pause" else "is not paused"):
                await getattr(env, what)(run)
        kinds = [event.kind for event in await env.events(run)]
        assert (kinds.count(Kind.PAUSED), kinds.count(Kind.RESUMED)) == (1, 1)


async def test_a_paused_run_says_who_did_it_in_its_timeline():
    async with Env(here) as env:
        run = await begin(env, "sleep")
        await env.engine.pause(run, by="ann", reason="tea")
        await env.engine.resume(run, by="bob")
        events = (await env.engine.timeline(run)).items[-2:]
        assert [(event.kind, event.by) for event in events] == [(Kind.PAUSED, "ann"), (Kind.RESUMED, "bob")]
        assert b"tea" in events[0].payload


async def test_why_a_run_was_ended_is_kept():
    async with Env(here) as env:
        run = await begin(env, "sleep")
        row = await env.engine.terminate(run, by="ann", reason="no longer wanted")
        assert row.status is Status.TERMINATED
        assert row.error is not None
        assert row.error.message == "no longer wanted"
        run = await begin(env, "sleep")
        await env.engine.cancel(run, by="ann", reason="changed my mind")
        await env.ended(run)
        (event,) = [event for event in await env.events(run) if event.kind == Kind.CANCEL_REQUESTED]
        assert (event.by, event.payload) == ("ann", b'{"reason":"changed my mind"}')
