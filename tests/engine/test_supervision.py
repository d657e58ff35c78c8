"""Supervision: crashes of actors, of the engine, of the store; what a run causes and what it does not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.lowlevel

from engine import commands
from engine.stores import FickleStore
from jivsd import Context, StepContext, step, workflow
from jivsd.engine.actor import Actor
from jivsd.engine.api import Conflict, Unavailable
from jivsd.records import IncidentState, Kind, Status, payload_of
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

log: list[Any] = []


@step
async def work(ctx: StepContext, number: int, seconds: float = 1) -> int:
    log.append(("begin", number, ctx.attempt))
    await trio.sleep(seconds)
    log.append(("end", number))
    return number


@workflow("works")
async def works(ctx: Context, steps: int, seconds: float = 1) -> int:
    return sum([await ctx.step(work, number, seconds) for number in range(steps)])


@workflow("parent")
async def parent(ctx: Context) -> str:
    try:
        return str(await ctx.run("works", {"steps": 3, "seconds": 100}))
    except Exception as error:
        return str(error)


def plant(monkeypatch: pytest.MonkeyPatch, name: str, when: Any) -> list[str]:
    """A bug in a method of actors: it raises for those for which `when` says so. Returns whom it has hit."""
    original = getattr(Actor, name)
    hit: list[str] = []

    def planted(self: Actor, *args: Any, **rest: Any) -> Any:
        if when(self, *args):
            hit.append(self.run.run_id)
            raise RuntimeError(f"planted in {name}")
        return original(self, *args, **rest)

    monkeypatch.setattr(Actor, name, planted)
    return hit


# ---- actors


@pytest.mark.parametrize("name", ["_turn", "committed", "_after_turn", "_deliver", "append", "submit", "_recover"])
async def test_an_actor_that_crashes_is_started_again_and_hurts_no_other(name, monkeypatch):
    log.clear()
    victims: set[str] = set()

    def once(actor: Actor, *args: Any) -> bool:
        hit = actor.run.workflow_id == "victim" and actor.seq >= 2 and actor.run.run_id not in victims
        if hit:
            victims.add(actor.run.run_id)
        return hit

    async with Env(here) as env:
        hit = plant(monkeypatch, name, once)
        victim = await env.start("works", {"steps": 5}, id="victim")
        other = await env.start("works", {"steps": 5}, id="other")
        if name == "_recover":
            await trio.sleep(3)
            env.engine.actors[victim].fail(RuntimeError("planted"))
        assert await env.result(victim) == 10
        assert await env.result(other) == 10
        assert hit == [victim]
        other_kinds = [event.kind for event in await env.events(other)]
        assert Kind.RECOVERED not in other_kinds
        outcomes = [event.path for event in await env.events(victim) if event.kind == Kind.STEP_DONE]
        assert outcomes == ["work", "work#2", "work#3", "work#4", "work#5"]
        assert not (await env.engine.incidents(None)).items


async def test_an_actor_that_always_crashes_is_suspended_and_a_person_can_retry_it(monkeypatch):
    async with Env(here) as env:
        with monkeypatch.context() as patch:
            hit = plant(patch, "_go_live", lambda actor, *_: actor.run.workflow_id == "victim")
            victim = await env.start("works", {"steps": 2}, id="victim")
            other = await env.start("works", {"steps": 2})
            assert await env.result(other) == 1
            await trio.sleep(60)
            assert len(hit) == 5
            row = await env.show(victim)
            assert row.status is Status.BLOCKED
            (incident,) = (await env.engine.incidents(ref=victim)).items
            assert incident.kind == "crash"
            assert incident.message == "the run's actor crashed 5 times; last: RuntimeError: planted in _go_live"
            (wait,) = await env.waits(victim)
            assert (wait.kind, wait.what) == ("incident", incident.message)
            with pytest.raises(Conflict, match=f"held by incident {incident.incident_id}"):
                await env.pause(victim)
            await env.engine.retry_incident(incident.incident_id, by="ann", why="try")
            await trio.sleep(60)
            assert len(hit) == 10
        (again,) = (await env.engine.incidents(ref=victim)).items
        assert again.incident_id != incident.incident_id
        await env.engine.retry_incident(again.incident_id, by="ann", why="a new version")
        assert await env.result(victim) == 1
        states = [(one.state, one.resolved_by) for one in (await env.engine.incidents(None, ref=victim)).items]
        assert states == [(IncidentState.RESOLVED, "ann")] * 2


async def test_a_suspended_run_can_be_terminated_which_its_parent_and_children_learn(monkeypatch):
    async with Env(here) as env:
        run = await env.start("parent")
        await trio.sleep(50)
        (child,) = (await env.engine.runs(RunFilter(workflow="works"))).items
        with monkeypatch.context() as patch:
            plant(patch, "_go_live", lambda actor, *_: actor.run.run_id == child.run_id)
            env.engine.actors[child.run_id].fail(RuntimeError("planted"))
            await trio.sleep(60)
            assert (await env.show(child.run_id)).status is Status.BLOCKED
            await env.terminate(child.run_id)
            assert (await env.ended(child.run_id)).status is Status.TERMINATED
        assert "ended TERMINATED" in await env.result(run)
        assert not (await env.engine.incidents()).items
        assert not env.engine.suspended

        run = await env.start("parent")
        await trio.sleep(50)
        with monkeypatch.context() as patch:
            plant(patch, "_go_live", lambda actor, *_: actor.run.run_id == run)
            env.engine.actors[run].fail(RuntimeError("planted"))
            await trio.sleep(60)
            await env.terminate(run)
        await env.ended(run)
        children = (await env.engine.runs(RunFilter(parent=run))).items
        assert (await env.ended(children[0].run_id)).status is Status.TERMINATED


async def test_messages_to_a_suspended_run_wait_for_it(monkeypatch):
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("talk", 1)
        with monkeypatch.context() as patch:
            plant(patch, "_go_live", lambda *_: True)
            env.engine.actors[run].fail(RuntimeError("planted"))
            await trio.sleep(60)
            await env.signal(run, "vote", "ann")
            await env.signal(run, "word", {"text": "a"})
            await env.signal(run, "word", {"text": "b"})
        (incident,) = (await env.engine.incidents(ref=run)).items
        await env.engine.retry_incident(incident.incident_id, by="ann", why="now")
        assert await env.result(run) == ["a", "b"]


async def test_progress_between_crashes_forgets_them(monkeypatch):
    async with Env(here) as env:
        hit = plant(
            monkeypatch, "_after_turn", lambda actor, *_: actor.live and actor.run.paused is False and odd(actor)
        )
        run = await env.start("works", {"steps": 20})
        assert await env.result(run) == 190
        assert len(hit) > 5
        assert not (await env.engine.incidents(None)).items


crashed_at: set[tuple[str, int]] = set()


def odd(actor: Actor) -> bool:
    """Crash once at every second event."""
    place = (actor.run.run_id, actor.seq)
    if actor.seq % 2 == 0 or place in crashed_at:
        return False
    crashed_at.add(place)
    return True


async def test_recovery_alone_is_no_progress(monkeypatch):
    """Each life appends what was in flight; if that counted, a run that always crashes would do so for ever."""
    async with Env(here) as env:
        run = await env.start("works", {"steps": 1, "seconds": 1000})
        await trio.sleep(1)
        hit = plant(monkeypatch, "_go_live", lambda *_: True)
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(300)
        assert len(hit) == 4
        assert (await env.show(run)).status is Status.BLOCKED


async def test_messages_between_a_crash_and_the_next_life_arrive(monkeypatch):
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("talk", 3)
        env.engine.actors[run].fail(RuntimeError("planted"))
        await env.signal(run, "vote", "while it leaves")
        while run in env.engine.actors:
            await trio.lowlevel.checkpoint()
        await env.signal(run, "vote", "while it is gone")
        await trio.sleep(1)
        await env.signal(run, "vote", "when it is back")
        await trio.sleep(1)
        assert await env.query(run, "tally") == ["while it leaves", "while it is gone", "when it is back"]


async def test_a_crash_right_after_the_start_taints_what_may_have_begun():
    log.clear()
    async with Env(here) as env:
        run = await env.start("works", {"steps": 1})
        env.engine.actors[run].fail(RuntimeError("planted"))
        assert await env.result(run) == 0
        (recovered,) = [event for event in await env.events(run) if event.kind == Kind.RECOVERED]
        assert payload_of(recovered).paths == ["work"]


# ---- the engine as a whole


async def test_an_engine_that_crashes_is_run_again_and_goes_on_with_everything():
    log.clear()
    async with Restarting(here) as env:
        runs = [await env.start("works", {"steps": 5, "seconds": 2}, id=f"run-{number}") for number in range(5)]
        await trio.sleep(3)
        env.engine.nursery.start_soon(explode)
        await trio.sleep(0.5)
        await env.engine.signal(runs[0], "anything", b"1")
        await trio.sleep(3)
        env.engine.nursery.start_soon(explode)
        late = await env.start("works", {"steps": 1})
        for run in runs:
            assert await env.result(run) == 10
        assert await env.result(late) == 0
        assert env.crashes == 2
        for run in runs:
            paths = [event.path for event in await env.events(run) if event.kind == Kind.STEP_DONE]
            assert len(paths) == len(set(paths)) == 5


async def explode() -> None:
    raise RuntimeError("planted in the engine")


class Restarting(Env):
    """An engine whose crashes are survived, as the daemon's supervisor does it."""

    crashes = 0

    async def _serve(self, epoch: int, task_status: trio.TaskStatus[None]) -> None:
        self.engine = self.make_engine(epoch)
        status: Any = task_status
        while True:
            try:
                await self.engine.run(task_status=status)
            except ExceptionGroup:
                self.crashes += 1
                status = trio.TASK_STATUS_IGNORED
            else:
                return


class SlowStore(FickleStore):
    """Whose commits take a second."""

    async def commit(self, batch, more=None):
        await trio.sleep(1)
        return await super().commit(batch)


async def test_a_run_whose_start_is_committed_while_the_engine_crashes_is_found_by_the_next_life():
    async with Restarting(here, store=SlowStore()) as env:
        started: list[str] = []

        async def start() -> None:
            started.append(await env.start("works", {"steps": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.sleep(0.5)  # the commit is under way, and will be finished
            env.engine.nursery.start_soon(explode)
        assert await env.result(started[0]) == 0
        assert env.crashes == 1


async def test_draining_an_engine_that_has_just_crashed_raises_nothing():
    async with Restarting(here, store=SlowStore()) as env, trio.open_nursery() as nursery:
        nursery.start_soon(env.start, "works", {"steps": 1})
        await trio.sleep(0.5)
        env.engine.nursery.start_soon(explode)
        await trio.sleep(0.1)
        env.engine.drain(0)
        await trio.sleep(10)


async def test_draining_lets_steps_end_and_starts_nothing():
    log.clear()
    async with Restarting(here) as env:
        run = await env.start("works", {"steps": 3, "seconds": 5})
        await trio.sleep(7)
        with trio.fail_after(5):
            await env.engine.stop(60)
        assert log == [("begin", 0, 1), ("end", 0), ("begin", 1, 1), ("end", 1)]
        with pytest.raises(Unavailable, match="shutting down"):
            await env.start("works", {"steps": 1})
        kinds = [event.kind for event in await env.store.events(run)]
        assert kinds == [Kind.STARTED, Kind.STEP_DONE, Kind.STEP_DONE]
        assert not env.engine.actors


async def test_what_does_not_end_within_the_grace_is_cut_short_and_run_again():
    log.clear()
    async with Twice(here) as env:
        run = await env.start("works", {"steps": 1, "seconds": 100})
        await trio.sleep(1)
        with trio.fail_after(11):
            await env.engine.stop(10)
        await env.again()
        assert await env.result(run) == 0
        assert [entry[0] for entry in log] == ["begin", "begin", "end"]


class Twice(Env):
    """An engine that can be run again after it was stopped."""

    async def _serve(self, epoch: int, task_status: trio.TaskStatus[None]) -> None:
        self._nursery = trio.lowlevel.current_task().parent_nursery
        self.engine = self.make_engine(epoch)
        await self.engine.run(task_status=task_status)

    async def again(self) -> None:
        assert self._nursery is not None
        await self._nursery.start(self._run_again)

    async def _run_again(self, task_status: trio.TaskStatus[None]) -> None:
        await self.engine.run(task_status=task_status)


async def test_draining_while_runs_are_being_recovered_loses_none():
    async with Twice(here) as env:
        runs = [await env.start("works", {"steps": 2, "seconds": 10}) for _ in range(20)]
        await trio.sleep(1)
        await env.engine.stop(0)
        await env.again()
        await env.engine.stop(0)  # at once
        await env.again()
        for run in runs:
            assert await env.result(run) == 1


async def test_suspended_runs_let_the_engine_stop_and_are_tried_again(monkeypatch):
    async with Twice(here) as env:
        with monkeypatch.context() as patch:
            plant(patch, "_go_live", lambda *_: True)
            run = await env.start("works", {"steps": 1})
            await trio.sleep(60)
            assert run in env.engine.suspended
            with trio.fail_after(1):
                await env.engine.stop(10)
        await env.again()
        assert await env.result(run) == 0
        (incident,) = (await env.engine.incidents(None)).items
        assert (incident.state, incident.resolution) == (IncidentState.RESOLVED, "gone")


# ---- the store


async def test_while_the_store_is_away_work_waits_and_starts_are_refused():
    log.clear()
    store = FickleStore()
    async with Env(here, store=store) as env:
        run = await env.start("works", {"steps": 3})
        await trio.sleep(0.5)
        store.writes_fail = True
        await trio.sleep(60)
        assert log == [("begin", 0, 1), ("end", 0)]
        assert (await env.engine.status()).store_away == "the disk is full"
        with pytest.raises(Unavailable, match="the disk is full"):
            await env.start("works", {"steps": 1})
        with pytest.raises(Unavailable, match="the disk is full"):
            await env.signal(run, "word")
        store.writes_fail = False
        assert await env.result(run) == 3
        assert (await env.engine.status()).store_away is None
        assert [entry[0] for entry in log] == ["begin", "end"] * 3
        assert len((await env.engine.runs(RunFilter())).items) == 1


async def test_a_store_that_goes_away_in_the_middle_of_anything_is_waited_for(monkeypatch):
    """Away at every instant once, for writing and for reading, with children, locks, timers, crashes."""
    for moment in range(2, 40, 3):
        commands.fresh_world()
        store = FickleStore()
        async with Env(commands, store=store) as env:
            run = await env.start("children", ["child:good", "patient:x", "trip:bad"])
            lone = await env.start("patient", 20)
            while store.commits < moment and (await env.engine.result(lone, 0.5)).status is not Status.COMPLETED:
                pass
            store.writes_fail = store.reads_fail = True
            if run in env.engine.actors:
                env.engine.actors[run].fail(RuntimeError("planted"))
            await trio.sleep(30)
            store.writes_fail = store.reads_fail = False
            assert await env.result(run, "1d") == ["booked for good", "FAILED", "COMPENSATED"]
            assert await env.result(lone, "1d") == "booked bench"


async def test_a_store_that_is_away_when_the_engine_starts_is_waited_for():
    store = FickleStore()
    async with Twice(here, store=store) as env:
        run = await env.start("works", {"steps": 3})
        await env.engine.stop(0)
        store.writes_fail = store.reads_fail = True
        await env.again()
        await trio.sleep(100)
        store.writes_fail = store.reads_fail = False
        assert await env.result(run) == 3


async def test_runs_are_brought_back_oldest_first_and_only_so_many_are_read_at_once(monkeypatch):
    order: list[str] = []
    original = Actor._recover

    def noted(actor: Actor) -> None:
        order.append(actor.run.run_id)
        original(actor)

    async with Twice(here) as env:
        runs = [await env.start("works", {"steps": 2}) for _ in range(30)]
        await env.engine.stop(0)
        monkeypatch.setattr(Actor, "_recover", noted)
        env.engine._loads = 3
        await env.again()
        for run in runs:
            assert await env.result(run) == 1
        assert sorted(order) == runs
        assert all(abs(order.index(run) - place) < 3 for place, run in enumerate(runs))
