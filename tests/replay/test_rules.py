"""The rules of replay (DESIGN.md section 4), one by one, on journals written by hand."""

from __future__ import annotations

import time
from contextlib import aclosing

import msgspec
import pytest

from jivsd import Cancelled, NotDurable, TimedOut, query, signal, step, workflow
from jivsd.authoring.errors import Failure
from jivsd.engine.replay import LOCK, TIMEOUT, Phase
from jivsd.records import Kind, Options, Status, StepDone, TimerFired
from replay.script import START, Script

SECOND = 1_000_000


class Declined(Failure):
    pass


@step
async def work(n: int = 0) -> int:
    return n


@step
async def other(n: int = 0) -> int:
    return n


@step
async def book(n: int = 0) -> int:
    return n


@book.compensate
async def unbook(result: int | None, n: int) -> None: ...


@step(cancel="wait")
async def patient(n: int = 0) -> int:
    return n


def flow(function):
    return workflow("flow")(function)


def output(machine):
    assert machine.outcome is not None, machine.blocked
    assert machine.outcome.status is Status.COMPLETED, machine.outcome
    return msgspec.json.decode(machine.outcome.output)


# ---- 2: paths


def test_the_own_deadline_and_lock_share_no_path_with_steps_of_those_names():
    timeout, lock = step(name="timeout")(work.function), step(name="lock")(work.function)

    @flow
    async def named(ctx):
        await ctx.step(lock)
        await ctx.step(timeout)
        return 1

    script = Script(named, options=Options(timeout=60 * SECOND, lock_key="k", lock_wait=SECOND))
    script.granted(LOCK)
    script.done("lock", 1)
    script.done("timeout", 1)
    assert output(script.machine) == 1
    assert script.machine.open == {}


def test_paths_name_the_place_and_never_the_order_of_arrival():
    @flow
    async def nested(ctx):
        async def load(table):
            await ctx.step(work, 1)
            await ctx.step(work, 2)
            async with ctx.nursery("rows") as rows:
                rows["x/y#2"].start_soon(work)
                rows.start_soon(work)

        async with ctx.nursery("tables") as tables:
            for table in ("a", "b", "a"):
                tables[table].start_soon(load, table)

    script = Script(nested)
    assert script.issued == ["tables[a]/work", "tables[b]/work", "tables[a#2]/work"]
    script.done("tables[b]/work", 1)
    script.done("tables[b]/work#2", 1)
    assert script.issued[3:] == [
        "tables[b]/work#2",
        "tables[b]/rows[x%2Fy%232]/work",
        "tables[b]/rows[work]/work",
    ]


# ---- 3 and 4: one event a turn, first in first out


def test_a_turn_runs_dry_before_predicates_are_looked_at_one_by_one():
    seen = []

    @flow
    class Waiting:
        def __init__(self):
            self.n = 0

        async def run(self, ctx):
            async def wait(name, least):
                await ctx.wait_until(lambda: self.n >= least)
                seen.append(name)
                self.n -= 1

            async with ctx.nursery("n") as nursery:
                nursery["a"].start_soon(wait, "a", 2)
                nursery["b"].start_soon(wait, "b", 1)
                nursery["c"].start_soon(wait, "c", 1)
                await ctx.step(work)
                self.n = 2

    script = Script(Waiting)
    script.done("work", 0)
    assert seen == ["a", "b"]
    assert len(script.machine.predicates) == 1


def test_a_predicate_that_raises_raises_where_it_is_waited_for():
    @flow
    class Waiting:
        async def run(self, ctx):
            self.wrong = False
            try:
                await ctx.wait_until(lambda: 1 / 0 if self.wrong else 0)
            except ZeroDivisionError:
                return "raised"

        @signal
        def spoil(self):
            self.wrong = True

    script = Script(Waiting)
    script.signal("spoil")
    assert output(script.machine) == "raised"


@pytest.mark.parametrize("at_once", [True, False])
def test_a_predicate_may_not_use_the_context(at_once):
    @flow
    async def asking(ctx):
        calls = []

        def predicate():
            calls.append(1)
            return (at_once or len(calls) > 1) and ctx.uuid()

        try:
            await ctx.wait_until(predicate)
        except NotDurable:
            return "refused"

    assert output(Script(asking).machine) == "refused"


def test_a_freed_place_goes_to_who_waited_longest():
    @flow
    async def limited(ctx):
        async with ctx.nursery("n", limit=2) as nursery:
            for key in "abcd":
                nursery[key].start_soon(work)

    script = Script(limited)
    script.done("n[b]/work", 0)
    script.done("n[c]/work", 0)
    assert script.issued == [f"n[{key}]/work" for key in "abcd"]


def test_a_nursery_waits_for_a_child_that_a_branch_starts_after_the_last_has_ended():
    """Its opener is in the queue already when, in the same turn, another branch starts a child."""

    @flow
    async def late(ctx):
        ended = []

        async def child():
            await ctx.step(work, 1)
            ended.append("child")

        async with ctx.nursery("outer") as outer, ctx.nursery("inner") as inner:

            async def last():
                await ctx.wait_signal("go")

            async def starter():
                await ctx.wait_until(lambda: first.done)
                inner["late"].start_soon(child)

            first = inner["first"].start_soon(last)
            outer["starter"].start_soon(starter)
        return ended

    script = Script(late)
    script.signal("go")
    if script.machine.outcome is None:
        script.done("inner[late]/work", 1)
        assert output(script.machine) == ["child"]
    else:  # the nursery was closed before: then the start is refused, and the run fails of it
        assert script.machine.outcome.status is Status.FAILED


def test_a_handler_may_start_a_keyed_child_while_the_nursery_is_being_left():
    @flow
    class Left:
        async def run(self, ctx):
            async with ctx.nursery("n") as self.nursery:
                await ctx.sleep(5)
            return "left"

        @signal
        def more(self, key: str):
            self.nursery[key].start_soon(work)

    script = Script(Left)
    script.signal("more", "a")
    script.fire("sleep")
    script.signal("more", "b")
    script.done("n[a]/work", 1)
    assert script.machine.outcome is None
    script.done("n[b]/work", 1)
    assert output(script.machine) == "left"


# ---- 6: time and chance


def test_now_is_the_time_of_the_event_and_deadlines_count_from_it():
    @flow
    async def clocks(ctx):
        first = ctx.now()
        await ctx.step(work)
        with ctx.fail_after(10):
            await ctx.sleep(2)
        return [first.timestamp(), ctx.now().timestamp()]

    script = Script(clocks)
    script.done("work", 1)
    assert script.entry("deadline").command.deadline == START + 12 * SECOND
    assert script.entry("sleep").command.deadline == START + 4 * SECOND
    script.fire("sleep")
    assert output(script.machine) == [START / SECOND + 1, START / SECOND + 3]


@pytest.mark.parametrize("duration", [0, -5, "0s"])
def test_a_timeout_that_is_not_positive_expires_on_entry(duration):
    @flow
    async def hurried(ctx):
        with ctx.move_on_after(duration) as scope:
            await ctx.step(work)
        try:
            with ctx.fail_after(duration):
                await ctx.step(work)
        except TimedOut:
            return scope.cancelled

    script = Script(hurried)
    assert output(script.machine) is True
    assert script.issued == []


def test_chance_derives_from_the_seed_and_the_place():
    @flow
    async def chances(ctx):
        async def draw():
            await ctx.step(work)
            return [str(ctx.uuid()), str(ctx.uuid()), ctx.random.random(), ctx.random.random()]

        async with ctx.nursery("n") as nursery:
            a, b = nursery["a"].start_soon(draw), nursery["b"].start_soon(draw)
        return [*a.result, *b.result]

    one, two = Script(chances), Script(chances)
    one.done("n[a]/work", 1)
    one.done("n[b]/work", 1)
    two.done("n[b]/work", 1)
    two.done("n[a]/work", 1)
    assert output(one.machine) == output(two.machine)
    assert len(set(output(one.machine))) == 8


def test_after_a_reset_with_a_new_seed_chance_and_keys_are_others():
    @flow
    async def chances(ctx):
        first = [ctx.random.random(), str(ctx.uuid())]
        await ctx.step(work)
        return [*first, ctx.random.random(), str(ctx.uuid())]

    outputs, keys = [], []
    for seed in ("seed", "other"):
        script = Script(chances)
        script.reset(seed)
        keys.append(script.machine.idempotency_key("work"))
        script.done("work", 1)
        outputs.append(output(script.machine))
    assert outputs[0][:2] == outputs[1][:2]
    assert outputs[0][2] != outputs[1][2]
    assert outputs[0][3] != outputs[1][3]
    assert keys[0] != keys[1]
    assert len(set(outputs[0])) == 4


def test_after_a_reset_the_time_counts_anew_and_the_lock_is_waited_for_again():
    @flow
    async def working(ctx):
        await ctx.step(work)
        return "done"

    script = Script(working, options=Options(timeout=60 * SECOND, lock_key="k"))
    script.granted(LOCK)
    machine = script.reset("seed")
    assert script.entry(TIMEOUT).command.deadline == machine.at + 60 * SECOND
    assert LOCK in machine.open
    script.granted(LOCK)
    script.done("work", 1)
    assert output(script.machine) == "done"


# ---- 7: everything crosses as decode(encode(x))


def test_errors_come_back_by_type_message_and_data():
    @flow
    async def failing(ctx):
        try:
            await ctx.step(work)
        except ValueError as error:
            return str(error)

    assert output(Script(failing).failed("work", "no funds")) == "no funds"


def test_arguments_are_taken_when_the_step_is_called():
    @step
    async def keep(names: list[str]) -> None: ...

    @flow
    async def changing(ctx):
        names = ["a"]
        async with ctx.nursery("n") as nursery:
            nursery.start_soon(keep, names)
            names.append("b")

    assert Script(changing).step("n[keep]/keep").args == b'[["a"]]'


def test_an_output_that_has_no_json_form_fails_the_run():
    @flow
    async def odd(ctx):
        return object()

    machine = Script(odd).machine
    assert machine.outcome is not None
    assert machine.outcome.status is Status.FAILED


def test_an_output_of_another_type_than_promised_fails_the_run():
    @flow
    async def odd(ctx) -> int:
        return "text"

    machine = Script(odd).machine
    assert machine.outcome is not None
    assert machine.outcome.status is Status.FAILED


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


# ---- 11: sagas


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


# ---- cost


@pytest.mark.slow
def test_a_delivered_step_costs_microseconds_also_beside_a_thousand_branches():
    """Where the engine spends its time is a figure of its own; here, that it does not grow with the branches."""

    took = [seconds_for_steps(1500, branches) for branches in (1, 1000)]
    assert took[1] < took[0] * 2 + 0.05


def seconds_for_steps(steps, branches):
    @flow
    async def busy(ctx):
        async with ctx.nursery("n") as nursery:
            for _ in range(branches):
                nursery.start_soon(ctx.wait_signal, "never")
            while True:
                await ctx.step(work)

    script = Script(busy)
    started = time.perf_counter()
    for n in range(1, steps + 1):
        script.done("work" if n == 1 else f"work#{n}", n)
    took = time.perf_counter() - started
    script.machine.freeze()
    return took
