"""Identity, turns, time and values: rules 2 to 7 of DESIGN.md section 4, on journals written by hand."""

from __future__ import annotations

import time

import pytest

from jivsd import NotDurable, TimedOut, signal, step
from jivsd.engine.replay import LOCK, TIMEOUT
from jivsd.records import Options, Status
from replay.script import START, Script
from replay.small import SECOND, flow, output, work

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


def test_a_nursery_waits_for_a_child_that_starts_after_the_last_has_ended():
    """Its opener is in the queue already when, in the same turn, another branch starts a child."""

    @flow
    async def late(ctx):
        ended = []

        async def child():
            await ctx.step(work, 1)
            ended.append("child")

        async def last():
            await ctx.version("v", 1, 1)

        async def starter(inner):
            await ctx.version("v", 1, 1)
            inner["late"].start_soon(child)

        async with ctx.nursery("outer") as outer:
            async with ctx.nursery("inner") as inner:
                inner["last"].start_soon(last)
                outer["starter"].start_soon(starter, inner)
            ended.append("inner")
        return ended

    script = Script(late)
    script.marker("version:v", 1)
    script.done("inner[late]/work", 1)
    assert output(script.machine) == ["child", "inner"]


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
