"""Quarantine: a workflow that crashes too often rests until somebody lifts it; everything else goes on."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
import trio

from engine.test_supervision import plant
from jivsd import Context, StepContext, step, workflow
from jivsd.engine.api import Conflict, NewStart, NotFound
from jivsd.records import Kind, Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

begun: list[str] = []


@step
async def work(ctx: StepContext, seconds: float) -> str:
    begun.append(ctx.run_id)
    await trio.sleep(seconds)
    return "done"


@workflow("poor")
async def poor(ctx: Context, seconds: float = 1) -> str:
    return await ctx.step(work, seconds)


@workflow("good")
async def good(ctx: Context, seconds: float = 1) -> str:
    return await ctx.step(work, seconds)


@workflow("parent")
async def parent(ctx: Context) -> str:
    return await ctx.run("poor", 1)


def victim(actor: Any, *_: Any) -> bool:
    return actor.run.workflow_id.startswith("victim")


async def test_a_workflow_whose_actors_crash_too_often_is_quarantined_and_lifted(monkeypatch):
    async with Env(here) as env:
        resting = await env.start("poor", 100)
        fine = await env.start("good", 100)
        with monkeypatch.context() as patch:
            hit = plant(patch, "_go_live", victim)
            victims = [await env.start("poor", id=f"victim-{number}") for number in range(2)]
            await env.sleep("30s")
        assert 5 < len(hit) < 10
        (held,) = [one for one in (await env.engine.incidents()).items if one.kind == "quarantine"]
        assert held.workflow == "poor"
        assert held.message == (
            "workflow 'poor' is quarantined: it crashed more than 5 times in 60 s; "
            "last: RuntimeError: planted in _go_live"
        )
        with pytest.raises(Conflict, match="an operator lifts that with: jivsd quarantine lift poor") as refused:
            await env.start("poor")
        assert (refused.value.code, refused.value.data["incident"]) == ("quarantined", held.incident_id)
        assert await env.result(await env.start("good")) == "done"
        assert await env.result(fine) == "done"
        await env.sleep("100s")  # the step that ran may end and is recorded; then the run rests
        assert (await env.show(resting)).status is Status.BLOCKED
        (wait,) = await env.waits(resting)
        assert (wait.kind, wait.what) == ("incident", held.message)
        infos = {info.name: info.quarantined for info in env.engine.workflows()}
        assert infos == {"poor": held.incident_id, "good": None, "parent": None}

        closed = await env.engine.lift_quarantine("poor", by="ann", why="mended")
        assert (closed.resolution, closed.resolved_by, closed.resolved_why) == ("lift", "ann", "mended")
        assert await env.result(resting) == "done"
        assert begun.count(resting) == 1
        for run in victims:
            for incident in (await env.engine.incidents(ref=run)).items:
                await env.engine.retry_incident(incident.incident_id, by="ann", why="mended")
            assert await env.result(run) == "done"
        assert not (await env.engine.incidents()).items
        with pytest.raises(NotFound, match="is not quarantined"):
            await env.engine.lift_quarantine("poor", by="ann", why="again")


async def test_crashes_after_progress_harm_nobody(monkeypatch):
    async with Env(here) as env:
        run = await env.start("good", 1)
        plant(monkeypatch, "_after_turn", lambda actor, *_: actor.moved and victim(actor))
        runs = [await env.start("poor", 1, id=f"victim-{number}") for number in range(4)]
        await env.sleep("10s")
        assert not [one for one in (await env.engine.incidents(None)).items if one.kind == "quarantine"]
        monkeypatch.undo()
        assert [await env.result(one) for one in (run, *runs)] == ["done"] * 5


async def test_an_operator_quarantines_by_hand_and_children_wait_for_the_lift():
    async with Env(here) as env:
        with pytest.raises(NotFound, match="no workflow 'nobody'"):
            await env.engine.quarantine_workflow("nobody", by="ann")
        running = await env.start("poor", 10)
        await env.sleep("1s")
        held = await env.engine.quarantine_workflow("poor", by="ann", why="it charges twice")
        assert held.message == "workflow 'poor' is quarantined: it charges twice (by ann)"
        with pytest.raises(Conflict, match="quarantined already"):
            await env.engine.quarantine_workflow("poor", by="bob")
        wanted = [NewStart("poor", msgspec.Raw(b"1")), NewStart("good", msgspec.Raw(b"1"))]
        refused, accepted = await env.engine.start_many(wanted, by="ann")
        assert (refused.code, accepted.result) == ("quarantined", "accepted")
        await env.result(accepted.run_id or "")
        begun.clear()
        waiting = await env.start("parent")
        await env.sleep("1h")
        assert begun == []
        assert [event.path for event in await env.events(running) if event.kind == Kind.STEP_DONE] == ["work"]
        assert (await env.show(running)).status is Status.BLOCKED
        await env.engine.retry_incident(held.incident_id, by="ann", why="mended")  # another way to say it
        assert [await env.result(waiting), await env.result(running)] == ["done", "done"]
        child = [event for event in await env.events(waiting) if event.kind == Kind.CHILD_ENDED]
        assert len(child) == 1


async def test_a_run_at_rest_can_be_terminated_and_the_quarantine_stays():
    async with Env(here) as env:
        run = await env.start("poor", 10)
        await env.sleep("1s")
        await env.engine.quarantine_workflow("poor", by="ann")
        await env.sleep("1m")
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED
        with pytest.raises(Conflict, match="is quarantined"):
            await env.engine.retry(run, by="ann")
        await env.sleep("1m")
        assert (await env.show(run)).status is Status.TERMINATED
        assert [one.kind for one in (await env.engine.incidents()).items] == ["quarantine"]


async def test_a_quarantine_outlives_the_engine():
    async with Env(here) as env:
        run = await env.start("poor", 10)
        await env.sleep("1s")
        held = await env.engine.quarantine_workflow("poor", by="ann")
        await env.sleep("1m")
        await env.engine.stop(0)
        begun.clear()
        await env._nursery.start(env._serve, 1)
        await env.sleep("1m")
        assert (await env.show(run)).status is Status.BLOCKED
        seen = await env.engine.acknowledge_incident(held.incident_id, by="bob", why="mine")
        closed = await env.engine.lift_quarantine("poor", by="ann", why="mended")
        assert [one.what for one in closed.history] == ["acknowledge", "lift"]
        assert seen.incident_id == closed.incident_id
        assert await env.result(run) == "done"
        assert begun == []
