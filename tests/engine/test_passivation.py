"""Runs that wait leave memory, and come back for whatever they wait for."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing

from engine import commands
from jivsd.clock import SECOND, TrioClock
from jivsd.engine import gate, housekeeping, passivation
from jivsd.engine.actor import Actor
from jivsd.engine.api import NewStart, Unavailable
from jivsd.engine.engine import Engine
from jivsd.engine.limits import Limits
from jivsd.engine.passivation import Passivation
from jivsd.engine.replay import Machine
from jivsd.engine.replay.parts import Branch
from jivsd.records import Status
from jivsd.store.api import RunFilter, StoreError
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env
from jivsd.testing.env import EPOCH

pytestmark = pytest.mark.jump

HOUR = 3600


async def parked(env, run):
    """The row of a run that should have left memory."""
    assert run not in env.engine.actors
    row = await env.show(run)
    assert row.parked
    return row


async def test_a_waiting_run_leaves_after_a_while_and_comes_back_for_its_message():
    commands.fresh_world()
    async with Env(commands, passivate_after="10s") as env:
        run = await env.start("talk", 2)
        await env.sleep("9s")
        assert (await env.show(run)).status is Status.RUNNING
        assert run in env.engine.actors
        await env.sleep("2s")
        assert (await parked(env, run)).status is Status.WAITING
        assert [one.run_id for one in (await env.engine.runs(RunFilter(statuses=[Status.WAITING]))).items] == [run]
        assert [wait.kind for wait in await env.waits(run)] == ["until"]
        await parked(env, run)  # nobody wakes it by looking
        await env.signal(run, "vote", "ann")
        await env.signal(run, "vote", "bob")
        await env.sleep("1s")
        assert (await env.show(run)).status is Status.RUNNING
        await env.sleep("1m")
        await parked(env, run)
        for word in ("early", "late"):
            await env.signal(run, "word", {"text": word})
        assert await env.result(run) == ["early", "late"]


async def test_it_comes_back_for_its_timer_and_never_early():
    commands.fresh_world()
    async with Env(commands, passivate_after="10s") as env:
        start = env.now
        run = await env.start("patient", HOUR)
        await env.sleep("1m")
        assert (await parked(env, run)).wake_at is not None
        other = await env.start("patient", 10)  # waits for the lock of the first, which is parked
        await env.sleep("1m")
        assert (await parked(env, other)).status is Status.PENDING
        assert await env.result(run) == "booked bench"
        assert (env.now - start).total_seconds() == pytest.approx(HOUR + 1, abs=0.1)
        assert await env.result(other) == "booked bench"
        assert (env.now - start).total_seconds() == pytest.approx(HOUR + 12, abs=0.1)


async def test_only_so_many_wait_in_memory_and_those_that_waited_longest_leave_first():
    commands.fresh_world()
    async with Env(commands) as env:
        env.engine._resident = 2
        env.engine.passivation._resident = 2
        runs = []
        for _ in range(4):
            runs.append(await env.start("talk", 2))
            await env.sleep("1s")
        assert [run in env.engine.actors for run in runs] == [False, False, True, True]
        await env.signal(runs[0], "vote", "ann")
        await env.sleep("1s")
        assert [run in env.engine.actors for run in runs] == [True, False, False, True]


@pytest.mark.parametrize("act", ["cancel", "terminate", "pause"])
async def test_a_parked_run_can_be_steered(act):
    commands.fresh_world()
    async with Env(commands, passivate_after=0) as env:
        run = await env.start("patient", HOUR)
        await env.sleep("1m")
        await parked(env, run)
        await getattr(env, act)(run)
        if act == "pause":
            row = await env.show(run)
            assert row.paused
            await env.sleep("2h")
            assert (await parked(env, run)).wake_at is None
            await env.resume(run)
            assert await env.result(run) == "booked bench"
        else:
            assert (await env.ended(run)).status is {"cancel": Status.CANCELLED, "terminate": Status.TERMINATED}[act]


async def test_a_held_step_of_a_parked_run_is_decided():
    commands.fresh_world()
    async with Env(commands, passivate_after=0) as env:
        run = await env.start("decide", "how many?")
        await env.sleep("1h")
        assert (await parked(env, run)).status is Status.BLOCKED
        await env.resolve(run, 3)
        assert await env.result(run) == 3


async def test_a_start_of_the_engine_leaves_parked_runs_where_they_are(monkeypatch):
    commands.fresh_world()
    store = SqliteStore(":memory:", threaded=False)
    async with Env(commands, store=store, passivate_after=0) as env:
        quiet, called = [await env.start("talk", 2) for _ in range(2)]
        await env.sleep("1m")
        monkeypatch.setattr(Engine, "activate", lambda self, run_id: None)
        await env.signal(called, "vote", "ann")  # recorded, but the engine dies before it brings the run back
        assert await store.called_runs() == [called]
        monkeypatch.undo()
        assert await store.open_runs(None, 10) == []
        await env.engine.stop(0)
        again = env.make_engine(env.engine.committer.epochs[0])
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: again.run(task_status=task_status))
            await trio.testing.wait_all_tasks_blocked()
            assert (again.metrics.activations.value, again.metrics.recoveries.value) == (1, 0)
            assert [event.kind for event in await store.events(called)][-1] == "Signal"
            assert [event.kind for event in await store.events(quiet)][-1] != "Signal"
            await again.stop(0)


async def test_a_retry_that_came_due_while_the_run_was_parked_is_not_in_doubt():
    commands.fresh_world()
    async with Env(commands, passivate_after=0) as env:
        run = await env.start("everything", "Ann")
        await env.ended(run)
        assert env.engine.metrics.activations.value > 3
        assert "Recovered" not in [event.kind for event in await env.events(run)]


@pytest.mark.embedded
async def test_the_waker_comes_back_when_it_has_crashed(monkeypatch):
    commands.fresh_world()
    original, broken = SqliteStore.wakes, [True]

    async def wakes(self, after, limit, shards):
        if broken.pop() if broken else False:
            raise StoreError("planted")
        return await original(self, after, limit, shards)

    async with Env(commands, passivate_after=0) as env:
        run = await env.start("patient", HOUR)
        await env.sleep("1m")
        await parked(env, run)
        monkeypatch.setattr(SqliteStore, "wakes", wakes)
        assert await env.result(run) == "booked bench"
        assert not broken


async def test_nobody_is_brought_back_by_an_engine_that_does_not_serve():
    commands.fresh_world()
    async with Env(commands, passivate_after=0) as env:
        run = await env.start("patient", HOUR)
        await env.sleep("1m")
        await env.engine.stop(0)
        with pytest.raises(Unavailable, match="starts or stops"):
            await env.engine.present(run)


async def test_what_leaves_memory_is_free_without_a_search_for_cycles():
    commands.fresh_world()
    async with Env(commands, passivate_after=0) as env:
        for name, argument in (("talk", 2), ("children", ["decide:wait"])):
            await env.start(name, argument)
        await env.sleep("1h")
        gc.collect()
        before = _held()  # other tests may have buried some
        gc.disable()
        try:
            await env.start("talk", 2)
            await env.start("children", ["decide:wait"])
            await env.sleep("1h")
            assert not env.engine.actors
            assert _held() == before
        finally:
            gc.enable()


def _held():
    return sum(isinstance(one, Actor | Machine | Branch) for one in gc.get_objects())


async def test_new_runs_wait_while_more_wait_in_memory_than_may(monkeypatch):
    commands.fresh_world()
    for module, name, value in ((passivation, "AT_ONCE", 2), (gate, "EXCESS", 4)):
        monkeypatch.setattr(module, name, value)
    rests, most = Passivation.rests, []

    def watched(self, actor):
        rests(self, actor)
        most.append(len(self))

    monkeypatch.setattr(Passivation, "rests", watched)
    async with Env(commands) as env:
        env.engine.passivation._resident = 10
        for _ in range(10):
            results = await env.engine.start_many([NewStart("talk", b"2")] * 10)
            assert {result.result for result in results} == {"accepted"}
        await env.sleep("1s")
        assert len(env.engine.actors) == 10
        assert 10 < max(most) < 25


async def test_what_a_wave_of_runs_leaves_behind_is_cleared_away(monkeypatch):
    commands.fresh_world()
    monkeypatch.setattr(housekeeping, "WAVE", 3)
    async with Env(commands, passivate_after="10s") as env:
        for _ in range(2):
            await env.start("patient", HOUR)
        await env.sleep("1m")
        assert len(env.engine.timers) >= 2  # forgotten, and still there
        await env.start("patient", HOUR)
        await env.sleep("1m")
        assert not env.engine.actors
        assert len(env.engine.timers) == 1  # the waker's


async def test_who_waits_for_room_when_it_is_looked_who_may_leave_does_not_keep_it_looking():
    """Found by the rehearsal: time stood still."""
    commands.fresh_world()
    async with Env(commands, passivate_after=0, limits=Limits(active_runs=1)) as env:
        await env.start("lingers", 60)
        second = await env.start("lingers", 1, delay=5)
        await env.sleep(6)
        env.engine.passivation.rests(env.engine.actors[second])  # as if it had come to rest just before its time
        assert await env.result(second) == "lingered"


class Settable:
    """A clock that people set."""

    def __init__(self):
        self.offset = 0
        self._clock = TrioClock(EPOCH)

    def now(self):
        return self._clock.now() + self.offset


async def test_a_clock_that_is_set_forward_does_not_keep_it_looking():
    """Found by the rehearsal: who waits for a time that has come does not leave, and was asked to again and again."""
    commands.fresh_world()
    clock = Settable()

    class Forward(Env):
        def make_engine(self, epoch):
            options = {"threads": 0, "look_again": 10.0, "passivate_after": HOUR, "resident": 1}
            return Engine(self.store, self.registry, node="test", epoch=epoch, clock=clock, **options)

    async with Forward(commands) as env:
        first = await env.start("child", "ann")
        await env.sleep(1)
        second = await env.start("child", "bob")
        clock.offset = HOUR * SECOND  # before it has come to rest
        assert [await env.result(run) for run in (first, second)] == ["booked for ann", "booked for bob"]
