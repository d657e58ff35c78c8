"""Versions, signals, locks: rules 12 and 15 of DESIGN.md section 4, on journals written by hand."""

from __future__ import annotations

import pytest

from jivsd import Cancelled, query, signal
from jivsd.engine.replay import LOCK
from jivsd.records import Options, Status
from replay.script import Script
from replay.small import SECOND, Declined, book, flow, output, work

# ---- 12: versions


def test_versions_are_recorded_once_and_come_back_at_the_markers_place():
    @flow
    async def versioned(ctx):
        first = await ctx.version("v", 1, 3)
        await ctx.step(work, first)
        return [first, await ctx.version("v", 1, 4)]

    script = Script(versioned)
    assert [entry.command.kind for entry in script.machine.fresh] == ["version"]
    script.marker("version:v", 3)
    script.done("work", 1)
    assert output(script.machine) == [3, 3]
    assert output(script.again()) == [3, 3]


# ---- signals


def test_a_handler_that_raises_blocks_the_run():
    @flow
    class Handling:
        async def run(self, ctx):
            await ctx.wait_until(lambda: False)

        @signal
        def spoil(self, how: str):
            raise {"error": ValueError("no"), "cancelled": Cancelled(), "exit": SystemExit(1)}[how]

    for how in ("error", "cancelled", "exit"):
        machine = Script(Handling).signal("spoil", how)
        assert machine.blocked is not None
        assert machine.blocked.kind == "handler"


@pytest.mark.parametrize("what", ["now", "uuid", "unkeyed", "closed"])
def test_a_handler_may_not_use_the_context(what):
    @flow
    class Handling:
        async def run(self, ctx):
            self.ctx = ctx
            async with ctx.nursery("done") as self.closed:
                pass
            async with ctx.nursery("n") as self.open:
                await ctx.sleep(5)

        @signal
        def act(self):
            match what:
                case "now":
                    self.ctx.now()
                case "uuid":
                    self.ctx.uuid()
                case "unkeyed":
                    self.open.start_soon(work)
                case _:
                    self.closed["a"].start_soon(work)

    script = Script(Handling)
    machine = script.signal("act")
    assert machine.blocked is not None
    assert machine.blocked.kind == "handler"
    assert machine.fresh == []


def test_a_handler_may_cancel_a_scope_and_start_a_keyed_child():
    @flow
    class Handling:
        async def run(self, ctx):
            async with ctx.nursery("n") as self.nursery:
                with ctx.cancel_scope() as self.scope:
                    await ctx.sleep(5)
                return self.scope.cancelled

        @signal
        def act(self):
            self.nursery["a"].start_soon(work)
            self.scope.cancel()

    script = Script(Handling)
    script.signal("act")
    assert output(script.done("n[a]/work", 1)) is True


def test_signals_of_one_name_are_read_in_order_and_kept_until_then():
    @flow
    async def reading(ctx):
        await ctx.step(work)
        return [await ctx.wait_signal("s", int), await ctx.wait_signal("s", int), await ctx.wait_signal("s", int)]

    script = Script(reading)
    for value in (1, "no number", 2):
        script.signal("s", value)
    script.done("work", 1)
    assert output(script.signal("s", 3)) == [1, 2, 3]
    assert [message_id for message_id, _ in script.machine.misfits] == ["message 2"]


def test_signals_after_the_codes_end_are_unread_also_those_with_a_handler():
    @flow
    class Handling:
        handled: int = 0

        async def run(self, ctx):
            with ctx.move_on_after(1):
                await ctx.step(work)

        @signal
        def act(self):
            self.handled += 1

        @query
        def count(self):
            return self.handled

    script = Script(Handling)
    script.signal("act")
    script.fire("deadline")
    machine = script.signal("act")
    assert machine.outcome is not None
    assert list(machine.unread) == ["act"]
    assert machine.query("count", ()) == 1


def test_signals_during_the_runs_compensation_are_unread():
    @flow
    class Handling:
        async def run(self, ctx):
            async with ctx.nursery("n") as self.nursery:
                await ctx.step(book, 1)
                raise Declined

        @signal
        def more(self):
            self.nursery["more"].start_soon(work)

    script = Script(Handling)
    script.done("book", 1)
    machine = script.signal("more")
    assert machine.blocked is None
    assert list(machine.unread) == ["more"]
    machine = script.done("book!undo")
    assert machine.outcome is not None


def test_a_handler_takes_signals_while_the_run_waits_for_its_lock():
    @flow
    class Handling:
        n: int = 0

        async def run(self, ctx):
            return self.n

        @signal
        def add(self, by: int):
            self.n += by

    script = Script(Handling, options=Options(lock_key="k"))
    script.signal("add", 2)
    assert output(script.granted(LOCK)) == 2


# ---- locks


def test_who_waits_for_a_lock_is_not_abandoned():
    @flow
    async def waiting(ctx): ...

    assert not Script(waiting, options=Options(lock_key="k")).entry(LOCK).abandoned


def test_cancelling_a_run_that_waits_for_its_lock_ends_it():
    @flow
    async def waiting(ctx): ...

    script = Script(waiting, options=Options(lock_key="k", timeout=SECOND, lock_wait=SECOND))
    machine = script.cancel()
    assert machine.open == {}
    assert machine.outcome is not None
    assert machine.outcome.status is Status.CANCELLED


def test_a_run_that_waits_in_vain_for_its_lock_fails():
    @flow
    async def waiting(ctx): ...

    script = Script(waiting, options=Options(lock_key="k", timeout=SECOND, lock_wait=SECOND))
    machine = script.fire("!lock/wait")
    assert machine.open == {}
    assert machine.outcome is not None
    assert machine.outcome.status is Status.FAILED
    assert machine.outcome.error is not None
    assert "lock 'k'" in machine.outcome.error.message
