"""Child runs: their ends, and what the parent's end means for them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from jivsd import NO_RETRY, ChildFailed, Context, Failure, StepContext, step, workflow
from jivsd.records import Kind, Status, derived_id, hash_of, payload_of
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

log: list[str] = []


@step
async def do(what: str, seconds: float = 0) -> str:
    await trio.sleep(seconds)
    log.append(f"do {what}")
    return what


@do.compensate
async def undo(did: str | None, what: str, seconds: float) -> None:
    log.append(f"undo {what}")


@step(retry=NO_RETRY)
async def break_down() -> None:
    raise Failure("broken")


@step
async def take_back(ctx: StepContext, output: str | None, how: str, seconds: float) -> None:
    log.append(f"take back {how} {output}")


@workflow("kid")
async def kid(ctx: Context, how: str, seconds: float = 10) -> str:
    await ctx.step(do, f"kid {how}")
    await ctx.sleep(seconds)
    if how == "bad":
        raise Failure("bad kid", reason="born so")
    return f"grown {how}"


@workflow("parent")
async def parent(ctx: Context, how: str, then: str = "") -> Any:
    await ctx.step(do, "parent")
    try:
        grown = await ctx.run(kid.options(compensate=take_back), how)
    except ChildFailed as error:
        return [str(error), error.data["status"], error.data.get("type")]
    if then == "fail":
        await ctx.step(break_down)
    return grown


async def family(env: Env) -> list[tuple[str, str]]:
    runs = (await env.engine.runs(RunFilter(), 100)).items
    return sorted((run.workflow, str(run.status)) for run in runs)


async def test_a_child_is_a_run_of_its_own_with_a_derived_id():
    log.clear()
    async with Env(here) as env:
        run = await env.start("parent", {"how": "good"}, correlation_id="order-7")
        assert await env.result(run) == "grown good"
        child = await env.show(derived_id(run, "kid"))
        assert (child.workflow, child.status, child.workflow_id) == ("kid", Status.COMPLETED, child.run_id)
        assert (child.options.parent, child.options.parent_path) == (run, "kid")
        assert child.options.correlation_id == "order-7"
        (started,) = [event for event in await env.events(child.run_id) if event.kind == Kind.STARTED]
        assert started.by == f"parent {run}"
        children = await env.engine.runs(RunFilter(parent=run))
        assert [one.run_id for one in children.items] == [child.run_id]
        ended = [payload_of(event) for event in await env.events(run) if event.kind == Kind.CHILD_ENDED]
        assert [(one.run_id, one.status) for one in ended] == [(child.run_id, Status.COMPLETED)]
        assert ended[0].args_hash == child.options.parent_args == hash_of(bytes(child.input))


async def test_a_failing_child_compensates_itself_and_raises_in_its_parent():
    log.clear()
    async with Env(here) as env:
        message, status, kind = await env.result(await env.start("parent", {"how": "bad"}))
        assert message.endswith("ended COMPENSATED: bad kid")
        assert (status, kind) == ("COMPENSATED", "Failure")
        assert log == ["do parent", "do kid bad", "undo kid bad"]


async def test_a_completed_child_is_undone_only_by_the_calls_compensation():
    log.clear()
    async with Env(here) as env:
        run = await env.start("parent", {"how": "good", "then": "fail"})
        assert (await env.ended(run)).status is Status.COMPENSATED
        assert log == ["do parent", "do kid good", "take back good grown good", "undo parent"]
        assert await family(env) == [("kid", "COMPLETED"), ("parent", "COMPENSATED")]


@pytest.mark.parametrize("how", ["cancel", "terminate", "timeout"])
async def test_what_befalls_a_parent_befalls_its_child_first(how):
    log.clear()
    async with Env(here) as env:
        options = {"timeout": "5s"} if how == "timeout" else {}
        run = await env.start("parent", {"how": "good"}, **options)
        await trio.sleep(3)
        if how != "timeout":
            await getattr(env, how)(run)
        row = await env.ended(run)
        wanted = {"cancel": "CANCELLED", "terminate": "TERMINATED", "timeout": "TIMED_OUT"}[how]
        child = "CANCELLED" if how == "timeout" else wanted
        await trio.testing.wait_all_tasks_blocked()
        assert await family(env) == [("kid", child), ("parent", wanted)]
        assert row.ended_at is not None
        kid_row = await env.show(derived_id(run, "kid"))
        if how == "terminate":
            assert log == ["do parent", "do kid good"]
        else:
            assert log == ["do parent", "do kid good", "undo kid good", "undo parent"]
            assert kid_row.ended_at is not None
            assert kid_row.ended_at <= row.ended_at


@workflow("siblings")
async def siblings(ctx: Context) -> list[str]:
    async with ctx.nursery("kids") as kids:
        jobs = [kids[how].start_soon(kid, how, seconds) for how, seconds in (("slow", 100), ("bad", 5), ("quick", 1))]
    return [job.result for job in jobs]


async def test_a_failing_child_cancels_its_siblings_and_their_ends_are_awaited():
    log.clear()
    async with Env(here) as env:
        run = await env.start("siblings")
        row = await env.ended(run)
        assert row.status is Status.FAILED
        assert await family(env) == [
            ("kid", "CANCELLED"),
            ("kid", "COMPENSATED"),
            ("kid", "COMPLETED"),
            ("siblings", "FAILED"),
        ]


async def test_an_ended_child_that_others_end_is_reported():
    async with Env(here) as env:
        for how, status in (("cancel", "CANCELLED"), ("terminate", "TERMINATED")):
            run = await env.start("parent", {"how": "good"})
            await trio.sleep(3)
            await getattr(env, how)(derived_id(run, "kid"))
            assert (await env.result(run))[1] == status


@workflow("named")
async def named(ctx: Context, name: str) -> Any:
    try:
        return await ctx.run(kid.options(id=name, timeout="3s"), "good")
    except ChildFailed as error:
        return [str(error), error.data["status"]]


async def test_a_child_under_a_workflow_id_that_is_open_is_refused():
    async with Env(here) as env:
        await env.start("kid", {"how": "first"}, id="taken")
        message, status = await env.result(await env.start("named", "taken"))
        assert status == "FAILED"
        assert "refused: open (run " in message


async def test_a_child_under_an_id_of_its_own_is_cancelled_like_any_other():
    async with Env(here) as env:
        run = await env.start("named", "mine")
        await trio.sleep(1)
        await env.cancel(run)
        assert (await env.ended(run)).status is Status.CANCELLED
        assert (await env.ended("kid:mine")).status is Status.CANCELLED


async def test_a_childs_own_timeout_holds():
    async with Env(here) as env:
        _, status = await env.result(await env.start("named", "free"))
        assert status == "TIMED_OUT"


@workflow("by-name")
async def by_name(ctx: Context, workflow: str, input: Any) -> Any:
    try:
        return await ctx.run(workflow, input)
    except ChildFailed as error:
        return str(error)


@pytest.mark.parametrize(
    ("workflow", "input", "wanted"),
    [
        ("kid", {"how": "by name"}, "grown by name"),
        ("nobody", None, "there is no workflow 'nobody'"),
        ("kid", {"how": 7}, "Expected `str`, got `int` - at `$.how`"),
        ("kid", {"how": "x", "sort": "y"}, "unknown field"),
    ],
)
async def test_a_child_by_name_is_checked_when_it_is_started(workflow, input, wanted):
    async with Env(here) as env:
        assert wanted in await env.result(await env.start("by-name", {"workflow": workflow, "input": input}))


@workflow("grandparent")
async def grandparent(ctx: Context) -> Any:
    return await ctx.run(parent, "good")


async def test_cancelling_reaches_grandchildren():
    log.clear()
    async with Env(here) as env:
        run = await env.start("grandparent")
        await trio.sleep(3)
        await env.cancel(run)
        await env.ended(run)
        assert await family(env) == [("grandparent", "CANCELLED"), ("kid", "CANCELLED"), ("parent", "CANCELLED")]
        assert log == ["do parent", "do kid good", "undo kid good", "undo parent"]


@workflow("impatient")
async def impatient(ctx: Context) -> bool:
    with ctx.move_on_after("3s") as scope:
        await ctx.run(kid, "good")
    return scope.cancelled


async def test_a_cancelled_call_waits_for_the_childs_end():
    log.clear()
    async with Env(here) as env:
        run = await env.start("impatient")
        assert await env.result(run) is True
        assert await family(env) == [("impatient", "COMPLETED"), ("kid", "CANCELLED")]
        assert log == ["do kid good", "undo kid good"]
