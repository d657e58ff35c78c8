"""Heartbeats of long steps: progress that people see, silence that is noticed, details for the next attempt."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
import trio

from jivsd import NO_RETRY, Context, InvalidDefinition, Retry, StepContext, step, workflow
from jivsd.clock import SECOND
from jivsd.engine.stuck import Patience, Stuck
from jivsd.records import Kind, Progress, Status, payload_of
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

AGAIN = Retry(attempts=3, first="1s", jitter=0)
begun: list[tuple[int, Any]] = []
"""Each time that `copy` began: which attempt, and what it was told of the one before."""


class Place(msgspec.Struct):
    row: int


@step(retry=AGAIN)
async def copy(ctx: StepContext, rows: int, fails_at: int) -> int:
    """Copies a row a second, from where the attempt before was."""
    last = ctx.last_details(Place)
    begun.append((ctx.attempt, last))
    for row in range(last.row if last else 0, rows):
        if row == fails_at and ctx.attempt == 1:
            raise ConnectionError("gone")
        await trio.sleep(1)
        ctx.heartbeat(Place(row + 1), done=row + 1, total=rows)
    return rows


@step(retry=AGAIN, heartbeat_timeout="30s")
async def silent(ctx: StepContext, beats: int) -> int:
    for _ in range(beats):
        await trio.sleep(20)
        ctx.heartbeat()
    if ctx.attempt == 1:
        await trio.sleep(1000)
    return ctx.attempt


@silent.compensate
async def undo(ctx: StepContext, attempt: int | None, beats: int) -> None:
    assert ctx.outcome_unknown


@step(retry=NO_RETRY, timeout="10s")
def plain(ctx: StepContext) -> str:
    ctx.heartbeat("half", done=1, total=2)
    return ctx.last_details() or "first"


@workflow("copies")
async def copies(ctx: Context, rows: int, fails_at: int = -1) -> int:
    return await ctx.step(copy, rows, fails_at)


@workflow("fan")
async def fan(ctx: Context, rows: int) -> int:
    async with ctx.nursery() as every:
        for table in range(20):
            every[table].start_soon(copy, rows, -1)
    return rows


@workflow("silences")
async def silences(ctx: Context, beats: int) -> int:
    return await ctx.step(silent, beats)


@workflow("gives-up")
async def gives_up(ctx: Context) -> int:
    return await ctx.step(silent.options(retry=NO_RETRY, heartbeat_timeout="5s"), 0)


@workflow("plainly")
async def plainly(ctx: Context) -> str:
    return await ctx.step(plain)


class Counting(SqliteStore):
    """Counts the commits in which steps say how far they are."""

    def __init__(self) -> None:
        super().__init__(":memory:", threaded=False)
        self.writes = 0

    async def commit(self, batch, more=None):
        self.writes += any(getattr(entry, "progress", ()) for entry in batch)
        return await super().commit(batch)


async def test_progress_is_seen_at_once_and_gone_when_the_step_has_settled():
    begun.clear()
    async with Env(here) as env:
        run = await env.start("copies", {"rows": 100})
        assert await env.progress(run) == []
        await env.sleep("40s")
        (seen,) = await env.progress(run)
        assert (seen.path, seen.attempt, seen.done, seen.total, seen.percent) == ("copy", 1, 40, 100, 40)
        assert env.engine.clock.now() - seen.at < 1.1 * SECOND
        assert seen.text == '40 of 100 (40 %), {"row": 40}'
        (wait,) = await env.waits(run)
        assert wait.what == 'step copy: 40 of 100 (40 %), {"row": 40}'
        assert await env.result(run) == 100
        assert await env.progress(run) == []
        assert await env.store.progress(run) == []


async def test_the_next_attempt_is_told_what_was_said_last():
    begun.clear()
    async with Env(here) as env:
        run = await env.start("copies", {"rows": 10, "fails_at": 3})
        await env.sleep("3500ms")
        (seen,) = await env.progress(run)
        assert (seen.done, seen.attempt) == (3, 1)
        assert [wait.kind for wait in await env.waits(run)] == ["retry"]
        assert await env.result(run) == 10
        assert begun == [(1, None), (2, Place(3))]


async def test_what_is_said_is_written_together_every_few_seconds():
    store = Counting()
    async with Env(here, store=store) as env:
        run = await env.start("fan", 21)
        await env.sleep("3s")
        assert store.writes == 0
        assert await env.result(run) == 21
        assert 3 <= store.writes <= 6


async def test_a_step_that_beats_but_is_over_soon_writes_nothing():
    store = Counting()
    async with Env(here, store=store) as env:
        assert await env.result(await env.start("fan", 4)) == 4
        assert store.writes == 0


@pytest.mark.embedded
async def test_what_was_written_survives_a_crash_and_is_not_older_than_five_seconds(tmp_path):
    begun.clear()
    copied = tmp_path / "killed.db"
    async with Env(here) as env:
        await env.start("copies", {"rows": 30}, id="c")
        await env.sleep("19500ms")
        await env.store.backup(str(copied))
    async with Env(here, store=SqliteStore(str(copied), threaded=False)) as env:
        (seen,) = await env.progress("copies:c")
        assert 14 <= seen.done <= 19
        assert await env.result("copies:c") == 30
        assert begun[-1] == (1, Place(seen.done))


async def test_a_stop_in_order_loses_nothing(tmp_path):
    begun.clear()
    path = str(tmp_path / "journal.db")
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        await env.start("copies", {"rows": 30}, id="c")
        await env.sleep("4500ms")
    async with Env(here, store=SqliteStore(path, threaded=False)) as env:
        assert await env.result("copies:c") == 30
        assert begun == [(1, None), (1, Place(4))]


async def test_an_attempt_that_does_not_beat_is_stopped_and_tried_again():
    async with Env(here) as env:
        run = await env.start("silences", 3)
        began = env.engine.clock.now()
        assert await env.result(run) == 2
        (failed,) = [payload_of(event) for event in await env.events(run) if event.kind == Kind.ATTEMPT_FAILED]
        assert failed.error.type == "TimedOut"
        assert failed.error.message == "step 'silent' was not heard of for 30 s"
        assert failed.unknown
        assert (failed.next_at - began) / SECOND == pytest.approx(60 + 30 + 1, abs=0.1)


async def test_silence_for_good_is_an_unknown_outcome_that_is_compensated():
    async with Env(here) as env:
        row = await env.ended(await env.start("gives-up"))
        assert row.status is Status.COMPENSATED
        assert row.error is not None
        assert row.error.message == "step 'silent' was not heard of for 5 s"


async def test_a_plain_step_beats_too():
    async with Env(here) as env:
        assert await env.result(await env.start("plainly")) == "first"


async def test_a_step_that_beats_is_not_stuck_and_one_that_has_stopped_beating_is():
    async with Env(here) as env:
        for _ in range(30):
            env.engine.metrics.step_duration.labels("copies", "copy").observe(1)
        sweep = Stuck(env.engine, Patience())
        await env.start("copies", {"rows": 400})
        for _ in range(30):
            sweep.run_once()
            await env.sleep("10s")
        assert (await env.engine.incidents()).items == []
        (actor,) = env.engine.actors.values()
        heart = actor.attempts["copy"].heart
        assert heart is not None
        heart.beaten_at -= 61
        sweep.run_once()
        await env.sleep("10ms")
        (incident,) = (await env.engine.incidents()).items
        assert incident.kind == "stuck"
        await env.sleep("2s")
        sweep.run_once()
        await env.sleep("10ms")
        assert (await env.engine.incidents()).items == []


def test_no_crash_harms_a_step_that_beats():
    async def scenario(env):
        run = await env.start("copies", {"rows": 12, "fails_at": 7})
        assert await env.result(run) == 12
        assert await env.store.progress(run) == []

    assert crash_everywhere([here], scenario) >= 6


def test_progress_reads_well():
    said = Progress("copy", 1, 0, msgspec.Raw(b'"orders"'), done=1_234_567, total=2_000_000)
    assert said.text == "1,234,567 of 2,000,000 (62 %), orders"
    assert Progress("copy", 1, 0, done=12.5).text == "12.5"
    assert Progress("copy", 1, 0, done=3, total=0).text == "3 of 0"
    assert Progress("copy", 1).text == "at work"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"details": "x" * 16_384}, "the details of a heartbeat are 16,386 bytes long, at most 16,384"),
        ({"done": -1}, "done of a heartbeat is -1; it is a number from 0 on"),
        ({"total": float("nan")}, "total of a heartbeat is nan; it is a number from 0 on"),
    ],
)
def test_what_cannot_be_said(said, why):
    context = StepContext(run_id="r", workflow_id="w", path="p", attempt=1, idempotency_key="k")
    context.heartbeat({"row": 1}, done=1, total=2)
    assert context.last_details() is None
    with pytest.raises(ValueError, match=why):
        context.heartbeat(**said)


def test_a_heartbeat_timeout_needs_a_context_to_beat_with():
    with pytest.raises(InvalidDefinition, match="step 'mute' has a heartbeat_timeout, but no StepContext"):

        @step(heartbeat_timeout="1s")
        async def mute() -> None: ...

    with pytest.raises(InvalidDefinition, match="heartbeat_timeout is '0s'; it must be longer than nothing"):

        @step(heartbeat_timeout="0s")
        async def hasty(ctx: StepContext) -> None: ...
