"""Plain steps in real threads, on a store with threads of its own and on real time."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import asynccontextmanager

import pytest
import trio

from engine.outside import Gate, gate
from jivsd import NO_RETRY, Cancelled, Context, Retry, StepContext, step, workflow
from jivsd.clock import SECOND
from jivsd.engine import effects
from jivsd.engine.engine import Engine
from jivsd.records import ENDED, IncidentState, Kind, Status, payload_of
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing.env import registry_of

here = sys.modules[__name__]


@step(retry=NO_RETRY)
def through_the_gate(ctx: StepContext) -> str:
    gate().pass_through()
    return threading.current_thread().name


@through_the_gate.compensate
def back(ctx: StepContext, name: str | None) -> None:
    gate().undone += 1


@step(retry=Retry(attempts=2, first="1ms"))
def beats(ctx: StepContext) -> int:
    """Would beat for ever in its first attempt; the second returns where the first was."""
    if (last := ctx.last_details(int)) is not None:
        return last
    try:
        for number in range(1_000_000):
            ctx.heartbeat(number)
            gate().note(number)
            time.sleep(0.005)
    except Cancelled:
        gate().undone += 1
        raise
    return -1


@step(retry=NO_RETRY, heartbeat_timeout="50ms")
def falls_silent(ctx: StepContext) -> None:
    gate().pass_through()
    ctx.heartbeat()


@workflow("beats")
async def beating(ctx: Context, timeout: float | None = None) -> int:
    return await ctx.step(beats if timeout is None else beats.options(timeout=timeout))


@workflow("falls-silent")
async def falling_silent(ctx: Context) -> None:
    await ctx.step(falls_silent)


@workflow("gated", lock_key="gate")
async def gated(ctx: Context) -> str:
    return await ctx.step(through_the_gate)


@workflow("limited")
async def limited(ctx: Context) -> str:
    return await ctx.step(through_the_gate.options(timeout="50ms"))


@workflow("many")
async def many(ctx: Context, count: int) -> int:
    async with ctx.nursery() as every:
        jobs = [every[number].start_soon(through_the_gate) for number in range(count)]
    return len({job.result for job in jobs})


@asynccontextmanager
async def engine_on(path):
    store = SqliteStore(str(path / "journal.db"))
    epoch = await store.open("test")
    async with store, trio.open_nursery() as nursery:
        registry = registry_of([here])
        for plugin in registry.plugins:
            await store.put_plugin(plugin.stored)
        engine = Engine(store, registry, node="test", epoch=epoch, threads=4)

        async def serve(task_status):
            await engine.run(task_status=task_status)

        await nursery.start(serve)
        try:
            yield engine
        finally:
            gate().open()
            with trio.CancelScope(shield=True):
                await engine.stop(0.1)


async def ended(engine, run):
    with trio.fail_after(20):
        row = await engine.result(run, 20)
        assert row.status in ENDED
        return row


async def start(engine, workflow, input=b"null"):
    return (await engine.start(workflow, input)).run.run_id


async def test_plain_steps_run_in_a_bounded_pool(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "many", b"12")
        await gate().until_inside(4)
        await trio.sleep(0.05)
        assert gate().inside == 4
        gate().open()
        row = await ended(engine, run)
        assert row.status is Status.COMPLETED
        assert gate().most == 4


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_a_run_ends_only_when_its_thread_has_returned(how, tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "THREAD_GRACE", SECOND // 20)
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run, waiting = await start(engine, "gated"), await start(engine, "gated")
        await gate().until_inside(1)
        await getattr(engine, how)(run, by="ann")
        (incident,) = await incidents(engine, run)
        assert (incident.kind, incident.path) == ("thread", "through_the_gate")
        assert (await engine.show(run)).status not in ENDED
        assert [wait.kind for wait in (await engine.why(waiting)).waits] == ["lock"]
        gate().open()
        row = await ended(engine, run)
        assert row.status is (Status.TERMINATED if how == "terminate" else Status.CANCELLED)
        kinds = [event.kind for event in (await engine.timeline(run)).items]
        if how == "cancel":  # it did return, and what it did is undone
            assert Kind.STEP_DONE in kinds
            assert gate().undone == 1
        (incident,) = (await engine.incidents(None, run)).items
        assert incident.state is IncidentState.RESOLVED
        await ended(engine, waiting)


async def incidents(engine, run):
    with trio.fail_after(10):
        while True:
            if found := (await engine.incidents(ref=run)).items:
                return found
            await trio.sleep(0.01)


async def test_a_thread_over_its_time_is_an_incident_and_its_result_counts_when_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "THREAD_GRACE", SECOND // 20)
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "limited")
        (incident,) = await incidents(engine, run)
        assert incident.kind == "thread"
        gate().open()
        row = await ended(engine, run)
        assert row.status is Status.COMPLETED
        assert (await engine.incident(incident.incident_id)).state is IncidentState.RESOLVED


async def test_an_actor_that_crashes_waits_for_its_thread_before_the_next_life_begins(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "gated")
        await gate().until_inside(1)
        engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(0.3)
        assert gate().inside == 1
        gate().open()
        row = await ended(engine, run)
        assert row.status is Status.COMPLETED
        assert gate().most == 1
        assert gate().passed == 1  # what it returned while the actor left was recorded


async def test_stopping_lets_a_thread_end_within_its_grace(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "gated")
        await gate().until_inside(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.stop, 10)
            await trio.sleep(0.1)
            gate().open()
        kinds = [event.kind for event in await engine.store.events(run)]
        assert kinds == [Kind.STARTED, Kind.LOCK_GRANTED, Kind.STEP_DONE]
    async with engine_on(tmp_path) as engine:
        assert (await ended(engine, run)).status is Status.COMPLETED
        assert gate().passed == 1


async def test_a_thread_that_beats_can_be_cancelled(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "beats")
        await gate().until_noted()
        await engine.cancel(run, by="ann")
        assert (await ended(engine, run)).status is Status.CANCELLED
        assert gate().undone == 1
        assert not (await engine.incidents(None, run)).items


async def test_a_thread_that_beats_ends_when_its_time_is_up_and_the_next_attempt_is_told_where(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "beats", b"0.1")
        row = await ended(engine, run)
        assert row.status is Status.COMPLETED
        assert int(bytes(row.output)) == gate().noted
        (failed,) = [event for event in await engine.store.events(run) if event.kind == Kind.ATTEMPT_FAILED]
        assert payload_of(failed).error.message == "step 'beats' took longer than 0.1 s"
        assert payload_of(failed).unknown


async def test_a_thread_that_beats_is_told_of_a_stop(tmp_path):
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "beats")
        await gate().until_noted()
    async with engine_on(tmp_path) as engine:
        row = await ended(engine, run)
        assert int(bytes(row.output)) == gate().noted
        assert gate().undone == 1


async def test_a_thread_that_does_not_beat_is_an_incident_and_ends_with_its_next_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "THREAD_GRACE", SECOND // 20)
    Gate.fresh()
    async with engine_on(tmp_path) as engine:
        run = await start(engine, "falls-silent")
        (incident,) = await incidents(engine, run)
        assert incident.kind == "thread"
        gate().open()
        row = await ended(engine, run)
        assert row.error is not None
        assert row.error.message == "step 'falls_silent' was not heard of for 0.05 s"
