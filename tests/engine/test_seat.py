"""A lone step runs in the run's own task; everything else that happens meanwhile goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
import trio

from jivsd.authoring.errors import TimedOut
from jivsd.clock import TrioClock
from jivsd.engine.api import Conflict, StartOptions
from jivsd.engine.engine import Engine
from jivsd.records import Kind, Status
from jivsd.testing import Env

sys.path.insert(0, str(Path(__file__).parent))

import lent

pytestmark = pytest.mark.jump


@pytest.fixture(autouse=True)
def _nothing_stopped():
    lent.stopped.clear()


def tasks(task=None):
    task = task or trio.lowlevel.current_root_task()
    return 1 + sum(tasks(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


async def test_a_lone_step_has_no_task_of_its_own():
    async with Env(lent) as env:
        idle = await env.start("patient", [50, 50])
        await trio.sleep(1)
        alone = tasks()
        others = [await env.start("patient", [50, 50]) for _ in range(10)]
        await trio.sleep(1)
        assert tasks() == alone + 10
        for run in [idle, *others]:
            assert await env.result(run) == []


async def test_signals_and_queries_are_answered_while_a_lone_step_runs():
    async with Env(lent) as env:
        run = await env.start("patient", [10, 10])
        await trio.sleep(1)
        before = tasks()
        for word in ("one", "two", "three"):
            await env.signal(run, "hear", word)
            await trio.sleep(1)
            assert (await env.query(run, "words"))[-1] == word
        assert tasks() == before + 1  # one relief, however many signals there are
        await trio.sleep(8)
        assert tasks() == before
        await env.signal(run, "hear", "four")
        assert await env.result(run) == ["one", "two", "three", "four"]
    assert lent.stopped == []


async def test_what_a_signal_leads_to_goes_on_beside_the_lone_step():
    async with Env(lent) as env:
        run = await env.start("reply")
        await trio.sleep(1)
        began = trio.current_time()
        await env.signal(run, "start")
        await trio.sleep(3.5)
        paths = [event.path for event in await env.events(run) if event.kind == Kind.STEP_DONE]
        assert paths == ["nursery[quick]/rest", "nursery[quick]/rest#2"]
        assert await env.result(run) == [100, 3]
        assert trio.current_time() - began == pytest.approx(99, abs=0.5)


async def test_a_lone_step_that_loses_a_race_is_stopped_at_once():
    async with Env(lent) as env:
        began = trio.current_time()
        run = await env.start("contest")
        assert await env.result(run) == "time"
        assert trio.current_time() - began == pytest.approx(6, abs=0.5)
        kinds = [event.kind for event in await env.events(run)]
        assert kinds.count(Kind.STEP_CANCELLED) == 1
    assert lent.stopped == ["rest 100"]


async def test_the_time_of_a_lone_step_is_its_own():
    async with Env(lent) as env:
        run = await env.start("deadline")
        assert await env.result(run) == ["done", TimedOut.__name__, "done"]


async def test_cancelling_stops_a_lone_step_and_undoes_what_it_did():
    async with Env(lent) as env:
        run = await env.start("patient", [1, 100])
        await trio.sleep(5)
        await env.engine.cancel(run, by="test")
        assert (await env.ended(run)).status is Status.CANCELLED
        assert trio.current_time() < 10
    assert lent.stopped == ["rest 100", "undone 100", "undone 1"]


async def test_terminating_stops_a_lone_step_and_undoes_nothing():
    async with Env(lent) as env:
        run = await env.start("patient", [100])
        await trio.sleep(5)
        await env.engine.terminate(run, by="test")
        assert (await env.ended(run)).status is Status.TERMINATED
    assert lent.stopped == ["rest 100"]


async def test_pausing_lets_a_lone_step_end_and_starts_no_other():
    async with Env(lent) as env:
        run = await env.start("patient", [10, 10])
        await trio.sleep(1)
        await env.engine.pause(run, by="test")
        await trio.sleep(100)
        assert [event.kind for event in await env.events(run)].count(Kind.STEP_DONE) == 1
        await env.engine.resume(run, by="test")
        began = trio.current_time()
        assert await env.result(run) == []
        assert trio.current_time() - began == pytest.approx(10, abs=0.5)


async def stopped_with(grace, seconds, *, hears):
    """When a run of lone steps is stopped after a second: how long that took, and what is recorded."""
    env = Env(lent)
    async with env.store, trio.open_nursery() as nursery:
        epoch = await env.store.open("test")
        engine = Engine(env.store, env.registry, node="test", epoch=epoch, clock=TrioClock(0), threads=0)
        await nursery.start(lambda task_status: engine.run(task_status=task_status))
        await trio.sleep(1)  # a run that starts while the engine looks for open runs may be taken for one of them
        started = await engine.start("patient", msgspec.json.encode(seconds), StartOptions())
        await trio.sleep(1)
        if hears:
            await engine.signal(started.run.run_id, "hear", b'"something"')
        began = trio.current_time()
        await engine.stop(grace)
        took = trio.current_time() - began
        return took, [event.kind for event in await env.store.events(started.run.run_id)]


@pytest.mark.parametrize("hears", [False, True])
async def test_stopping_waits_for_a_lone_step_and_records_it(hears):
    took, kinds = await stopped_with(30, [10, 10], hears=hears)
    assert took == pytest.approx(9, abs=0.5)
    assert kinds == [Kind.STARTED, *([Kind.SIGNAL] if hears else []), Kind.STEP_DONE]
    assert lent.stopped == []


@pytest.mark.parametrize("hears", [False, True])
async def test_stopping_cuts_a_lone_step_short_when_the_grace_is_over(hears):
    took, kinds = await stopped_with(5, [100], hears=hears)
    assert took == pytest.approx(5, abs=0.5)
    assert kinds == [Kind.STARTED, *([Kind.SIGNAL] if hears else [])]
    assert lent.stopped == ["rest 100"]


async def test_a_step_that_leaves_a_scope_open_fails_and_its_run_goes_on():
    async with Env(lent) as env:
        run = await env.start("sloppy")
        found = await env.result(run)
        assert [("left one of trio's scopes open" in text) for text in found] == [True, True]


async def test_an_undurable_await_beside_a_lone_step_is_an_incident_and_the_actor_stays_healthy():
    async with Env(lent) as env:
        run = await env.start("foreign")
        await trio.sleep(1)
        await env.signal(run, "start")
        await trio.sleep(1)
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert "lent.py" in incident.message
        assert "incident" in {wait.kind for wait in await env.waits(run)}
        await env.engine.terminate(run, by="test")
        assert (await env.ended(run)).status is Status.TERMINATED
    assert lent.stopped == ["rest 100"]


async def test_plain_lone_steps_run_too():
    async with Env(lent) as env:
        run = await env.start("threads", [0.001, 0.002])
        assert await env.result(run) == pytest.approx(0.003)


async def test_a_result_is_the_row_that_the_store_has():
    async with Env(lent) as env:
        for workflow, value in (("patient", [1]), ("sloppy", None), ("deadline", None)):
            run = await env.start(workflow, value)
            assert await env.engine.result(run, 1000) == await env.engine.show(run)
        run = await env.start("patient", [1000])
        await trio.sleep(1)
        await env.engine.cancel(run, by="test")
        assert await env.engine.result(run, 1000) == await env.engine.show(run)
        with pytest.raises(Conflict):
            await env.engine.cancel(run, by="test")
