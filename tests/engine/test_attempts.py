"""Attempts: retries and their times, timeouts, steps in doubt, transaction steps."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, Context, Failure, Retry, StepContext, TimedOut, Transaction, step, workflow
from jivsd.clock import SECOND
from jivsd.records import Kind, Status, payload_of
from jivsd.testing import Env, RunFailed
from jivsd.testing.env import EPOCH

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

seen: list[Any] = []


class Stubborn(Failure):
    pass


class Final(Failure):
    pass


@step(retry=Retry(attempts=5, first="2s", factor=3, limit="10s", jitter=0, give_up_on=(Final,)))
async def stubborn(ctx: StepContext, succeeds_at: int, gives_up_at: int = 99) -> int:
    seen.append((ctx.attempt, ctx.idempotency_key, trio.current_time()))
    if ctx.attempt >= gives_up_at:
        raise Final("never")
    if ctx.attempt < succeeds_at:
        raise Stubborn("no", attempt=ctx.attempt)
    return ctx.attempt


@workflow("stubborn")
async def stubbornly(ctx: Context, succeeds_at: int, gives_up_at: int = 99) -> int:
    try:
        return await ctx.step(stubborn, succeeds_at, gives_up_at)
    except Stubborn as error:
        return -error.data["attempt"]


async def test_retries_are_durable_timers_at_exact_times():
    seen.clear()
    async with Env(here) as env:
        run = await env.start("stubborn", {"succeeds_at": 5})
        assert await env.result(run) == 5
        began = seen[0][2]
        assert [round(at - began, 3) for _, _, at in seen] == [0, 2, 8, 18, 28]
        assert len({key for _, key, _ in seen}) == 1
        events = await env.events(run)
        assert [event.attempt for event in events[1:-1]] == [1, 2, 3, 4, 5]
        due = [payload_of(event).next_at for event in events[1:5]]
        assert [at - EPOCH for at in due] == [round((began + after) * SECOND) for after in (2, 8, 18, 28)]


async def test_used_up_retries_raise_the_last_error_with_its_data():
    async with Env(here) as env:
        run = await env.start("stubborn", {"succeeds_at": 6})
        assert await env.result(run) == -5
        assert [event.kind for event in await env.events(run)].count(Kind.ATTEMPT_FAILED) == 4


async def test_an_error_to_give_up_on_ends_the_retries():
    async with Env(here) as env:
        run = await env.start("stubborn", {"succeeds_at": 6, "gives_up_at": 2})
        row = await env.ended(run)
        assert row.status is Status.FAILED
        assert row.error is not None
        assert (row.error.type, row.error.message) == ("Final", "never")


async def test_why_names_the_next_attempt_and_the_last_error():
    async with Env(here) as env:
        run = await env.start("stubborn", {"succeeds_at": 3})
        await trio.sleep(1)
        (wait,) = await env.waits(run)
        assert (wait.kind, wait.path, wait.what) == ("retry", "stubborn", "attempt 2 of step stubborn")
        assert wait.error == "Stubborn: no"
        assert wait.until is not None
        assert wait.until / SECOND == pytest.approx(EPOCH / SECOND + 2, abs=0.01)


@step(timeout="5s", retry=Retry(attempts=2, first="1s", jitter=0))
async def endless(ctx: StepContext) -> None:
    seen.append(ctx.attempt)
    await trio.sleep_forever()


@endless.compensate
async def end_it(ctx: StepContext, nothing: None) -> None:
    seen.append(("undone", nothing, ctx.outcome_unknown))


@workflow("endless")
async def endlessly(ctx: Context) -> None:
    await ctx.step(endless)


async def test_an_attempt_whose_time_is_up_is_in_doubt_and_compensated():
    seen.clear()
    async with Env(here) as env:
        run = await env.start("endless")
        row = await env.ended(run)
        assert row.status is Status.COMPENSATED
        assert row.error is not None
        assert (row.error.type, row.error.message) == ("TimedOut", "step 'endless' took longer than 5 s")
        assert seen == [1, 2, ("undone", None, True)]
        failed = [event for event in await env.events(run) if event.kind in (Kind.ATTEMPT_FAILED, Kind.STEP_FAILED)]
        assert [payload_of(event).unknown for event in failed] == [True, True]


@step(retry=NO_RETRY)
async def definite() -> None:
    raise Stubborn("certainly nothing happened")


@definite.compensate
async def never(nothing: None) -> None:
    seen.append("must not happen")


@workflow("definite")
async def definitely(ctx: Context) -> None:
    await ctx.step(definite)


async def test_a_step_that_failed_for_certain_is_not_compensated():
    seen.clear()
    async with Env(here) as env:
        row = await env.ended(await env.start("definite"))
        assert row.status is Status.FAILED
        assert seen == []


@step(retry=NO_RETRY)
async def swallow() -> str:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        return "kept what it had"


@workflow("swallow")
async def swallows(ctx: Context) -> Any:
    with ctx.move_on_after("1s") as scope:
        return await ctx.step(swallow.options(timeout="2s"))
    return scope.cancelled


async def test_a_late_result_of_an_abandoned_step_is_recorded_and_not_handed_over():
    async with Env(here) as env:
        run = await env.start("swallow")
        assert await env.result(run) is True
        kinds = [event.kind for event in await env.events(run)]
        assert kinds == [Kind.STARTED, Kind.TIMER_FIRED, Kind.STEP_DONE, Kind.ENDED]


@step
async def leave_open() -> str:
    trio.CancelScope().__enter__()
    return "left a scope open"


@workflow("leaves-open")
async def leaves_open(ctx: Context) -> str:
    await ctx.step(leave_open.options(retry=NO_RETRY))
    return "went on"


async def test_a_step_that_leaves_a_trio_scope_open_hurts_only_itself():
    async with Env(here, commands) as env:
        other = await env.start("patient", 10)
        run = await env.start("leaves-open")
        row = await env.ended(run)
        assert row.status in (Status.FAILED, Status.COMPLETED)
        assert await env.result(other) == "booked bench"


# ---- plain steps in threads


@step
def in_a_thread(seconds: float) -> str:
    time.sleep(seconds)
    return "returned"


@step
async def in_a_transaction(tx: Transaction, item: str, amount: int) -> int:
    await tx.execute("CREATE TABLE IF NOT EXISTS purse (item TEXT, amount INTEGER)")
    await tx.execute("INSERT INTO purse VALUES (?, ?)", (item, amount))
    if amount < 0:
        raise Stubborn("nothing below zero")
    (row,) = await tx.fetch("SELECT count(*) AS lines, sum(amount) AS total FROM purse WHERE item = ?", (item,))
    return row["lines"] * 1000 + row["total"]


@step(retry=NO_RETRY)
async def foreign_await(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE strayed (a INTEGER)")
    await trio.sleep(1)


@step(retry=NO_RETRY)
async def too_long(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE slept (a INTEGER)")
    time.sleep(0.15)  # noqa: ASYNC251 -- blocking is what it must not do
    await tx.execute("INSERT INTO slept VALUES (1)")


@step(retry=NO_RETRY)
async def forbidden(tx: Transaction, sql: str) -> None:
    await tx.execute(sql)


@step
async def tables(tx: Transaction) -> list[str]:
    return [row["name"] for row in await tx.fetch("SELECT name FROM sqlite_master WHERE name IN ('strayed', 'slept')")]


@workflow("purse")
async def purse(ctx: Context, amounts: list[int]) -> list[Any]:
    found: list[Any] = []
    for amount in amounts:
        try:
            found.append(await ctx.step(in_a_transaction.options(retry=NO_RETRY), "coin", amount))
        except Stubborn as error:
            found.append(str(error))
    return found


@workflow("bad-transactions")
async def bad_transactions(ctx: Context) -> list[str]:
    found: list[str] = []
    for call in (
        ctx.step(foreign_await),
        ctx.step(too_long),
        ctx.step(forbidden, "DELETE FROM event"),
        ctx.step(forbidden, "COMMIT"),
    ):
        try:
            await call
        except Exception as error:
            found.append(str(error))
    return [*found, *await ctx.step(tables)]


async def test_a_transaction_step_commits_with_its_record_or_not_at_all():
    async with Env(here) as env:
        run = await env.start("purse", [5, -1, 7])
        assert await env.result(run) == [1005, "nothing below zero", 2012]
        assert [event.kind for event in await env.events(run)][1:-1] == [
            Kind.STEP_DONE,
            Kind.STEP_FAILED,
            Kind.STEP_DONE,
        ]


@pytest.mark.slow
@pytest.mark.embedded
async def test_what_a_transaction_step_may_not_do():
    async with Env(here) as env:
        found = await env.result(await env.start("bad-transactions"))
        assert "may await only its transaction" in found[0]
        assert "took longer than 100 ms" in found[1]
        assert "jivsd's own 'event'" in found[2]
        assert "COMMIT" in found[3]
        assert len(found) == 4  # no table of theirs is left


@workflow("catches-timeout")
async def catches_timeout(ctx: Context) -> str:
    try:
        await ctx.step(endless.options(retry=NO_RETRY))
    except TimedOut as error:
        return str(error)
    return "no"


async def test_a_timeout_can_be_caught():
    async with Env(here) as env:
        assert "took longer than 5 s" in await env.result(await env.start("catches-timeout"))


async def test_a_failed_run_says_what_failed():
    async with Env(here) as env:
        with pytest.raises(RunFailed, match="certainly nothing happened"):
            await env.result(await env.start("definite"))
