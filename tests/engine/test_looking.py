"""Looking at runs: why they wait, queries, results, timelines, lists."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import Context, query, workflow
from jivsd.engine.api import Invalid, NotFound
from jivsd.records import Kind, Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@workflow("waits")
async def waits(ctx: Context, what: str) -> None:
    match what:
        case "sleep":
            await ctx.sleep("1h")
        case "signal":
            await ctx.wait_signal("go")
        case "until":
            await ctx.wait_until(lambda: False)
        case "child":
            await ctx.run("waits", "sleep")
        case "step":
            await ctx.step(commands.linger.options(timeout="1h"), 1000)
        case "deadline":
            with ctx.move_on_after("1h"):
                await ctx.wait_signal("go")
        case "shut out":
            with ctx.move_on_after("5s"):
                await ctx.step(commands.dig, 1000)
        case _:
            raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        ("sleep", {("timer", "time", 3600)}),
        ("signal", {("signal", "signal 'go'", None)}),
        ("until", {("until", "a condition on the run's own state", None)}),
        ("child", {("child", "child run of workflow 'waits'", None)}),
        ("step", {("step", "step linger", None)}),
        ("deadline", {("signal", "signal 'go'", None), ("timer", "a deadline", 3600)}),
    ],
)
@pytest.mark.parametrize("live", [True, False])
async def test_why(what, wanted, live):
    async with Env(here) as env:
        run = await env.start("waits", what)
        await trio.sleep(1)
        row = await env.show(run)
        if not live:
            actor = env.engine.actors.pop(run)
        found = {
            (wait.kind, wait.what, None if wait.until is None else round((wait.until - row.created_at) / 1e6))
            for wait in await env.waits(run)
        }
        if not live:
            env.engine.actors[run] = actor
        assert found == wanted
        await env.terminate(run)
        await env.ended(run)
        assert await env.waits(run) == []


async def test_a_query_asks_the_living_and_the_dead_and_wakes_nobody():
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("talk", 2, id="t")
        await env.signal(run, "vote", "ann")
        await trio.testing.wait_all_tasks_blocked()
        live = await env.engine.query("talk:t", "tally")
        assert (bytes(live.value), live.seq) == (b'["ann"]', 2)
        actor = env.engine.actors.pop(run)
        replayed = await env.engine.query(run, "tally")
        assert replayed == live
        env.engine.actors[run] = actor
        await env.signal(run, "vote", "bob")
        await env.signal(run, "word", {"text": "x"})
        await env.signal(run, "word", {"text": "y"})
        await env.result(run)
        assert await env.query(run, "tally") == ["ann", "bob"]
        assert run not in env.engine.actors


async def test_queries_that_cannot_be_answered():
    async with Env(commands, here) as env:
        run = await env.start("talk", 2)
        with pytest.raises(NotFound, match="has no query 'nothing'; it has: broken, tally"):
            await env.query(run, "nothing")
        with pytest.raises(Invalid, match="query 'broken' failed: ValueError: cannot say"):
            await env.query(run, "broken")
        with pytest.raises(Invalid, match="invalid input"):
            await env.query(run, "tally", {"what": 1})
        with pytest.raises(NotFound, match="there is no run"):
            await env.query("nobody", "tally")
        with pytest.raises(NotFound, match="it has: none"):
            await env.query(await env.start("waits", "sleep"), "tally")
        cheat = await env.start("cheat")
        with pytest.raises(Invalid, match="outside its workflow's code"):
            await env.query(cheat, "when")
        assert await env.query(run, "tally") == []  # and nobody is harmed


@workflow("cheat")
class Cheat:
    def __init__(self) -> None:
        self.ctx: Any = None

    @query
    def when(self) -> str:
        return str(self.ctx.now())

    async def run(self, ctx: Context) -> None:
        self.ctx = ctx
        await ctx.sleep("1h")


async def test_result_waits_as_long_as_it_is_told_to():
    async with Env(here) as env:
        run = await env.start("waits", "sleep")
        began = trio.current_time()
        row = await env.engine.result(run, 10)
        assert (row.status, trio.current_time() - began) == (Status.RUNNING, pytest.approx(10))
        row = await env.engine.result(run, 10_000)
        assert (row.status, trio.current_time() - began) == (Status.COMPLETED, pytest.approx(3600, abs=0.1))
        assert (await env.engine.result(run, 0)).status is Status.COMPLETED
        with pytest.raises(NotFound):
            await env.engine.result("nobody", 1)


async def test_many_may_wait_for_one_result_and_give_up():
    async with Env(here) as env:
        run = await env.start("waits", "sleep", id="w")
        found: list[Status] = []

        async def wait(seconds: float) -> None:
            found.append((await env.engine.result("waits:w", seconds)).status)

        async with trio.open_nursery() as nursery:
            for seconds in (5, 10_000, 20_000):
                nursery.start_soon(wait, seconds)
            with trio.move_on_after(1):
                await env.engine.result(run, 100)
        assert sorted(found) == [Status.COMPLETED, Status.COMPLETED, Status.RUNNING]
        assert not env.engine.waiters._waiting


async def test_timelines_come_in_pages():
    commands.fresh_world()
    async with Env(commands) as env:
        run = await env.start("everything", "Ann")
        await env.result(run)
        after, kinds = 0, []
        while True:
            page = await env.engine.timeline(run, after, 7)
            kinds += [event.kind for event in page.items]
            if page.next is None:
                break
            assert len(page.items) == 7
            after = page.next
        assert kinds == [event.kind for event in await env.events(run)]
        assert (kinds[0], kinds[-1]) == (Kind.STARTED, Kind.ENDED)


async def test_runs_are_listed_and_found_by_reference():
    async with Env(here) as env:
        old = await env.start("waits", "sleep", id="same")
        await env.ended(old)
        new = await env.start("waits", "signal", id="same")
        assert (await env.show("waits:same")).run_id == new
        assert (await env.show(old)).status is Status.COMPLETED
        await env.terminate(new)
        await env.ended(new)
        assert (await env.show("waits:same")).run_id == new
        listed = await env.engine.runs(RunFilter(workflow_id="same"))
        assert [run.run_id for run in listed.items] == [new, old]
        with pytest.raises(NotFound, match="there is no run 'waits:other'"):
            await env.show("waits:other")


async def test_status_and_workflows():
    async with Env(commands, here) as env:
        await env.start("waits", "step")
        await trio.sleep(1)
        status = await env.engine.status()
        assert (status.runs, status.actors, status.steps_running) == ({"RUNNING": 1}, 1, 1)
        assert (status.node, status.incidents, status.store_away) == ("test", 0, None)
        (talk,) = [one for one in env.engine.workflows() if one.name == "talk"]
        assert (talk.signals, talk.queries, talk.plugin) == (["vote", "word"], ["broken", "tally"], "commands")
        assert talk.input_schema == {"type": "integer"}
