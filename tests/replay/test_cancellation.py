"""Cancellation and events without a place: rules 8 to 10 of DESIGN.md section 4, on journals written by hand."""

from __future__ import annotations

from contextlib import aclosing

import msgspec
import pytest

from jivsd import Cancelled
from jivsd.records import Kind, Status, StepDone, TimerFired
from replay.script import Script
from replay.small import book, flow, other, output, patient, work

# ---- 8 and 9: cancellation


def test_a_cancelled_step_is_abandoned_and_its_late_outcome_not_handed_over():
    @flow
    async def moving_on(ctx):
        with ctx.move_on_after(5):
            return await ctx.step(work)
        return await ctx.step(other)

    script = Script(moving_on)
    machine = script.fire("deadline")
    assert [entry.path for entry in machine.dropped] == ["work"]
    assert "work" in machine.open
    machine = script.done("work", 1)
    assert machine.outcome is None
    assert "work" not in machine.open
    assert output(script.done("other", 2)) == 2


def test_what_is_issued_and_cancelled_in_one_turn_never_starts():
    @flow
    async def at_once(ctx):
        async with ctx.nursery("n") as nursery:
            nursery["a"].start_soon(work)
            nursery["b"].start_soon(patient)
            await ctx.step(other)
            nursery["c"].start_soon(patient)
            nursery["d"].start_soon(book)

            async def cancel():
                nursery.cancel()

            nursery["e"].start_soon(cancel)

    script = Script(at_once)
    machine = script.done("other", 1)
    assert [path for path in machine.open if path[2] in "cd"] == []
    assert [entry.path for entry in machine.dropped] == ["n[a]/work", "n[b]/patient"]
    assert script.entry("n[b]/patient").cancelling


def test_cancel_wait_stays_until_the_step_has_settled():
    @flow
    async def waiting(ctx):
        with ctx.move_on_after(5):
            value = await ctx.step(patient)
            try:
                await ctx.sleep(1)
            except Cancelled:
                return value

    script = Script(waiting)
    machine = script.fire("deadline")
    assert script.entry("patient").cancelling
    assert not script.entry("patient").abandoned
    assert machine.outcome is None
    assert output(script.done("patient", 7)) == 7
    script = Script(waiting)
    script.fire("deadline")
    assert output(script.cancelled("patient")) is None


@pytest.mark.parametrize("call", ["now", "random", "uuid"])
def test_what_only_asks_raises_in_a_cancelled_scope_too_and_not_in_a_shield(call):
    def ask(ctx):
        return ctx.random if call == "random" else getattr(ctx, call)()

    @flow
    async def asking(ctx):
        said = []
        with ctx.move_on_after(5):
            try:
                await ctx.step(work)
            finally:
                with ctx.shield():
                    ask(ctx)
                    said.append("shielded")
                ask(ctx)
                said.append("never")
        ask(ctx)
        return [*said, "after"]

    assert output(Script(asking).fire("deadline")) == ["shielded", "after"]


def test_a_shield_lets_cleanup_finish():
    @flow
    async def shielded(ctx):
        try:
            await ctx.sleep(60)
        finally:
            with ctx.shield():
                await ctx.step(work)

    script = Script(shielded)
    machine = script.cancel()
    assert machine.outcome is None
    machine = script.done("work", 1)
    assert machine.outcome is not None
    assert machine.outcome.status is Status.CANCELLED


def test_all_of_one_instant_comes_in_the_order_of_the_journal():
    @flow
    async def racing(ctx):
        async with ctx.race() as race:
            race["step"].start_soon(work)
            race["time"].start_soon(ctx.sleep, 5)
        return race.winner.key

    for order, winner in ((("step", "time"), "step"), (("time", "step"), "time")):
        script = Script(racing)
        for key in order:
            if key == "step":
                script.done("race[step]/work", 1)
            else:
                script.fire("race[time]/sleep")
        assert output(script.machine) == winner


def test_a_run_that_swallows_its_cancellation_completes():
    @flow
    async def stubborn(ctx):
        try:
            await ctx.sleep(60)
        except Cancelled:
            return "done"

    assert output(Script(stubborn).cancel()) == "done"


def test_a_nursery_in_an_async_generator_that_is_closed_waits_for_its_children():
    @flow
    async def generating(ctx):
        async def numbers():
            async with ctx.nursery("n") as nursery:
                nursery["a"].start_soon(patient)
                yield 1

        async with aclosing(numbers()) as generator:
            async for _ in generator:
                await ctx.step(work)
                break
        return "closed"

    script = Script(generating)
    machine = script.done("work", 1)
    assert machine.outcome is None
    assert script.entry("n[a]/patient").cancelling
    assert output(script.cancelled("n[a]/patient")) == "closed"


def test_an_interrupt_from_the_keyboard_is_no_outcome():
    @flow
    async def interrupted(ctx):
        async with ctx.saga(), ctx.nursery("n") as nursery:
            nursery["a"].start_soon(book, 1)
            with ctx.fail_after(5):
                await ctx.step(work)
                raise KeyboardInterrupt

    script = Script(interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.done("work", 1)
    assert script.machine.outcome is None


# ---- 10: events without a place


def test_an_event_of_another_kind_blocks():
    @flow
    async def sleeping(ctx):
        await ctx.sleep(1)

    script = Script(sleeping)
    machine = script.deliver(Kind.STEP_DONE, "sleep", StepDone("", msgspec.Raw(b"1")))
    assert machine.blocked is not None
    assert (machine.blocked.expected, machine.blocked.found) == ("step", "timer")


def test_after_the_end_only_what_is_ignorable_may_come():
    @flow
    async def losing(ctx):
        with ctx.move_on_after(1):
            await ctx.step(work)

    script = Script(losing)
    script.fire("deadline")
    machine = script.done("work", 1)
    assert machine.blocked is None
    machine = script.deliver(Kind.TIMER_FIRED, "deadline", TimerFired())
    assert machine.blocked is None
    assert script.deliver(Kind.STEP_DONE, "never", StepDone("", msgspec.Raw(b"1"))).blocked is not None


def test_a_blocked_turn_asks_for_nothing_and_the_next_event_is_not_taken():
    @flow
    async def asking(ctx):
        async with ctx.nursery("n") as nursery:
            nursery.start_soon(work)
            await ctx.version("v", 1, 1)
            await ctx.version("v", 2, 2)

    script = Script(asking)
    machine = script.marker("version:v", 1)
    assert machine.blocked is not None
    assert machine.fresh == machine.dropped == []
    script.done("n[work]/work", 1)
    assert machine.seq == 2


@pytest.mark.parametrize("seq", [1, 3, 7])
def test_a_journal_with_a_gap_or_a_double_blocks(seq):
    @flow
    async def waiting(ctx):
        await ctx.step(work)

    script = Script(waiting)
    event = msgspec.structs.replace(script.journal[0], seq=seq, kind=Kind.RESUMED, payload=b"{}")
    script.machine.deliver(event)
    assert script.machine.blocked is not None
    assert script.machine.blocked.kind == "damage"


# ---- children


def test_a_cancelled_child_is_waited_for():
    @flow
    async def parent(ctx):
        with ctx.move_on_after(1):
            await ctx.run("child", 1)
        return "after"

    script = Script(parent)
    machine = script.fire("deadline")
    assert [entry.path for entry in machine.dropped] == ["child"]
    assert machine.outcome is None
    assert output(script.child_ended("child", Status.CANCELLED)) == "after"


def test_a_childs_end_is_for_the_call_with_its_arguments_and_older_journals_do_not_say_which():
    @flow
    async def parent(ctx):
        return await ctx.run("child", 1)

    @flow
    async def changed(ctx):
        return await ctx.run("child", 2)

    script = Script(parent)
    script.child_ended("child", Status.COMPLETED, "done")
    assert output(script.again(changed)) == "done"
    script = Script(parent)
    hash_of_call = script.entry("child").command.args_hash
    script.child_ended("child", Status.COMPLETED, "done", args_hash=hash_of_call)
    assert output(script.again()) == "done"
    blocked = script.again(changed).blocked
    assert (blocked.kind, blocked.path) == ("replay", "child")
    assert blocked.expected == f"child with arguments {hash_of_call}"
