"""Compensation: rule 11 of DESIGN.md section 4, on journals written by hand."""

from __future__ import annotations

import pytest

from jivsd import step, workflow
from jivsd.engine.replay import TIMEOUT, Phase
from jivsd.records import Options, Status
from replay.script import Script
from replay.small import SECOND, Declined, book, flow, other, unbook


def test_what_settled_last_is_undone_first():
    @flow
    async def failing(ctx):
        async with ctx.nursery("n") as nursery:
            for key in "abc":
                nursery[key].start_soon(book, 1)
        raise Declined("no", amount=3)

    script = Script(failing)
    for key in "bca":
        script.done(f"n[{key}]/book", 10)
    for key in "acb":
        assert script.step(f"n[{key}]/book!undo").args == b"[10,1]"
        machine = script.done(f"n[{key}]/book!undo")
    assert machine.outcome is not None
    assert machine.outcome.status is Status.COMPENSATED
    assert machine.outcome.error is not None
    assert (machine.outcome.error.type, machine.outcome.error.data) == ("Declined", {"amount": 3})


@pytest.mark.parametrize(
    ("settle", "undone"),
    [
        (lambda script: script.done("book", 5), b"[5,1]"),
        (lambda script: script.cancelled("book"), b"[null,1]"),
        (lambda script: script.cancelled("book", "no"), None),
        (lambda script: script.failed("book"), None),
        (lambda script: script.failed("book", unknown=True), b"[null,1]"),
    ],
)
def test_compensation_waits_until_a_cancelled_step_has_settled(settle, undone):
    @flow
    async def failing(ctx):
        await ctx.step(book, 1)

    script = Script(failing)
    machine = script.cancel()
    assert machine.phase is Phase.COMPENSATING
    assert list(machine.open) == ["book"]
    machine = settle(script)
    if undone is not None:
        assert script.step("book!undo").args == undone
        assert script.step("book!undo").unknown is undone.startswith(b"[null")
        machine = script.done("book!undo")
    assert machine.outcome is not None
    assert machine.outcome.status is Status.CANCELLED


@pytest.mark.parametrize("taint", ["recovered", "attempt"])
def test_a_step_that_failed_is_undone_when_an_attempt_is_unknown(taint):
    @flow
    async def failing(ctx):
        await ctx.step(book, 1)

    script = Script(failing)
    if taint == "recovered":
        script.recovered("book")
    else:
        script.try_failed("book", 1, unknown=True)
    script.failed("book")
    assert script.step("book!undo").args == b"[null,1]"
    assert script.again().open.keys() == {"book!undo"}


def test_late_outcomes_before_during_and_after_a_compensation():
    """Of steps that belong to the outer saga, while an inner one is undone."""

    @flow
    async def outer(ctx):
        with ctx.move_on_after(1):
            async with ctx.nursery("lost") as lost:
                for key in "abc":
                    lost[key].start_soon(book, 1)
        try:
            async with ctx.saga():
                await ctx.step(book, 2)
                raise Declined
        except Declined:
            await ctx.step(other)
        raise Declined("the end")

    script = Script(outer)
    script.fire("deadline")
    script.done("lost[a]/book", 1)
    script.done("book", 2)
    assert "book!undo" in script.machine.open
    script.done("lost[b]/book", 1)
    script.done("book!undo")
    script.done("lost[c]/book", 1)
    script.done("other", 1)
    for key in "cba":
        assert list(script.machine.open) == [f"lost[{key}]/book!undo"]
        script.done(f"lost[{key}]/book!undo")
    assert script.machine.outcome is not None
    assert script.machine.outcome.status is Status.COMPENSATED


def test_an_inner_saga_that_is_left_normally_passes_its_steps_outward():
    @flow
    async def nested(ctx):
        async with ctx.saga():
            async with ctx.saga():
                await ctx.step(book, 1)
            await ctx.step(book, 2)
        raise Declined

    script = Script(nested)
    script.done("book", 1)
    script.done("book#2", 2)
    script.done("book#2!undo")
    machine = script.done("book!undo")
    assert machine.outcome is not None
    assert machine.outcome.status is Status.COMPENSATED


def test_a_compensation_is_shielded_from_the_cancel_that_comes_in_it():
    @flow
    async def failing(ctx):
        async with ctx.saga():
            await ctx.step(book, 1)
            raise Declined

    script = Script(failing)
    script.done("book", 1)
    machine = script.cancel()
    assert machine.dropped == []
    machine = script.done("book!undo")
    assert machine.outcome is not None


def test_a_compensation_that_fails_for_good_blocks_and_is_never_given_up():
    undo = step(on_exhausted="fail")(unbook.function)
    child = workflow("child")(_child).options(compensate=undo)

    @flow
    async def failing(ctx):
        await ctx.run(child, 1)
        raise Declined

    script = Script(failing)
    script.child_ended("child", Status.COMPLETED, 1)
    assert script.step("child!undo").step.on_exhausted == "incident"
    machine = script.failed("child!undo")
    assert machine.blocked is not None
    assert machine.blocked.kind == "compensation"


async def _child(ctx, n: int) -> int:
    return n


def test_the_time_of_a_run_stops_counting_when_compensation_begins():
    @flow
    async def failing(ctx):
        await ctx.step(book, 1)
        raise Declined

    script = Script(failing, options=Options(timeout=60 * SECOND))
    machine = script.done("book", 1)
    assert [entry.path for entry in machine.dropped] == [TIMEOUT]
    machine = script.fire(TIMEOUT)
    assert machine.blocked is None
    machine = script.done("book!undo")
    assert machine.outcome is not None
    assert machine.outcome.status is Status.COMPENSATED


def test_a_run_whose_time_is_up_compensates():
    @flow
    async def slow(ctx):
        await ctx.step(book, 1)
        await ctx.sleep("1h")

    script = Script(slow, options=Options(timeout=60 * SECOND))
    script.done("book", 1)
    script.fire(TIMEOUT)
    machine = script.done("book!undo")
    assert machine.outcome is not None
    assert machine.outcome.status is Status.TIMED_OUT
    assert machine.outcome.error is not None
    assert machine.outcome.error.type == "TimedOut"
