"""Changed code over every prefix of an old journal: what blocks the run, and what is accepted (DESIGN.md section 4).

`detected`: from how many recorded events on the change blocks the run; None: never, it is safe.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from jivsd import step, workflow
from jivsd.records import Status
from replay.script import Script


@step
async def reserve(amount: int) -> int:
    return amount


@step
async def book(amount: int) -> int:
    return amount


@step
async def label() -> None: ...


@step
async def pack(table: str) -> str:
    return table


@step
async def pay(amount: int) -> int:
    return amount


@step(name="pay")
async def pay_in_words(amount: int) -> str:
    return str(amount)


@step
async def refundable(amount: int) -> int:
    return amount


@step
async def ship() -> None: ...


@step(name="sleep")
async def sleep_step(seconds: int) -> None: ...


@step
async def extra() -> None: ...


async def begin(ctx):
    await ctx.step(reserve, 1)
    await ctx.sleep(5)


async def packing(ctx):
    async with ctx.nursery("n") as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)


async def finish(ctx):
    await ctx.step(pay, 2)
    await ctx.step(ship)


@workflow("order")
async def old(ctx):
    await begin(ctx)
    await packing(ctx)
    await finish(ctx)


def old_journal() -> Script:
    script = Script(old)  # 1
    script.done("reserve", 1)  # 2
    script.fire("sleep")  # 3
    script.done("label")  # 4
    script.done("n[b]/pack", "b")  # 5
    script.done("n[a]/pack", "a")  # 6
    script.done("pay", 2)  # 7
    script.done("ship")  # 8
    assert script.machine.outcome is not None
    return script


EVENTS = len(old_journal().journal)


class Change(NamedTuple):
    code: object
    detected: int | None
    path: str = ""
    found: str = "nothing"


async def renamed(ctx):
    await ctx.step(book, 1)
    await ctx.sleep(5)
    await packing(ctx)
    await finish(ctx)


async def removed(ctx):
    await ctx.step(reserve, 1)
    await ctx.sleep(5)
    async with ctx.nursery("n") as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
    await finish(ctx)


async def timer_removed(ctx):
    await ctx.step(reserve, 1)
    await packing(ctx)
    await finish(ctx)


async def reordered(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(ship)
    await ctx.step(pay, 2)


async def reordered_at_the_start(ctx):
    await ctx.sleep(5)
    await ctx.step(reserve, 1)
    await packing(ctx)
    await finish(ctx)


async def inserted_at_the_start(ctx):
    await ctx.step(extra)
    await begin(ctx)
    await packing(ctx)
    await finish(ctx)


async def inserted_before_pay(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(extra)
    await finish(ctx)


async def inserted_before_ship(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(pay, 2)
    await ctx.step(extra)
    await ctx.step(ship)


async def wait_inserted(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.wait_signal("approve")
    await finish(ctx)


async def side_effect_inserted(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.side_effect(lambda: 1)
    await finish(ctx)


async def other_arguments(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(pay, 3)
    await ctx.step(ship)


async def other_kind(ctx):
    await ctx.step(reserve, 1)
    await ctx.step(sleep_step, 5)
    await packing(ctx)
    await finish(ctx)


async def other_result_type(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(pay_in_words, 2)
    await ctx.step(ship)


async def nursery_renamed(ctx):
    await begin(ctx)
    async with ctx.nursery("m") as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)
    await finish(ctx)


async def key_renamed(ctx):
    await begin(ctx)
    async with ctx.nursery("n") as n:
        n["x"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)
    await finish(ctx)


async def same_key_inserted(ctx):
    await begin(ctx)
    async with ctx.nursery("n") as n:
        n["a"].start_soon(pack, "c")
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)
    await finish(ctx)


async def limit_set(ctx):
    await begin(ctx)
    async with ctx.nursery("n", limit=1) as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)
    await finish(ctx)


async def sibling_added(ctx):
    await begin(ctx)
    async with ctx.nursery("n") as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        n["c"].start_soon(pack, "c")
        await ctx.step(label)
    await finish(ctx)


async def siblings_reordered(ctx):
    await begin(ctx)
    async with ctx.nursery("n") as n:
        n["b"].start_soon(pack, "b")
        n["a"].start_soon(pack, "a")
        await ctx.step(label)
    await finish(ctx)


async def ended_early(ctx):
    await begin(ctx)
    await packing(ctx)
    await ctx.step(pay, 2)


async def appended(ctx):
    await begin(ctx)
    await packing(ctx)
    await finish(ctx)
    await ctx.step(extra)


async def other_duration(ctx):
    await ctx.step(reserve, 1)
    await ctx.sleep(500)
    await packing(ctx)
    await finish(ctx)


async def other_options(ctx):
    await ctx.step(reserve.options(timeout="1m", cancel="wait"), 1)
    await ctx.sleep(5)
    await packing(ctx)
    await finish(ctx)


async def deadline_added(ctx):
    await begin(ctx)
    with ctx.fail_after("7d"):
        await packing(ctx)
    await finish(ctx)


async def saga_added(ctx):
    async with ctx.saga():
        await begin(ctx)
        with ctx.shield():
            await packing(ctx)
    await finish(ctx)


async def all_in_one_place(ctx):
    await ctx.step(reserve, 1)
    await ctx.sleep(5)
    async with ctx.nursery("n") as n:
        n["a"].start_soon(pack, "a")
        n["b"].start_soon(pack, "b")
        await ctx.step(label)
    await ctx.step(pay, 2)
    await ctx.step(ship)


TABLE = [
    Change(renamed, 2, "reserve"),
    Change(removed, 4, "label"),
    Change(timer_removed, 3, "sleep"),
    Change(reordered, 7, "pay"),
    Change(reordered_at_the_start, 2, "reserve"),
    Change(inserted_at_the_start, 2, "reserve"),
    Change(inserted_before_pay, 7, "pay"),
    Change(inserted_before_ship, 8, "ship"),
    Change(wait_inserted, 7, "pay"),
    Change(side_effect_inserted, 7, "pay"),
    Change(other_arguments, 7, "pay", "step with arguments"),
    Change(other_kind, 3, "sleep", "step"),
    Change(other_result_type, 7, "pay", ""),
    Change(nursery_renamed, 5, "n[b]/pack"),
    Change(key_renamed, 6, "n[a]/pack"),
    Change(same_key_inserted, 6, "n[a]/pack", "step with arguments"),
    Change(limit_set, 5, "n[b]/pack"),
    Change(sibling_added, 7, "pay"),
    Change(ended_early, 8, "ship"),
    Change(siblings_reordered, None),
    Change(appended, None),
    Change(other_duration, None),
    Change(other_options, None),
    Change(deadline_added, None),
    Change(saga_added, None),
    Change(all_in_one_place, None),
]


RESULTS = {"reserve": 1, "book": 1, "pay": 2, "pack": "x"}


def live_on(script: Script) -> None:
    """Let the run come to its end on the code that it is on now."""
    for _ in range(30):
        machine = script.machine
        if machine.outcome is not None:
            return
        if machine.listeners:
            script.signal(next(iter(machine.listeners)))
            continue
        entry = next(
            entry for entry in machine.open.values() if entry.target is None or entry.command.kind == "version"
        )
        match entry.command.kind:
            case "timer":
                script.fire(entry.path)
            case "marker":
                script.marker(entry.path, 1)
            case "version":
                script.marker(entry.path, 2)
            case _:
                script.done(entry.path, RESULTS.get(script.step(entry.path).step.name))
    raise AssertionError("it does not end")


@pytest.mark.parametrize("events", range(1, EVENTS + 1))
@pytest.mark.parametrize("change", TABLE, ids=lambda change: change.code.__name__)
def test_a_change(change, events):
    script = old_journal()
    machine = script.again(workflow("order")(change.code), upto=events)
    if change.detected is not None and events >= change.detected:
        assert machine.blocked is not None
        assert machine.blocked.path == change.path
        assert change.path in machine.blocked.message
        assert change.found in machine.blocked.found
        assert machine.fresh == []
        assert machine.seq == change.detected
        return
    assert machine.blocked is None
    if change.code is other_result_type:
        return
    live_on(script)
    outcome = script.machine.outcome
    assert outcome is not None
    assert outcome.status is Status.COMPLETED
    assert script.again().outcome == outcome


@workflow("order")
async def guarded(ctx):
    await begin(ctx)
    await packing(ctx)
    if await ctx.version("extra step", 1, 2) >= 2:
        await ctx.step(extra)
    await finish(ctx)


@pytest.mark.parametrize("events", range(1, EVENTS))
def test_a_change_behind_a_version_is_safe_everywhere(events):
    script = old_journal()
    script.again(guarded, upto=events)
    script.code_changed()
    machine = script.again(guarded)
    assert machine.blocked is None
    live_on(script)
    passed = events >= 6  # the nursery was left, the old code was at pay or beyond
    assert ("extra" in script.issued) is not passed
    assert machine.versions == {"extra step": 1 if passed else 2}
    outcome = script.machine.outcome
    assert outcome is not None
    assert script.again().outcome == outcome


def test_a_version_out_of_range_blocks():
    @workflow("order")
    async def without_support(ctx):
        await begin(ctx)
        await packing(ctx)
        await ctx.version("extra step", 2, 3)
        await finish(ctx)

    script = old_journal()
    script.again(guarded, upto=5)
    script.done("n[a]/pack", "a")
    script.marker("version:extra step", 1)
    machine = script.again(without_support)
    assert machine.blocked is not None
    assert machine.blocked.kind == "version"
    assert (machine.blocked.expected, machine.blocked.found) == ("2 to 3", "1")


def test_a_cancellation_that_the_code_no_longer_makes_blocks():
    @workflow("order")
    async def racing(ctx):
        async with ctx.race() as race:
            race["a"].start_soon(pack, "a")
            race["b"].start_soon(pack, "b")
        await ctx.sleep(5)

    @workflow("order")
    async def waiting(ctx):
        async with ctx.nursery("race") as both:
            both["a"].start_soon(pack, "a")
            both["b"].start_soon(pack, "b")
        await ctx.sleep(5)

    script = Script(racing)
    script.done("race[a]/pack", "a")
    script.cancelled("race[b]/pack")
    assert script.machine.blocked is None
    machine = script.again(waiting)
    assert machine.blocked is not None
    assert machine.blocked.path == "race[b]/pack"


def test_input_that_the_new_code_cannot_read_blocks():
    @workflow("order")
    async def text(ctx, name: str): ...

    @workflow("order")
    async def number(ctx, amount: int): ...

    script = Script(text, "x")
    machine = script.again(number)
    assert machine.blocked is not None
    assert "input" in machine.blocked.message
