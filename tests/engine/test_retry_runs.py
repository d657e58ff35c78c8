"""Retry of runs that failed: a new run that begins where the old one was last well."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, ChildFailed, Context, Failure, StepContext, step, workflow
from jivsd.engine.api import Conflict
from jivsd.records import Kind, Status, payload_of
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

broken: set[str] = set()
log: list[Any] = []


class Broken(Failure):
    pass


@step(retry=NO_RETRY)
async def use(ctx: StepContext, machine: str) -> str:
    log.append((ctx.path, ctx.idempotency_key))
    await trio.sleep(1)
    if machine in broken:
        raise Broken(f"{machine} is broken")
    return f"used {machine}"


@workflow("line", timeout="1h")
async def line(ctx: Context, how: str) -> list[Any]:
    found: list[Any] = [await ctx.step(use, "press"), ctx.random.random(), await ctx.side_effect(lambda: 3)]
    await ctx.sleep("10s")
    match how:
        case "plain":
            found.append(await ctx.step(use, "mill"))
        case "caught before":
            try:
                await ctx.step(use, "mill")
            except Broken:
                found.append(await ctx.step(use, "press"))
            found.append(await ctx.step(use, "mill"))
        case "wrapped":
            try:
                found.append(await ctx.step(use, "mill"))
            except Broken as error:
                raise ValueError("the line stands still") from error
        case "nursery":
            async with ctx.nursery() as nursery:
                nursery["quick"].start_soon(use.options(name="quick"), "saw")
                nursery["mill"].start_soon(use, "mill")
                nursery["slow"].start_soon(slow, ctx)
        case "child":
            found.append(await ctx.run("part"))
        case "side effect":
            found.append(await ctx.side_effect(check_mill))
        case _:
            raise Broken("the code's own error")
    return found


async def slow(ctx: Context) -> str:
    await ctx.sleep("3s")
    return await ctx.step(use, "drill")


def check_mill() -> str:
    if "mill" in broken:
        raise Broken("mill is broken")
    return "checked"


@workflow("part")
async def part(ctx: Context) -> str:
    return await ctx.step(use, "mill")


async def failed(env: Env, how: str, **options: Any) -> str:
    broken.add("mill")
    log.clear()
    run = await env.start("line", how, id=how, **options)
    assert (await env.ended(run)).status is Status.FAILED
    broken.clear()
    return run


@pytest.mark.parametrize("how", ["plain", "caught before", "wrapped", "nursery", "child", "side effect"])
async def test_a_failed_run_goes_on_before_what_failed(how):
    async with Env(here) as env:
        run = await failed(env, how)
        before = dict(log)
        log.clear()
        again = await env.retry(run)
        assert again != run
        found = await env.result(again)
        assert found[2] == 3
        events = await env.events(again)
        (reset,) = [event for event in events if event.kind == Kind.RESET]
        assert (payload_of(reset).source, reset.by) == (run, "test")
        kept = [event for event in events if event.seq < reset.seq]
        old = [event.payload for event in await env.events(run)]
        assert all(event.payload in old for event in kept)
        if how != "child":
            assert "use" not in dict(log)  # the press was used before, and its record holds
        if how != "child":
            assert all(before.get(path, key) == key for path, key in log)  # the seed stays
        assert (await env.show(run)).status is Status.FAILED
        assert (await env.show(f"line:{how}")).run_id == again
        if how == "nursery":
            assert [path for path, _ in log].count("nursery[quick]/quick") == 0


async def test_an_error_of_the_codes_own_comes_again():
    async with Env(here) as env:
        run = await failed(env, "own error")
        log.clear()
        again = await env.retry(run)
        row = await env.ended(again)
        assert row.status is Status.FAILED
        assert log == []


async def test_once_a_compensation_has_begun_it_starts_afresh_with_a_new_seed():
    world = commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("trip", "bad", id="t")
        assert (await env.ended(run)).status is Status.COMPENSATED
        first = {path.partition(" ")[2]: keys for path, keys in world.keys.items()}
        world.keys.clear()
        again = await env.retry(run)
        assert (await env.ended(again)).status is Status.COMPENSATED
        second = {path.partition(" ")[2]: keys for path, keys in world.keys.items()}
        assert first.keys() == second.keys()
        assert all(first[path] != second[path] for path in first)
        assert len(world.undone) == 6


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_run_that_others_ended_starts_afresh(how):
    async with Env(here) as env:
        log.clear()
        run = await env.start("line", "plain")
        await trio.sleep(5)
        await getattr(env, how)(run)
        await env.ended(run)
        again = await env.retry(run)
        assert (await env.result(again))[0] == "used press"
        assert [path for path, _ in log] == ["use", "use", "use#2"]


async def test_what_is_not_retried():
    async with Env(here) as env:
        run = await env.start("line", "plain", id="one")
        with pytest.raises(Conflict, match="is RUNNING; only a failed one is retried"):
            await env.retry(run)
        await env.result(run)
        with pytest.raises(Conflict, match="is COMPLETED; only a failed one is retried"):
            await env.retry(run)
        run = await failed(env, "plain")
        other = await env.start("line", "plain", id="plain")
        with pytest.raises(Conflict, match="has an open run") as caught:
            await env.retry(run)
        assert caught.value.data["run_id"] == other


async def test_two_retries_at_once_make_one_run():
    async with Env(here) as env:
        run = await failed(env, "plain")
        found: list[str] = []

        async def retry() -> None:
            try:
                found.append(await env.retry(run))
            except Conflict as error:
                found.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(retry)
            nursery.start_soon(retry)
        assert found.count("open") == 1


async def test_the_time_of_a_retried_run_begins_again():
    async with Env(here) as env:
        run = await failed(env, "plain")
        await trio.sleep(10_000)  # the old run's hour is long over
        again = await env.retry(run)
        assert (await env.result(again))[-1] == "used mill"
        run = await failed(env, "child")
        await trio.sleep(10_000)
        broken.add("mill")
        again = await env.retry(run)
        assert (await env.ended(again)).status is Status.FAILED
        broken.clear()


async def test_a_retried_run_waits_for_its_turn_at_the_lock():
    commands.fresh_world().broken.add("mill")
    async with Env(commands) as env:
        run = await env.start("repairable", "mill", id="r")
        holder = await env.start("patient", 3600)
        assert (await env.ended(run)).status is Status.FAILED
        commands.world.broken.clear()
        executed = dict(commands.world.executed)
        again = await env.retry(run)
        await trio.sleep(60)
        assert (await env.show(again)).status is Status.PENDING
        (wait,) = [wait for wait in await env.waits(again) if wait.kind == "lock"]
        assert wait.behind == [holder]
        assert commands.world.executed == executed
        await env.result(holder)
        await env.signal(again, "done", "yes")
        assert (await env.result(again))[-1] == "yes"


async def test_signals_that_came_after_the_failure_are_not_lost():
    async with Env(here) as env:
        broken.add("mill")
        run = await env.start("fails-late", id="l")
        await trio.sleep(1.5)  # one branch has failed, the other is shielded and goes on
        await env.signal(run, "word", "kept")
        assert (await env.ended(run)).status is Status.FAILED
        broken.clear()
        again = await env.retry(run)
        assert await env.result(again) == ["used mill", "kept"]


@workflow("fails-late")
async def fails_late(ctx: Context) -> list[str]:
    async with ctx.nursery() as nursery:
        nursery["shielded"].start_soon(shielded, ctx)
        mill = nursery["mill"].start_soon(use, "mill")
    return [mill.result, await ctx.wait_signal("word", str)]


async def shielded(ctx: Context) -> None:
    with ctx.shield():
        await ctx.sleep("5s")


async def test_a_step_in_doubt_is_in_doubt_in_the_new_run_too():
    world = commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("lingers", 100)
        await env.ended(run)
        assert world.undone == ["linger: None True"]  # so that it starts afresh
        again = await env.retry(run)
        kinds = [event.kind for event in await env.events(again)]
        assert kinds[:2] == [Kind.STARTED, Kind.RESET]


async def test_a_childs_retry_is_no_business_of_the_parent_that_had_its_end():
    async with Env(here) as env:
        broken.add("mill")
        run = await env.start("asks-child")
        await trio.sleep(5)
        (child,) = (await env.engine.runs(RunFilter(parent=run))).items
        assert child.status is Status.FAILED
        broken.clear()
        again = await env.retry(child.run_id)
        assert await env.result(again) == "used mill"
        assert await env.result(run) == "it failed"
        ends = [event for event in await env.events(run) if event.kind == Kind.CHILD_ENDED]
        assert len(ends) == 1


@workflow("asks-child")
async def asks_child(ctx: Context) -> str:
    try:
        return await ctx.run("part")
    except ChildFailed:
        await ctx.sleep("1h")
        return "it failed"
