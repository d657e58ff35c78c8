"""Runs that are let go, signals from run to run, and waits that end by themselves."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from jivsd import ChildFailed, Context, NotDelivered, StepContext, TimedOut, query, signal, step, workflow
from jivsd.records import Kind, Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@workflow("echo", signals={"say": str})
class Echo:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @signal
    def hear(self, what: str) -> None:
        self.heard.append(what)

    @query
    def all(self) -> list[str]:
        return self.heard

    async def run(self, ctx: Context, name: str) -> list[str]:
        return [await ctx.wait_signal("say", str), *self.heard, name]


@workflow("starter")
async def starter(ctx: Context, how: str) -> str:
    echo = Echo.options(id="the echo") if how == "taken" else Echo
    try:
        run = await (ctx.start_child("echo", "by name") if how == "name" else ctx.start_child(echo, how))
    except ChildFailed as error:
        return f"refused: {error}"
    await ctx.signal(run, "hear", "one")
    await ctx.signal(run, "hear", "two")
    if how == "speaks":
        await ctx.signal(run, "say", "hello")
    elif how == "fails":
        raise ValueError("the starter fails")
    elif how == "waits":
        await ctx.sleep("1d")
    return run


@workflow("sender")
async def sender(ctx: Context, to: str, name: str, payload: Any) -> str:
    try:
        await ctx.signal(to, name, payload)
    except NotDelivered as error:
        return f"{error.data['code']}: {error}"
    return "delivered"


async def found(env: Env) -> str:
    (run,) = (await env.engine.runs(RunFilter(workflow="echo"))).items
    return run.run_id


@pytest.mark.parametrize("how", ["speaks", "name", "fails", "cancel", "terminate"])
async def test_a_run_that_was_let_go_lives_on_whatever_becomes_of_its_starter(how):
    async with Env(here) as env:
        first = await env.start("starter", "waits" if how in ("cancel", "terminate") else how, correlation_id="x")
        await env.sleep("1s")
        if how in ("cancel", "terminate"):
            await getattr(env, how)(first)
        await env.ended(first)
        run = await found(env)
        row = await env.show(run)
        assert (row.options.parent, row.options.correlation_id) == (None, "x")
        if how != "speaks":
            assert row.status is Status.RUNNING
            await env.signal(run, "say", "hello")
        assert (await env.result(run))[:3] == ["hello", "one", "two"]
        assert (await env.events(run))[0].by == f"run {first}"
        if how == "speaks":
            assert await env.result(first) == run


async def test_a_workflow_id_that_is_open_is_the_starters_own_error():
    async with Env(here) as env:
        other = await env.start("echo", "x", id="the echo")
        assert await env.result(await env.start("starter", "taken")) == (
            f"refused: run of 'echo' was refused: open (run {other})"
        )


async def test_a_paused_run_starts_and_sends_nothing():
    async with Env(here) as env:
        run = await env.start("starter", "speaks")
        await env.pause(run)
        before = len((await env.engine.runs(RunFilter(workflow="echo"))).items)
        await env.sleep("1h")
        assert before <= 1
        await env.resume(run)
        assert (await env.result(await env.result(run)))[0] == "hello"


@pytest.mark.parametrize(
    ("to", "name", "payload", "result"),
    [
        ("echo:e", "hear", "a", "delivered"),
        ("echo:e", "hear", 5, "invalid: workflow 'echo', signal 'hear'"),
        ("echo:e", "say", 5, "invalid: signal 'say'"),
        ("echo:nobody", "hear", "a", "not_found: there is no run 'echo:nobody'"),
        ("nobody", "hear", "a", "not_found: there is no run 'nobody'"),
        ("echo:gone", "hear", "a", "ended: run"),
    ],
)
async def test_what_cannot_be_delivered_is_the_senders_own_error(to, name, payload, result):
    async with Env(here) as env:
        await env.start("echo", "x", id="e")
        await env.terminate(await env.start("echo", "x", id="gone"))
        sent = await env.start("sender", {"to": to, "name": name, "payload": payload})
        assert (await env.result(sent)).startswith(result)
        assert await env.query("echo:e", "all") == (["a"] if result == "delivered" else [])


async def test_a_run_can_send_itself_a_signal():
    async with Env(here) as env:
        run = await env.start("sender", {"to": "sender:self", "name": "x", "payload": 1}, id="self")
        assert await env.result(run) == "delivered"
        assert Kind.SIGNAL in [event.kind for event in await env.events(run)]


# ---- waits


@step
async def slow(ctx: StepContext, seconds: int) -> str:
    await trio.sleep(seconds)
    return "done"


@step(cancel="wait")
async def stubborn(ctx: StepContext, seconds: int) -> str:
    return await slow.function(ctx, seconds)


@workflow("late")
async def late(ctx: Context, wait: str, timeout: str, how: str) -> str:
    """Each wait, in each way of giving it an end."""
    try:
        if how == "short":
            match wait:
                case "signal":
                    await ctx.wait_signal("never", timeout=timeout)
                case "until":
                    await ctx.wait_until(lambda: False, timeout=timeout)
                case _:
                    async with ctx.lock("taken", timeout=timeout):
                        pass
        elif how == "fail":
            with ctx.fail_after(timeout):
                await WAITS[wait](ctx)
        else:
            with ctx.move_on_after(timeout) as scope:
                await WAITS[wait](ctx)
            return "timed out" if scope.cancelled else "in time"
    except TimedOut:
        return "timed out"
    return "in time"


async def nursery(ctx: Context) -> None:
    async with ctx.nursery() as children:
        children.start_soon(ctx.wait_signal, "never")
        children.start_soon(slow, 60)


async def race(ctx: Context) -> None:
    async with ctx.race() as runners:
        runners.start_soon(ctx.sleep, 60)
        runners.start_soon(ctx.wait_signal, "never")


async def lock(ctx: Context) -> None:
    async with ctx.lock("taken"):
        pass


WAITS = {
    "signal": lambda ctx: ctx.wait_signal("never"),
    "until": lambda ctx: ctx.wait_until(lambda: False),
    "sleep": lambda ctx: ctx.sleep(60),
    "step": lambda ctx: ctx.step(slow, 60),
    "stubborn step": lambda ctx: ctx.step(stubborn, 60),
    "child": lambda ctx: ctx.run("echo", "child"),
    "nursery": nursery,
    "race": race,
    "lock": lock,
}
SHORT = ["signal", "until", "lock"]
EACH = [(wait, how) for wait in WAITS for how in ("fail", "move on")] + [(wait, "short") for wait in SHORT]


@workflow("holder")
async def holder(ctx: Context) -> None:
    async with ctx.lock("taken"):
        await ctx.wait_signal("give back")


@pytest.mark.parametrize("timeout", ["5s", "0s"])
@pytest.mark.parametrize(("wait", "how"), EACH)
async def test_every_wait_can_have_an_end(wait, how, timeout):
    async with Env(here) as env:
        await env.start("holder")
        await env.sleep("1s")
        began = env.now
        assert await env.result(await env.start("late", {"wait": wait, "timeout": timeout, "how": how})) == "timed out"
        assert (env.now - began).total_seconds() == pytest.approx(float(timeout[0]), abs=0.1)
        assert len(await env.store.lock_queue()) == 1


@workflow("limited", timeout="5s")
async def limited(ctx: Context, wait: str) -> None:
    await WAITS[wait](ctx)


@pytest.mark.parametrize("wait", WAITS)
async def test_every_wait_ends_with_the_runs_time(wait):
    async with Env(here) as env:
        await env.start("holder")
        await env.sleep("1s")
        began = env.now
        assert (await env.ended(await env.start("limited", wait))).status is Status.TIMED_OUT
        assert (env.now - began).total_seconds() == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize("how", ["fail", "short"])
def test_no_crash_makes_a_wait_longer(how, passivate_after):
    async def scenario(env):
        await env.start("holder", id="h")
        await env.sleep("1s")
        waits = WAITS if how == "fail" else SHORT
        runs = [await env.start("late", {"wait": wait, "timeout": "5s", "how": how}) for wait in waits]
        assert [await env.result(run) for run in runs] == ["timed out"] * len(runs)
        await env.signal("holder:h", "give back")
        await env.result("holder:h")

    assert crash_everywhere([here], scenario, passivate_after=passivate_after) > 10


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
def test_no_crash_starts_twice_or_tells_twice(passivate_after):
    async def scenario(env):
        first = await env.start("starter", "speaks")
        run = await env.result(first)
        assert await env.result(run) == ["hello", "one", "two", "speaks"]
        await env.start("echo", "x", id="the echo")
        assert (await env.result(await env.start("starter", "taken"))).startswith("refused")
        assert (await env.result(await env.start("sender", {"to": "echo:no", "name": "x", "payload": 1})))[:3] == "not"

    assert crash_everywhere([here], scenario, passivate_after=passivate_after) > 10
