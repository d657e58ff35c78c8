"""Runs that are continued as new: what they take along, and who finds them."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
import trio

from engine.stores import SlowStore
from jivsd import Cancelled, Context, Failure, NotDurable, StepContext, query, signal, step, update, workflow
from jivsd.engine.api import Conflict
from jivsd.records import Kind, Status, payload_of
from jivsd.store.api import Post, RunFilter
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

did: list[str] = []


@step
async def note(ctx: StepContext, what: str) -> str:
    did.append(what)
    return what


@note.compensate
async def unnote(noted: str | None, what: str) -> None:
    did.append(f"un{what}")


@workflow("count")
async def count(ctx: Context, n: int, to: int = 3) -> str:
    await ctx.step(note, f"n{n}")
    await ctx.sleep("1m")
    if n < to:
        await ctx.continue_as_new(n + 1, to=to)
    return f"counted to {n}"


@workflow("turns", signals={"next": str})
class Turns:
    total = 0

    @update
    def add(self, n: int) -> int:
        self.total += n
        return self.total

    async def run(self, ctx: Context, total: int) -> None:
        self.total += total
        await ctx.wait_signal("next", str)
        await ctx.continue_as_new(self.total)


@workflow("collect", lock_key="books:{book}", timeout="1h", signals={"line": str})
class Collect:
    def __init__(self) -> None:
        self.votes: list[str] = []

    @signal
    def vote(self, who: str) -> None:
        self.votes.append(who)

    @update
    def strike(self, who: str) -> int:
        self.votes.remove(who)
        return len(self.votes)

    @query
    def tally(self) -> list[str]:
        return self.votes

    async def run(self, ctx: Context, book: str, lines: list[str]) -> list[str]:
        line = await ctx.wait_signal("line", str)
        if line != "end":
            await ctx.sleep("10s")
            await ctx.continue_as_new(book, [*lines, line])
        return [*lines, *self.votes]


@workflow("ways")
async def ways(ctx: Context, how: str) -> str:
    try:
        match how:
            case "nursery":
                async with ctx.nursery() as nursery:
                    nursery.start_soon(again, ctx, how)
            case "beside":
                async with ctx.nursery() as nursery:
                    nursery.start_soon(ctx.sleep, 10)
                    await ctx.continue_as_new("end")
            case "wrong":
                await ctx.continue_as_new(5)
            case "more":
                await ctx.continue_as_new("a", "b")
            case "cancelled":
                with ctx.cancel_scope() as scope:
                    scope.cancel()
                    await ctx.continue_as_new("end")
            case "cut":
                with ctx.move_on_after("5s"):
                    await ctx.step(note.options(cancel="wait"), "cut")
                async with ctx.saga(), ctx.lock("mill"):
                    await ctx.step(note, "in the saga")
                    await ctx.continue_as_new("end")
            case _:
                pass
    except (NotDurable, TypeError, ValueError, ExceptionGroup) as error:
        leaf: BaseException = error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        return f"{type(leaf).__name__}: {leaf}"
    return how


async def again(ctx: Context, how: str) -> None:
    await ctx.continue_as_new("end")


@workflow("parent")
async def parent(ctx: Context, n: int) -> list[str]:
    return [await ctx.run(count, n), "and home"]


@workflow("waits")
async def waits(ctx: Context, rounds: int) -> str:
    await ctx.step(note, f"round {rounds}")
    if rounds:
        await ctx.continue_as_new(rounds - 1)
    try:
        return await ctx.wait_signal("stop")
    except Cancelled:
        did.append("cancelled")
        raise


@workflow("tries")
async def tries(ctx: Context, n: int) -> None:
    if n == 0:
        raise Failure("zero")
    await ctx.continue_as_new(n - 1)


@pytest.fixture(autouse=True)
def _afresh():
    did.clear()


async def chain(env: Env, ref: str) -> list[Any]:
    workflow, _, id = ref.partition(":")
    page = await env.engine.runs(RunFilter(workflow=workflow, workflow_id=id))
    return page.items[::-1]


async def test_a_new_run_goes_on_with_the_input_and_who_waits_gets_the_last_ones_result():
    async with Env(here) as env:
        first = await env.start("count", {"n": 1}, id="c", attributes={"colour": "red"}, correlation_id="x")
        assert await env.result(first) == "counted to 3"
        runs = await chain(env, "count:c")
        assert [run.status for run in runs] == [Status.CONTINUED, Status.CONTINUED, Status.COMPLETED]
        assert [msgspec.json.decode(run.input)["n"] for run in runs] == [1, 2, 3]
        assert [run.options.chain for run in runs] == [None, first, first]
        assert {run.options.correlation_id for run in runs} == {"x"}
        assert all(run.attributes == {"colour": "red"} for run in runs)
        assert did == ["n1", "n2", "n3"], "nothing is undone"
        last = (await env.events(first))[-1]
        assert last.kind == Kind.CONTINUED_AS_NEW
        assert payload_of(last).run_id == runs[1].run_id
        assert (await env.show("count:c")).run_id == runs[2].run_id
        assert await env.result("count:c") == await env.result(runs[1].run_id) == "counted to 3"


async def test_the_same_idempotency_key_finds_the_first_run_and_its_result():
    async with Env(here) as env:
        first = await env.start("count", {"n": 1}, idempotency_key="k")
        await env.result(first)
        assert await env.start("count", {"n": 1}, idempotency_key="k") == first
        assert await env.result(first) == "counted to 3"


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_unread_signals_go_along_in_their_order_and_none_is_read_twice(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        for number, line in enumerate(["one", "two", "three"]):
            await env.signal("collect:a", "line", line, message_id=f"m{number}")
        await env.signal("collect:a", "vote", "ann")
        await env.sleep("15s")
        assert (await env.show(first)).status is Status.CONTINUED
        await env.signal(first, "line", "four", message_id="m3")
        await env.signal(first, "line", "one", message_id="m0")
        receipt = await env.engine.signal(first, "line", b'"two"', message_id="m1")
        assert receipt.duplicate
        await env.signal("collect:a", "line", "end")
        assert await env.result(first) == ["one", "two", "three", "four"], "votes were read by the run that ended"
        runs = await chain(env, "collect:a")
        carried = [payload_of(event).message_id for event in await env.events(runs[1].run_id) if event.kind == "Signal"]
        assert carried[:2] == ["m1", "m2"]


async def test_a_signal_that_comes_while_it_is_continued_is_for_the_new_run():
    async with Env(here) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        await env.signal(first, "line", "one")
        await env.pause(first)
        await env.sleep("1m")
        await env.resume(first)
        assert (await env.show(first)).status is not Status.COMPLETED
        await env.signal(first, "vote", "bob")
        await env.sleep("1m")
        assert await env.query("collect:a", "tally") == ["bob"]


async def test_an_update_that_was_taken_as_its_run_is_continued_is_answered_by_the_new_run():
    store = SlowStore()
    answers: list[int] = []

    async def add(run: str) -> None:
        answers.append(await env.update(run, "add", 3))

    async with Env(here, store=store) as env:
        first = await env.start("turns", 4, id="a")
        store.held = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.signal, first, "next", "now")
            await trio.testing.wait_all_tasks_blocked()
            store.let_go()  # the signal is in the inbox
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(add, first)
            await trio.testing.wait_all_tasks_blocked()
            store.let_go()  # it is delivered: the code wants to be continued, and the update is being written
            await trio.testing.wait_all_tasks_blocked()
            assert [type(entry) for entry in store.batch] == [Post]
            store.held = False
            store.let_go()
        assert answers == [7]
        assert (await env.show(first)).status is Status.CONTINUED


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_the_lock_is_handed_on_though_others_wait_for_it(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        other = await env.start("collect", {"book": "a", "lines": []}, id="b")
        await env.signal(first, "line", "one")
        await env.sleep("1m")
        queue = await env.store.lock_queue("books:a")
        assert [one.run_id for one in queue] == [(await env.show("collect:a")).run_id, other]
        await env.signal("collect:a", "line", "end")
        assert await env.result(first) == ["one"]
        await env.signal(other, "line", "end")
        assert await env.result(other) == []


async def test_each_run_has_a_time_limit_of_its_own():
    async with Env(here) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        await env.sleep("50m")
        await env.signal(first, "line", "one")
        await env.sleep("50m")
        assert (await env.show("collect:a")).status is Status.RUNNING
        assert (await env.ended("collect:a")).status is Status.TIMED_OUT
        assert (await env.ended(first)).status is Status.TIMED_OUT


async def test_a_parent_hears_of_the_last_run_of_its_child():
    async with Env(here) as env:
        run = await env.start("parent", 2)
        assert await env.result(run) == ["counted to 3", "and home"]
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED, Kind.CHILD_ENDED, Kind.ENDED]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize(("how", "status"), [("cancel", Status.CANCELLED), ("terminate", Status.TERMINATED)])
async def test_a_parent_takes_a_child_along_that_was_continued(how, status, passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        run = await env.start("parent", 1)
        await env.sleep("90s")
        await getattr(env, how)(run)
        assert (await env.ended(run)).status is status
        await env.sleep("1s")
        runs = (await env.engine.runs(RunFilter(workflow="count"))).items
        assert [one.status for one in runs] == [status, Status.CONTINUED]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize("how", ["pause", "cancel", "terminate"])
async def test_what_a_person_says_to_the_first_run_reaches_the_last(how, passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("waits", 3, id="w")
        await env.sleep("1s")
        row = await getattr(env.engine, how)(first, by="me")
        await env.sleep("1s")
        last = await env.show("waits:w")
        assert last.run_id not in (first,)
        assert row.run_id == last.run_id
        assert last.paused if how == "pause" else last.status in (Status.CANCELLED, Status.TERMINATED)
        if how == "cancel":
            assert did[-2:] == ["cancelled", "unround 0"], "earlier rounds stay done"
        if how != "pause":
            with pytest.raises(Conflict):
                await env.signal(first, "stop", "late")


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_a_paused_run_is_not_continued_before_it_is_resumed(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("count", {"n": 2}, id="c")
        await env.pause(first)
        await env.sleep("1h")
        assert len(await chain(env, "count:c")) == 1
        await env.resume(first)
        assert await env.result(first) == "counted to 3"


async def test_a_run_that_fails_after_all_is_retried_and_still_found():
    async with Env(here) as env:
        first = await env.start("tries", 2, id="t")
        assert (await env.ended(first)).status is Status.FAILED
        with pytest.raises(Conflict):
            await env.retry(first)
        again = await env.retry("tries:t")
        assert (await env.ended(first)).run_id == again


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nursery", "NotDurable: continue_as_new: other branches are under way"),
        ("beside", "NotDurable: continue_as_new: other branches are under way"),
        ("wrong", "InvalidValue: workflow 'ways': invalid input: Expected `str`"),
        ("more", "TypeError: workflow 'ways'"),
        ("cancelled", "cancelled"),
        ("cut", "end"),
    ],
)
async def test_where_it_may_be_called_and_with_what(how, message):
    async with Env(here) as env:
        run = await env.start("ways", how)
        assert (await env.result(run)).startswith(message)
        assert did == (["cut", "in the saga"] if how == "cut" else [])
        assert await env.store.lock_queue() == []


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
def test_no_crash_breaks_a_chain(passivate_after):
    async def scenario(env):
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        for number, line in enumerate(["one", "two"]):
            await env.signal("collect:a", "line", line, message_id=f"m{number}")
        kid = await env.start("parent", 2)
        await env.sleep("15s")
        await env.signal(first, "line", "three", message_id="m2")
        await env.sleep("1m")
        await env.signal(first, "line", "end", message_id="m3")
        assert await env.result(first) == ["one", "two", "three"]
        assert await env.result(kid) == ["counted to 3", "and home"]
        assert (await env.ended(await env.start("ways", "cut"))).status is Status.COMPLETED
        assert await env.store.lock_queue() == []
        assert [run.status for run in await chain(env, "collect:a")] == [Status.CONTINUED] * 3 + [Status.COMPLETED]
        await trio.sleep(1)

    assert crash_everywhere([here], scenario, passivate_after=passivate_after) > 20


async def test_an_update_by_the_first_runs_id_is_the_last_ones():
    async with Env(here) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        await env.signal(first, "line", "one")
        await env.sleep("15s")
        await env.signal(first, "vote", "ann")
        assert await env.update(first, "strike", "ann") == 0
        assert await env.query("collect:a", "tally") == []


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_a_query_by_the_first_runs_id_is_answered_as_that_run_stood_at_its_end(passivate_after):
    """Only messages follow the chain (DESIGN.md section 5): what an id says must not change when its run has ended."""
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("collect", {"book": "a", "lines": []}, id="a")
        await env.signal(first, "vote", "ann")
        await env.signal(first, "line", "one")
        await env.sleep("15s")
        await env.signal(first, "vote", "bob")
        await env.sleep("1s")
        assert await env.query(first, "tally") == ["ann"]
        assert await env.query("collect:a", "tally") == ["bob"]
