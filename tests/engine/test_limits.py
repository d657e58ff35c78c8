"""Limits of active runs and running steps: who waits, who goes first, who is refused, and who never is."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.lowlevel
import trio.testing

from jivsd import Context, InvalidDefinition, step, workflow
from jivsd.engine.api import Invalid, Unavailable
from jivsd.engine.limits import Limits, Own
from jivsd.records import Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env
from jivsd.testing.crash import CrashEnv

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

order: list[str] = []
peak = [0, 0]


@pytest.fixture(autouse=True)
def _fresh():
    order.clear()
    peak[:] = [0, 0]


@step
async def work(name: str, seconds: float) -> None:
    order.append(name)
    peak[0] += 1
    peak[1] = max(peak)
    try:
        await trio.sleep(seconds)
    finally:
        peak[0] -= 1


@work.compensate
async def undo(result: None, name: str, seconds: float) -> None:
    order.append(f"undo {name}")
    await trio.sleep(seconds)


@workflow("worker")
async def worker(ctx: Context, name: str, seconds: float = 10) -> None:
    await ctx.step(work, name, seconds)


@workflow("few", active_runs=1, running_steps=1)
async def few(ctx: Context, name: str) -> None:
    await ctx.step(work, name, 10)


@workflow("waiter")
async def waiter(ctx: Context, name: str) -> None:
    await ctx.wait_signal("go")
    await ctx.step(work, name, 10)


@workflow("fan")
async def fan(ctx: Context, name: str, width: int) -> None:
    async with ctx.nursery("parts") as parts:
        for number in range(width):
            parts[number].start_soon(work, f"{name}{number}", 10)


async def start(env, name, workflow="worker", **options):
    return await env.start(workflow, {"name": name} if workflow == "worker" else name, **options)


async def use(env):
    """How many runs are active and how many steps run, as the daemon says it."""
    limits = (await env.engine.status()).limits
    return limits[0].used, limits[1].used


async def test_over_the_limit_a_start_waits_for_room():
    async with Env(here, limits=Limits(active_runs=2)) as env:
        begun = trio.current_time()
        for name in "ab":
            await env.start("worker", {"name": name, "seconds": 3})
        assert trio.current_time() == begun
        third = await env.start("worker", {"name": "c"})
        assert 3 <= trio.current_time() - begun < 3.2
        await env.result(third)
        assert peak[1] == 2


async def test_a_start_that_finds_no_room_in_time_is_refused_and_makes_no_run():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await env.start("worker", {"name": "a", "seconds": 60})
        begun = trio.current_time()
        with pytest.raises(Unavailable, match=r"no room .*limits.active_runs = 1") as caught:
            await start(env, "b", id="b")
        assert trio.current_time() - begun == pytest.approx(5)
        assert caught.value.retry_after > 0
        assert len((await env.engine.runs(RunFilter())).items) == 1
        assert env.engine.metrics.starts_rejected.value == 1


async def test_what_does_not_fit_is_said_at_once():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await env.start("worker", {"name": "a", "seconds": 60})
        begun = trio.current_time()
        with pytest.raises(Invalid, match="missing required"):
            await env.start("worker", {})
        assert trio.current_time() == begun


async def test_a_run_that_waits_is_not_active():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        runs = [await start(env, name, "waiter") for name in "abc"]
        await trio.sleep(1)
        assert await use(env) == (0, 0)
        await start(env, "d")
        for run in runs:
            await env.signal(run, "go")  # messages are taken whatever the limit
        for run in runs:
            await env.result(run)
        assert peak[1] == 4


async def test_the_higher_priority_goes_first_and_within_one_who_came_first():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await env.start("worker", {"name": "first", "seconds": 1})
        async with trio.open_nursery() as nursery:
            for name, priority in [("low", -1), ("a", 0), ("b", 0), ("high", 7), ("c", 0)]:
                options = {"priority": priority}
                nursery.start_soon(lambda name=name, options=options: _short(env, name, options))
                await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        assert order == ["first", "high", "a", "b", "c", "low"]


async def _short(env, name, options):
    await env.start("worker", {"name": name, "seconds": 0.5}, **options)


@pytest.mark.parametrize("priority", [-101, 101, 10**30])
async def test_a_priority_has_bounds(priority):
    async with Env(here) as env:
        with pytest.raises(Invalid, match="option priority: a whole number from -100 to 100"):
            await start(env, "a", priority=priority)


async def test_a_start_whose_caller_leaves_leaves_the_line():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await env.start("worker", {"name": "a", "seconds": 3})
        with trio.move_on_after(1):
            await start(env, "b")
        assert env.engine.gate.starts == 0
        await trio.sleep(10)
        assert order == ["a"]
        await start(env, "c")  # and has left no place taken
        assert await use(env) == (1, 1)


async def test_a_start_that_is_refused_gives_its_place_back():
    async with Env(here, limits=Limits(active_runs=2)) as env:
        await env.start("worker", {"name": "a", "seconds": 60}, id="x")
        for _ in range(5):
            with pytest.raises(Exception, match="has an open run"):
                await start(env, "b", id="x")
        await start(env, "c")


async def test_a_host_that_stops_tells_those_who_wait():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        await start(env, "a")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _():
                with pytest.raises(Unavailable, match="shutting down"):
                    await start(env, "b")

            await trio.testing.wait_all_tasks_blocked()
            begun = trio.current_time()
            env.engine.drain(0)
        assert trio.current_time() == begun


async def test_a_workflow_has_limits_of_its_own():
    async with Env(here) as env:
        await start(env, "a", "few")
        with pytest.raises(Unavailable, match=r"'few'.*running_steps = 1|its active_runs = 1"):
            await start(env, "b", "few")
        await start(env, "c")
        (info,) = [one for one in env.engine.workflows() if one.name == "few"]
        assert (info.active_runs, info.running_steps) == (1, 1)
        own = [one for one in (await env.engine.status()).limits if one.workflow == "few"]
        assert [(one.what, one.used, one.limit) for one in own] == [("active_runs", 1, 1), ("running_steps", 1, 1)]


async def test_the_configuration_overrides_them():
    async with Env(here, limits=Limits(workflows={"few": Own(2, 2), "worker": Own(1)})) as env:
        for name in "ab":
            await start(env, name, "few")
        await start(env, "c")
        with pytest.raises(Unavailable, match="its active_runs = 1"):
            await start(env, "d")


@pytest.mark.parametrize("limit", [0, -1, True, "5", 1.5])
def test_a_limit_is_a_number_from_one(limit):
    with pytest.raises(InvalidDefinition, match="active_runs is a whole number from 1"):
        workflow("bad", active_runs=limit)(worker.function)


# ---- steps


async def test_steps_take_turns_and_all_are_run():
    async with Env(here, limits=Limits(running_steps=3)) as env:
        run = await env.start("fan", {"name": "p", "width": 10})
        await trio.sleep(1)
        waits = [wait.what for wait in await env.waits(run)]
        assert sum("its turn to run" in what for what in waits) == 7
        steps = (await env.engine.status()).limits[1]
        assert (steps.used, steps.limit, steps.waiting) == (3, 3, 7)
        assert env.engine.metrics.steps_waiting.value == 7
        await env.result(run)
        assert (peak[1], len(order)) == (3, 10)
        assert [set(order[at : at + 3]) for at in (0, 3, 6)] == [{f"p{at + n}" for n in range(3)} for at in (0, 3, 6)]
        assert env.engine.slots.used == env.engine.slots.waiting == 0


async def test_steps_of_a_higher_priority_go_first():
    async with Env(here, limits=Limits(running_steps=1)) as env:
        waiting = [
            await env.start("waiter", name, priority=priority)
            for name, priority in [("low", -5), ("mid", 0), ("high", 5)]
        ]
        await env.start("fan", {"name": "p", "width": 1})
        for run in waiting:
            await env.signal(run, "go")
        for run in waiting:
            await env.result(run)
        assert order == ["p0", "high", "mid", "low"]


async def test_while_no_step_may_run_new_starts_wait():
    async with Env(here, limits=Limits(running_steps=1)) as env:
        await env.start("worker", {"name": "a", "seconds": 60})
        await trio.sleep(1)
        with pytest.raises(Unavailable, match=r"limits\.running_steps = 1"):
            await start(env, "b")
        assert len((await env.engine.runs(RunFilter())).items) == 1


async def test_a_workflow_with_few_steps_holds_up_no_other():
    limits = Limits(running_steps=4, workflows={"fan": Own(running_steps=1)})
    async with Env(here, limits=limits) as env:
        fanned = await env.start("fan", {"name": "p", "width": 3})
        await trio.lowlevel.checkpoint()
        others = [await start(env, name) for name in "xyz"]
        await trio.sleep(5)
        assert sorted(order) == ["p0", "x", "y", "z"]
        for run in [fanned, *others]:
            await env.result(run)
        assert order[4:] == ["p1", "p2"]


async def test_a_step_that_waits_for_its_turn_can_be_cancelled_and_has_done_nothing():
    async with Env(here, limits=Limits(running_steps=1)) as env:
        run = await env.start("fan", {"name": "p", "width": 3})
        await trio.sleep(1)
        await env.cancel(run)
        assert (await env.ended(run)).status is Status.CANCELLED
        assert order[0] == "p0"
        assert not {"p1", "p2", "undo p1", "undo p2"} & set(order)
        assert (env.engine.slots.used, env.engine.slots.waiting) == (0, 0)


async def test_a_run_with_steps_in_line_can_be_terminated_paused_and_resumed():
    async with Env(here, limits=Limits(running_steps=1)) as env:
        first = await env.start("fan", {"name": "p", "width": 3})
        await trio.sleep(1)
        await env.pause(first)
        await trio.sleep(60)
        assert order == ["p0"]
        second = await env.start("fan", {"name": "q", "width": 3})
        await env.resume(first)
        await trio.sleep(1)
        await env.terminate(first)
        assert env.engine.slots.waiting == 2
        await env.result(second)
        assert (env.engine.slots.used, env.engine.slots.waiting) == (0, 0)


async def test_a_lent_task_waits_for_its_turn_too():
    async with Env(here, limits=Limits(running_steps=1)) as env:
        waiting = [await start(env, name, "waiter") for name in "abc"]
        for run in waiting:
            await env.signal(run, "go")
        for run in waiting:
            await env.signal(run, "go")  # while it waits in line, it is alive
            await env.result(run)
        assert (peak[1], order) == (1, ["a", "b", "c"])


async def test_a_recovered_step_waits_its_turn_and_is_never_refused():
    async with CrashEnv([here], []) as env:
        env._limits = Limits(active_runs=1, running_steps=2)
        runs = [await start(env, name) for name in "abcde"]
        await trio.sleep(1)
        env._mortal._deaths = [(1, "before")]
        peak[1] = 0
        for run in runs:
            await env.result(run)
        assert sorted(set(order)) == list("abcde")
        assert peak[1] == 2
