"""Runs that are accepted before they may begin: because of their time, or for want of room."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
import trio

from jivsd import Context, step, workflow
from jivsd.clock import as_datetime
from jivsd.engine.api import Invalid
from jivsd.engine.limits import Limits
from jivsd.records import Kind, Status
from jivsd.testing import Env, crash_everywhere
from jivsd.testing.crash import CrashEnv
from jivsd.testing.env import EPOCH

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

HOUR = 3600
seen: list[tuple[str, float]] = []


@pytest.fixture(autouse=True)
def _fresh():
    seen.clear()


@step
async def note(name: str) -> None:
    seen.append((name, trio.current_time()))


@step
async def work(name: str, seconds: float) -> None:
    seen.append((name, trio.current_time()))
    await trio.sleep(seconds)


@workflow("late", timeout="1m")
async def late(ctx: Context, name: str) -> float:
    before = ctx.now()
    await ctx.step(note, name)
    await ctx.sleep("30s")
    return before.timestamp()


@workflow("long")
async def long(ctx: Context, name: str) -> str:
    await ctx.step(work, name, 10)
    return name


@workflow("locked", lock_key="k")
async def locked(ctx: Context, name: str) -> str:
    await ctx.step(work, name, 10)
    return name


@workflow("brief", timeout="30s")
async def brief(ctx: Context, name: str) -> str:
    await ctx.sleep("20s")
    await ctx.step(note, name)
    return name


@workflow("parent")
async def parent(ctx: Context, name: str) -> list[str]:
    async with ctx.nursery("children") as children:
        jobs = [children[str(number)].start_soon(brief, f"{name}{number}") for number in range(4)]
    return [job.result for job in jobs]


@workflow("fails")
class Fails:
    async def run(self, ctx: Context, name: str) -> str:
        await ctx.step(note, name)
        await ctx.step(broken, name)
        return name


fixed: list[str] = []


@step
async def broken(name: str) -> None:
    if not fixed:
        raise ValueError("broken")
    seen.append((f"again {name}", trio.current_time()))
    await trio.sleep(10)


@workflow("listens")
async def listens(ctx: Context) -> str:
    return await ctx.wait_signal("word", str)


async def test_it_begins_when_it_is_due_and_its_time_counts_from_then():
    async with Env(here) as env:
        begun = trio.current_time()
        run = await env.start("late", "a", delay="1h")
        row = await env.show(run)
        assert (row.status, row.started_at, row.wake_at) == (Status.PENDING, None, row.created_at + HOUR * 1_000_000)
        (wait,) = await env.waits(run)
        assert (wait.kind, wait.until) == ("start", row.wake_at)
        await trio.sleep(HOUR - 1)
        assert not seen
        assert await env.result(run) == pytest.approx(row.wake_at / 1e6, abs=1)
        assert seen == [("a", pytest.approx(begun + HOUR, abs=1))]
        row = await env.show(run)
        assert (row.wake_at, row.started_at >= row.options.start_at) == (None, True)
        assert trio.current_time() - begun == pytest.approx(HOUR + 30, abs=1)


async def test_it_begins_at_a_time():
    async with Env(here) as env:
        run = await env.start("late", "a", start_at=as_datetime(EPOCH) + timedelta(days=2))
        await env.result(run)
        assert seen[0][1] == pytest.approx(2 * 86_400, abs=1)
        past = await env.start("late", "b", start_at=datetime(2020, 1, 1, tzinfo=UTC))
        await env.result(past, "40s")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay": "soon"}, "option delay: 'soon' is not a duration"),
        ({"delay": "-1s"}, "option delay: '-1s' is negative"),
        ({"start_at": datetime(2030, 1, 1)}, "option start_at: it needs a time zone"),
        ({"start_at": datetime(2300, 1, 1, tzinfo=UTC)}, "more than a hundred years away"),
        ({"delay": "1m", "start_at": datetime(2030, 1, 1, tzinfo=UTC)}, "delay and start_at: give one of them"),
    ],
)
async def test_a_bad_time_is_refused(options, problem):
    async with Env(here) as env:
        with pytest.raises(Invalid, match=problem):
            await env.start("late", "a", **options)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_before_it_begins_it_can_be_ended_and_has_done_nothing(how):
    async with Env(here) as env:
        run = await env.start("late", "a", delay="1h")
        await getattr(env, how)(run)
        row = await env.ended(run, "1s")
        assert row.status is (Status.CANCELLED if how == "cancel" else Status.TERMINATED)
        assert row.wake_at is None
        await trio.sleep(2 * HOUR)
        assert not seen


async def test_a_pause_lasts_beyond_its_time():
    async with Env(here) as env:
        run = await env.start("late", "a", delay="1m")
        await env.pause(run)
        await trio.sleep(HOUR)
        assert not seen
        await env.resume(run)
        await env.result(run)
        assert seen[0][1] == pytest.approx(HOUR, abs=1)


async def test_messages_that_come_before_are_kept():
    async with Env(here) as env:
        run = await env.start("listens", delay="1h")
        await env.signal(run, "word", "early")
        assert await env.result(run) == "early"


async def test_it_queues_for_its_lock_when_it_begins():
    async with Env(here) as env:
        late = await env.start("locked", "late", delay="5s")
        first = await env.start("locked", "first")
        second = await env.start("locked", "second")
        assert [await env.result(run) for run in (first, second, late)] == ["first", "second", "late"]
        assert [name for name, _ in seen] == ["first", "second", "late"]


async def test_it_waits_for_room_when_it_is_due_and_is_never_refused():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        first = await env.start("long", "first")
        runs = [await env.start("long", name, delay="0s") for name in "abc"]
        urgent = await env.start("long", "urgent", delay="1s", priority=9)
        await trio.sleep(5)
        assert [name for name, _ in seen] == ["first"]
        (wait,) = await env.waits(urgent)
        assert (wait.kind, "room" in wait.what) == ("start", True)
        assert (await env.engine.status()).limits[0].waiting == 4
        for run in [first, *runs, urgent]:
            await env.result(run)
        assert [name for name, _ in seen] == ["first", "urgent", "a", "b", "c"]


async def test_children_wait_for_room_and_have_all_their_time():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        run = await env.start("parent", "p")
        other = await env.start("long", "other", delay="1s", priority=-1)
        assert await env.result(run) == ["p0", "p1", "p2", "p3"]
        assert await env.result(other) == "other"


async def test_a_child_that_waits_for_room_is_cancelled_with_its_parent():
    async with Env(here, limits=Limits(active_runs=2)) as env:
        blockers = [await env.start("long", name) for name in "xy"]
        run = await env.start("parent", "p", delay="0s")
        await trio.sleep(10.5)
        for _ in range(2):
            await env.start("long", "z", delay="0s", priority=50)
        await env.cancel(run)
        assert (await env.ended(run)).status is Status.CANCELLED
        assert not [name for name, _ in seen if name.startswith("p")]
        for blocker in blockers:
            await env.result(blocker)


async def test_a_reset_waits_for_room():
    fixed.clear()
    async with Env(here, limits=Limits(active_runs=1)) as env:
        run = await env.start("fails", "f")
        await env.ended(run)
        await env.start("long", "x")
        fixed.append("yes")
        again = await env.retry(run)
        assert (await env.show(again)).status is Status.PENDING
        await trio.sleep(5)
        assert [name for name, _ in seen] == ["f", "x"]
        assert await env.result(again) == "f"
        assert [name for name, _ in seen] == ["f", "x", "again f"]
        assert seen[2][1] >= seen[1][1] + 10
        kinds = [(event.kind, event.path) for event in await env.events(again)]
        assert (Kind.TIMER_FIRED, "!start") in kinds


async def test_a_reset_of_a_delayed_run_with_a_lock_begins_at_once():
    fixed.clear()
    async with Env(here) as env:
        run = await env.start("fails", "f", delay="1h", lock_key="k")
        assert (await env.ended(run)).status is Status.FAILED
        fixed.append("yes")
        again = await env.retry(run)
        assert await env.result(again, "11s") == "f"


async def test_it_survives_a_restart():
    async with CrashEnv([here], []) as env:
        run = await env.start("late", "a", delay="1h")
        await trio.sleep(60)
        env._mortal._deaths = [(1, "before")]
        await env.start("late", "b")
        assert await env.result(run) > 0
        assert dict(seen)["a"] == pytest.approx(HOUR, abs=1)


async def _delayed(env):
    seen.clear()
    one = await env.start("locked", "a", delay="1m", id="a")
    two = await env.start("locked", "b", id="b")
    three = await env.start("late", "c", delay="2m", id="c")
    four = await env.start("late", "d", delay="2m", id="d")
    await env.signal(three, "hello")
    await env.cancel(four)
    for run in (one, two, three, four):
        await env.ended(run)


@pytest.mark.slow
def test_crashes_at_every_append(monkeypatch):
    assert crash_everywhere([here], _delayed) > 12
    whole = Env.make_engine

    def narrow(env, epoch):
        env._limits = Limits(active_runs=1)
        return whole(env, epoch)

    monkeypatch.setattr(Env, "make_engine", narrow)
    assert crash_everywhere([here], _delayed_children) > 12


async def _delayed_children(env):
    seen.clear()
    run = await env.start("parent", "p", id="p", delay="0s")
    other = await env.start("long", "o", id="o", delay="1s")
    assert await env.result(run) == ["p0", "p1", "p2", "p3"]
    assert await env.result(other) == "o"
