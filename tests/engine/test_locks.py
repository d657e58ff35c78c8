"""Lock keys: who holds, who waits, how long, and who gives back when."""

from __future__ import annotations

import sys

import pytest
import trio

from jivsd import NO_RETRY, Context, Failure, query, signal, step, workflow
from jivsd.engine.api import Conflict
from jivsd.records import ENDED, Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

order: list[str] = []


@step(retry=NO_RETRY)
async def use(name: str, seconds: float, end: str) -> None:
    order.append(f"{name} begins")
    await trio.sleep(seconds)
    order.append(f"{name} ends")
    if end == "fail":
        raise Failure("it failed")


@use.compensate
async def tidy(nothing: None, name: str, seconds: float, end: str) -> None:
    order.append(f"{name} tidies")


@workflow("user", lock_key="machine:{machine}")
async def user(ctx: Context, machine: str, name: str, seconds: float = 10, end: str = "good") -> str:
    await ctx.step(use, name, seconds, end)
    if end == "raise":
        raise Failure("at the end")
    return name


def wants(name: str, machine: str = "mill", **more: object) -> dict[str, object]:
    return {"machine": machine, "name": name, **more}


async def test_runs_with_one_key_come_one_after_the_other_in_the_order_of_their_starts():
    order.clear()
    async with Env(here) as env:
        runs = [await env.start("user", wants(name)) for name in "abc"]
        other = await env.start("user", wants("x", "saw"))
        await trio.sleep(1)
        assert [(await env.show(run)).status for run in runs] == [Status.RUNNING, Status.PENDING, Status.PENDING]
        assert (await env.show(runs[1])).started_at is None
        assert (await env.show(other)).status is Status.RUNNING
        (wait,) = await env.waits(runs[2])
        assert (wait.kind, wait.behind) == ("lock", runs[:2])
        assert wait.what == "lock 'machine:mill'"
        for run in runs:
            await env.result(run)
        assert [line for line in order if not line.startswith("x")] == [
            f"{name} {what}" for name in "abc" for what in ("begins", "ends")
        ]


@pytest.mark.parametrize("how", ["good", "fail", "raise", "cancel", "terminate", "timeout", "crash"])
async def test_every_kind_of_end_gives_the_lock_back(how):
    order.clear()
    async with Env(here) as env:
        timeout = {"timeout": "5s"} if how == "timeout" else {}
        first = await env.start("user", wants("first", end=how), **timeout)
        second = await env.start("user", wants("second"))
        await trio.sleep(1)
        if how in ("cancel", "terminate"):
            await getattr(env, how)(first)
        if how == "crash":
            env.engine.actors[first].fail(RuntimeError("planted"))
        await env.ended(first)
        assert await env.result(second) == "second"
        before = order.index("second begins")
        assert not [line for line in order[before:] if line.startswith("first")]
        assert await env.store.lock_queue("machine:mill") == []


async def test_who_waits_can_be_cancelled_and_terminated_without_having_begun():
    order.clear()
    async with Env(here) as env:
        first = await env.start("user", wants("first"))
        cancelled, terminated, last = [await env.start("user", wants(name)) for name in ("c", "t", "last")]
        await env.cancel(cancelled)
        await env.terminate(terminated)
        assert (await env.ended(cancelled)).status is Status.CANCELLED
        assert (await env.ended(terminated)).status is Status.TERMINATED
        assert order == ["first begins"]
        (wait,) = await env.waits(last)
        assert wait.behind == [first]
        assert await env.result(last) == "last"


async def test_a_start_that_would_not_wait_gets_a_conflict_and_makes_no_run():
    async with Env(here) as env:
        free = await env.start("user", wants("free"), lock_wait="0s")
        with pytest.raises(Conflict, match="lock 'machine:mill' is held") as caught:
            await env.start("user", wants("too late"), lock_wait="0s")
        assert (caught.value.code, caught.value.data["run_id"]) == ("locked", free)
        assert await env.result(free) == "free"
        assert await env.result(await env.start("user", wants("again"), lock_wait="0s")) == "again"
        assert len((await env.engine.store.runs(RunFilter(), 10)).items) == 2


async def test_a_start_that_waits_for_a_while_fails_when_that_is_over():
    order.clear()
    async with Env(here) as env:
        first = await env.start("user", wants("first", seconds=60))
        run = await env.start("user", wants("impatient"), lock_wait="20s")
        waits = await env.waits(run)
        assert sorted(wait.kind for wait in waits) == ["lock", "timer"]
        row = await env.ended(run)
        assert row.status is Status.FAILED
        assert row.error is not None
        assert (row.error.type, row.error.message) == ("TimedOut", "waited for lock 'machine:mill' in vain")
        assert row.ended_at is not None
        assert (row.ended_at - row.created_at) / 1e6 == pytest.approx(20, abs=0.01)
        assert await env.result(first) == "first"
        patient = await env.start("user", wants("second", seconds=5))
        assert await env.result(await env.start("user", wants("patient"), lock_wait="20s")) == "patient"
        await env.ended(patient)


async def test_a_start_that_begins_later_and_would_not_wait_then():
    async with Env(here) as env:
        late = await env.start("user", wants("late"), lock_wait="0s", delay="5s")
        assert await env.result(late) == "late"
        first = await env.start("user", wants("first", seconds=60))
        refused = await env.ended(await env.start("user", wants("too late"), lock_wait="0s", delay="5s"))
        assert (refused.status, refused.error.type) == (Status.FAILED, "TimedOut")
        assert (refused.ended_at - refused.created_at) / 1e6 == pytest.approx(6, abs=0.01)
        assert await env.result(first) == "first"


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
def test_how_long_a_start_waits_survives_any_crash(passivate_after):
    async def scenario(env):
        first = await env.start("user", wants("first", seconds=30), id="first")
        for number, wait in enumerate(("10s", "100s")):
            await trio.sleep(1)
            await env.start("user", wants(wait, seconds=1), id=str(number), lock_wait=wait)
        late = {"lock_wait": "0s", "delay": "3s"}
        await env.start("user", wants("late"), id="late", **late)
        ended = [await env.ended(f"user:{id}") for id in ("0", "late")]
        assert [run.error.type for run in ended] == ["TimedOut", "TimedOut"]
        assert (await env.show(first)).status not in ENDED
        assert await env.result("user:1") == "100s"
        assert await env.store.lock_queue() == []

    assert crash_everywhere([here], scenario, passivate_after=passivate_after) > 10


async def test_a_key_of_the_start_takes_the_place_of_the_workflows():
    async with Env(here) as env:
        first = await env.start("user", wants("a"), lock_key="other")
        second = await env.start("user", wants("b"))
        await trio.sleep(1)
        assert [(await env.show(run)).status for run in (first, second)] == [Status.RUNNING, Status.RUNNING]


async def test_signals_reach_a_run_that_waits_for_its_lock():
    async with Env(here) as env:
        first = await env.start("user", wants("first"), lock_key="chat")
        run = await env.start("chat")
        await env.signal(run, "word", "early")
        await env.signal(run, "note", "noted")
        await trio.testing.wait_all_tasks_blocked()
        assert await env.query(run, "notes") == ["noted"]
        assert await env.result(run) == "early"
        await env.ended(first)


@workflow("chat", lock_key="chat")
class Chat:
    def __init__(self) -> None:
        self.noted: list[str] = []

    @signal
    def note(self, text: str) -> None:
        self.noted.append(text)

    @query
    def notes(self) -> list[str]:
        return self.noted

    async def run(self, ctx: Context) -> str:
        assert self.noted == ["noted"]
        return await ctx.wait_signal("word", str)
