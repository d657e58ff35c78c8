"""Two things at once that have nothing to do with each other, and that nobody thinks of together."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.testing

from jivsd import NO_RETRY, Context, Failure, Retry, StepContext, signal, step, workflow
from jivsd.clock import SECOND
from jivsd.engine import trials
from jivsd.engine.api import Conflict
from jivsd.engine.blame import Blame
from jivsd.engine.lastwords import LastWords
from jivsd.engine.limits import Limits
from jivsd.engine.stuck import Patience, Stuck
from jivsd.records import ENDED, Kind, Run, Status, payload_of
from jivsd.store.api import RunFilter
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env
from jivsd.testing import env as testing_env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

HOUR = 3600 * SECOND
did: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh():
    did.clear()


@step(retry=Retry(attempts=2, first="100s", jitter=0))
async def slow(ctx: StepContext, seconds: float) -> str:
    did.append(("slow", ctx.attempt))
    if ctx.attempt == 1:
        raise Failure("not yet")
    await trio.sleep(seconds)
    raise Failure("never")


@slow.compensate
async def unslow(ctx: StepContext, result: str | None, seconds: float) -> None:
    did.append(("undone", ctx.outcome_unknown))


@workflow("slowly")
async def slowly(ctx: Context, seconds: float) -> str:
    return await ctx.step(slow, seconds)


@step
async def note(what: str) -> None:
    did.append(what)


@step
async def work(seconds: float) -> None:
    did.append("work")
    await trio.sleep(seconds)


@workflow("worker")
async def worker(ctx: Context, seconds: float) -> None:
    await ctx.step(work, seconds)


@workflow("keyed", lock_key="key", timeout="1h")
async def keyed(ctx: Context, wait: str) -> None:
    await ctx.step(note, "keyed")
    await ctx.sleep(wait)


@workflow("naps", timeout="1h")
async def naps(ctx: Context, wait: str) -> str:
    await ctx.sleep(wait)
    return "slept"


@workflow("parent")
async def parent(ctx: Context, wait: str) -> str:
    await ctx.start_child(naps.options(id="free"), wait)
    return await ctx.run(naps.options(id="kid"), wait)


@workflow("limited-parent", timeout="30m")
async def limited_parent(ctx: Context) -> str:
    return await ctx.run(naps.options(id="kid"), "50m")


@step(retry=NO_RETRY)
async def flaky(good: bool) -> None:
    if not good:
        raise Failure("no")


@workflow("loop")
class Loop:
    def __init__(self) -> None:
        self.good = True

    @signal
    def be(self, good: bool) -> None:
        self.good = good

    async def run(self, ctx: Context, n: int) -> str:
        await ctx.wait_signal("go")
        await ctx.step(flaky, self.good)
        if n < 1:
            await ctx.continue_as_new(n + 1)
        return f"done {n}"


@workflow("mother")
async def mother(ctx: Context) -> str:
    return await ctx.run(Loop.options(id="looping"), 0)


# ---- limits


async def test_who_is_let_in_but_may_not_begin_takes_nobodys_place():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        first = await env.start("worker", 100)
        await env.sleep("1s")
        paused = await env.start("worker", 10, delay="0s")
        await env.sleep("1s")
        third = await env.start("worker", 10, delay="0s")
        await env.sleep("1s")
        await env.pause(paused)
        assert [await env.ended(run) is not None for run in (first, third)] == [True, True]
        assert did == ["work", "work"]
        assert (await env.show(paused)).status is Status.PENDING
        await env.sleep("1s")
        (runs, _) = (await env.engine.status()).limits
        assert (runs.used, runs.waiting) == (0, 0)
        await env.resume(paused)
        await env.ended(paused, within="1m")
        assert did == ["work"] * 3
        assert +env.engine.gate._coming == {}


async def test_a_run_that_is_terminated_in_line_takes_nobodys_place():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await env.start("worker", 100)
        await env.sleep("1s")
        runs = [await env.start("worker", 10, delay="0s") for _ in range(3)]
        await env.sleep("1s")
        await env.terminate(runs[0])
        await env.cancel(runs[1])
        await env.ended(runs[2], within="5m")
        assert did == ["work"] * 2
        await env.sleep("1s")
        assert env.engine.gate.states()[0].used == 0
        assert +env.engine.gate._coming == {}


# ---- the clock


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_was_set_leaves_no_attempt_without_doubt(tmp_path, monkeypatch, hours):
    """The second attempt was under way when the process died; by the clock that was set back, it is not even due."""
    path = str(tmp_path / "journal.db")
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        run = await env.start("slowly", 1000)
        await env.sleep("110s")
        assert did == [("slow", 1), ("slow", 2)]
    monkeypatch.setattr(testing_env, "EPOCH", testing_env.EPOCH + hours * HOUR)
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        row = await env.ended(run)
        assert [event.kind for event in await env.events(run)].count(Kind.RECOVERED) == 1
        assert did[2:] == [("slow", 2), ("undone", True)]
        assert row.status is Status.COMPENSATED


async def test_without_a_clock_that_was_set_there_is_no_doubt_about_an_attempt_that_is_not_due(tmp_path):
    path = str(tmp_path / "journal.db")
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        run = await env.start("slowly", 10)
        await env.sleep("50s")
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        assert (await env.ended(run)).status is Status.FAILED
        assert did == [("slow", 1), ("slow", 2)]


# ---- stuck runs


async def test_runs_that_leave_memory_and_come_back_are_not_stuck():
    async with Env(here, passivate_after="10s") as env:
        sweep = Stuck(env.engine, Patience(every=SECOND, still=5 * SECOND))
        runs = [await env.start("naps", wait) for wait in ("30s", "59m", "2h")]
        held = await env.start("keyed", "30m")
        behind = await env.start("keyed", "1s")
        for _ in range(130):
            sweep.run_once()
            await env.sleep("1m")
        assert {(await env.show(run)).status for run in (*runs, held, behind)} <= ENDED
        assert (await env.engine.incidents(None)).items == []
        assert sweep._standing == sweep._begun == {}


# ---- the time limit of a whole run


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_the_time_limit_of_a_run_that_waits(after):
    async with Env(here, passivate_after=after) as env:
        run = await env.start("naps", "2h")
        began = env.now
        assert (await env.ended(run)).status is Status.TIMED_OUT
        assert (env.now - began).total_seconds() == pytest.approx(3600, abs=0.1)


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_the_time_limit_of_a_run_that_is_paused_counts_and_holds_when_it_is_resumed(after):
    async with Env(here, passivate_after=after) as env:
        run, other = await env.start("naps", "59m"), await env.start("naps", "2h")
        await env.pause(run)
        await env.pause(other)
        await env.sleep("90m")
        assert (await env.show(run)).status not in ENDED
        await env.resume(run)
        await env.resume(other)
        assert await env.result(run, within="1s") == "slept"  # its timer was due before its time was up
        assert (await env.ended(other, within="1s")).status is Status.TIMED_OUT


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_the_time_limit_of_a_run_that_waits_for_its_lock(after):
    async with Env(here, passivate_after=after) as env:
        holder = await env.start("keyed", "5m", timeout="10h")
        await env.pause(holder)
        waiting, last = await env.start("keyed", "1m"), await env.start("keyed", "1m", timeout="5h")
        row = await env.ended(waiting, within="61m")
        assert (row.status, row.started_at) == (Status.TIMED_OUT, None)
        assert did == ["keyed"]
        assert [wait.behind for wait in await env.waits(last) if wait.kind == "lock"] == [[holder]]
        await env.resume(holder)
        await env.ended(last, within="2m")
        assert did == ["keyed"] * 2


async def test_the_time_limit_of_a_paused_run_that_waits_for_its_lock():
    async with Env(here, passivate_after=0) as env:
        holder = await env.start("keyed", "50m")
        waiting = await env.start("keyed", "20m")
        await env.pause(waiting)
        await env.ended(holder)
        await env.sleep("30m")
        assert (await env.show(waiting)).status not in ENDED
        await env.resume(waiting)
        assert (await env.ended(waiting, within="1s")).status is Status.TIMED_OUT
        assert did == ["keyed"]  # the pause held its step; its code had begun when the lock was free
        assert await env.result(await env.start("keyed", "1s"), within="5s") is None


# ---- children


@pytest.mark.parametrize("act", ["cancel", "terminate"])
@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_a_child_shares_its_parents_fate_and_one_that_was_let_go_does_not(act, after):
    async with Env(here, passivate_after=after) as env:
        run = await env.start("parent", "50m")
        await env.sleep("10m")
        await getattr(env, act)(run)
        status = {"cancel": Status.CANCELLED, "terminate": Status.TERMINATED}[act]
        assert (await env.ended(run, within="1s")).status is status
        assert (await env.ended("naps:kid", within="1s")).status is status
        assert await env.result("naps:free") == "slept"


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_a_parent_whose_time_is_up_takes_its_child_along_and_awaits_its_end(after):
    async with Env(here, passivate_after=after) as env:
        run = await env.start("limited-parent")
        assert (await env.ended(run)).status is Status.TIMED_OUT
        kid = await env.show("naps:kid")
        assert kid.status is Status.CANCELLED
        (ended,) = [event for event in await env.events(run) if event.kind == Kind.CHILD_ENDED]
        assert payload_of(ended).status is Status.CANCELLED


async def test_a_parent_that_is_cancelled_while_its_parked_child_is_paused():
    async with Env(here, passivate_after=0) as env:
        run = await env.start("parent", "50m")
        await env.sleep("1m")
        await env.pause("naps:kid")
        await env.sleep("2h")
        await env.cancel(run)
        assert (await env.ended(run, within="1s")).status is Status.CANCELLED
        assert (await env.show("naps:kid")).status is Status.CANCELLED


# ---- runs that were continued as new


async def test_a_run_that_was_continued_is_not_retried_but_the_one_in_which_it_goes_on_is():
    async with Env(here) as env:
        first = await env.start("loop", 0, id="l")
        await env.signal(first, "go")
        await env.sleep("1s")
        second = (await env.show("loop:l")).run_id
        with pytest.raises(Conflict, match=f"goes on in run {second}, which is RUNNING"):
            await env.retry(first)
        await env.signal("loop:l", "be", False)
        await env.signal("loop:l", "go")
        assert (await env.ended(second)).status is Status.FAILED
        with pytest.raises(Conflict, match=f"goes on in run {second}, which is FAILED; retry that one"):
            await env.retry(first)
        again = await env.retry("loop:l")
        assert (await env.ended(again)).status is Status.FAILED  # it still is not good
        row = await env.show(again)
        assert row.options.chain == first
        assert await env.store.continued(first) == row


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_a_parent_waits_for_a_child_that_is_continued(after):
    async with Env(here, passivate_after=after) as env:
        run = await env.start("mother")
        await env.sleep("1m")
        await env.signal("loop:looping", "go")
        await env.sleep("1m")
        await env.signal("loop:looping", "go")
        assert await env.result(run) == "done 1"


async def test_a_parent_is_cancelled_whose_child_was_continued():
    async with Env(here, passivate_after=0) as env:
        run = await env.start("mother")
        await env.sleep("1m")
        await env.signal("loop:looping", "go")
        await env.sleep("1m")
        await env.cancel(run)
        assert (await env.ended(run, within="1s")).status is Status.CANCELLED
        kids = (await env.engine.runs(RunFilter(workflow="loop"))).items
        assert [kid.status for kid in kids] == [Status.CANCELLED, Status.CONTINUED]


# ---- takedowns


async def taken_down(env: Env, folder: Any, run: Run, *, most: int = 2) -> list[str]:
    """The process has ended by a run's fault; the quarantines that the next one begins with."""
    words = LastWords(folder)
    words.say("ended the process by os._exit(3)", Blame(run.run_id, "", "worker@1:3"))
    now = env.engine.clock.now()
    assert await trials.judge(env.store, words, now=now, most=most, period=HOUR) is None
    found = (await env.engine.incidents()).items
    return [one.workflow or "" for one in found if one.kind == "quarantine"]


async def test_takedowns_quarantine_a_workflow_and_are_counted_anew_once_that_is_lifted(tmp_path):
    async with Env(here) as env:
        runs = [await env.show(await env.start("worker", 10_000)) for _ in range(4)]
        other = await env.show(await env.start("naps", "50m"))
        assert await taken_down(env, tmp_path, runs[0]) == []
        assert await taken_down(env, tmp_path, other) == []
        await env.sleep("61m")
        assert await taken_down(env, tmp_path, runs[1]) == []
        assert await taken_down(env, tmp_path, runs[2]) == ["worker"]
        for incident in (await env.engine.incidents()).items:
            env.engine.quarantine.note(incident)
        with pytest.raises(Conflict, match="2 of its runs ended the process within 1 h"):
            await env.start("worker", 1)
        await env.engine.lift_quarantine("worker", by="ann", why="mended")
        await env.sleep("1s")
        assert await taken_down(env, tmp_path, runs[3]) == []
