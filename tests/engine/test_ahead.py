"""Running ahead: what the code sees of a step that is being committed, and what others see of that."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.testing

from engine.stores import SlowStore
from jivsd import Context, Retry, StepContext, query, signal, step, update, workflow
from jivsd.engine.api import Invalid
from jivsd.records import Kind, Status
from jivsd.store.api import Entry, Refused
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

did: list[str] = []


@step
async def note(what: str) -> str:
    did.append(what)
    return what


@workflow("one")
async def one(ctx: Context) -> str:
    return await ctx.step(note, "only")


@workflow("timed", timeout="1h")
async def timed(ctx: Context) -> str:
    return await ctx.step(note, "only")


@workflow("strays")
async def strays(ctx: Context) -> None:
    await ctx.step(note, "first")
    with trio.CancelScope():
        await trio.sleep(1)


@workflow("fails")
async def fails(ctx: Context) -> None:
    await ctx.step(note, "first")
    raise ValueError("planted")


@workflow("steps")
class Steps:
    seen = ""

    @query
    def so_far(self) -> str:
        return self.seen

    @update
    def look(self) -> str:
        return self.seen

    @look.validator
    def may_look(self) -> None:
        if not self.seen:
            raise ValueError("nothing to be seen yet")

    async def run(self, ctx: Context) -> str:
        for what in "ab":
            self.seen += await ctx.step(note, what)
        await ctx.sleep("1h")
        return self.seen


@workflow("hears")
async def hears(ctx: Context) -> str:
    return await ctx.wait_signal("go", str)


@workflow("hears-in-time", timeout="1h")
async def hears_in_time(ctx: Context) -> str:
    async with ctx.nursery() as nursery:
        late = nursery.start_soon(note, "late")
        heard = await ctx.wait_signal("go", str)
    return heard + late.result


@workflow("hears-and-does", timeout="1h")
async def hears_and_does(ctx: Context) -> str:
    return await ctx.step(note, await ctx.wait_signal("go", str))


@workflow("minds")
class Minds:
    @signal
    def go(self, what: str) -> None:
        raise ValueError(what)

    async def run(self, ctx: Context) -> None:
        await ctx.sleep("1d")


@step
async def nap(seconds: float) -> str:
    await trio.sleep(seconds)
    return "a"


@step(retry=Retry(attempts=2, first="2s"))
async def second_time(ctx: StepContext) -> str:
    if ctx.attempt == 1:
        raise OSError("planted")
    await told.wait()
    return "b"


@workflow("two")
async def two(ctx: Context) -> str:
    async with ctx.nursery() as nursery:
        steps = nursery.start_soon(nap, 1), nursery.start_soon(second_time)
    return "".join(one.result for one in steps) + await ctx.step(note, "c")


told = trio.Event()


class Telling(SlowStore):
    """Says that a batch is written in the very turn in which the engine hears of it."""

    async def commit(self, batch: Any, more: Any = None) -> Any:
        verdicts = await super().commit(batch)
        told.set()
        return verdicts


class Watched(SlowStore):
    """Keeps what was written together; `taken_over`: a run whose step is done has another owner by then."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.taken_over = False

    async def commit(self, batch: Any, more: Any = None) -> Any:
        kinds = [event.kind for entry in batch if isinstance(entry, Entry) for event in entry.events]
        self.batches.append(kinds)
        if self.taken_over and (Kind.STEP_DONE in kinds or Kind.SIGNAL in kinds):
            return [Refused("fenced")] * len(batch)
        return await super().commit(batch)


@pytest.fixture(autouse=True)
def nothing_done():
    did.clear()


async def waiting(store: SlowStore) -> list[str]:
    """The kinds of the events that wait to be committed."""
    await trio.testing.wait_all_tasks_blocked()
    return [event.kind for entry in store.batch if isinstance(entry, Entry) for event in entry.events]


@pytest.mark.parametrize("name", ["one", "timed"])
async def test_the_end_is_written_with_the_outcome_that_leads_to_it(name):
    store = Watched()
    async with Env(here, store=store) as env:
        run = await env.start(name)
        assert await env.result(run) == "only"
        assert store.batches == [[Kind.STARTED], [Kind.STEP_DONE, Kind.ENDED]]
        assert (await env.show(run)).status is Status.COMPLETED


async def test_the_next_step_begins_after_the_commit():
    store = SlowStore()
    async with Env(here, store=store) as env:
        run = await env.start("steps")
        await trio.testing.wait_all_tasks_blocked()
        did.clear()
        store.held = True
        other = await start_held(env, store, "steps")
        assert await waiting(store) == [Kind.STEP_DONE]
        assert did == ["a"], "the second step waits for the first one's commit"
        store.held = False
        store.let_go()
        await trio.testing.wait_all_tasks_blocked()
        assert did == ["a", "b"]
        assert {run, other} == set(env.engine.actors)


@pytest.mark.parametrize("_", range(16))
async def test_the_next_step_ends_in_the_turn_in_which_the_commit_is_told(_, monkeypatch):
    """Trio draws lots whether the step or who delivers the commit comes first: both happen among so many."""
    store = Telling()
    async with Env(here, store=store) as env:
        run = await env.start("two")
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(here, "told", trio.Event())
        store.held = True
        await env.sleep("1500ms")
        assert await waiting(store) == [Kind.STEP_DONE], "of the first step, which the code has seen"
        await env.sleep("1s")
        assert env.engine.actors[run].attempts, "the other one is tried again meanwhile"
        store.held = False
        store.let_go()
        await trio.testing.wait_all_tasks_blocked()
        assert (await env.engine.incidents(None)).items == []
        assert await env.result(run) == "abc"


async def test_a_query_sees_what_is_committed_only():
    store = SlowStore()
    async with Env(here, store=store) as env:
        store.held = True
        run = await start_held(env, store, "steps")
        assert await waiting(store) == [Kind.STEP_DONE]
        assert await env.query(run, "so_far") == "", "it takes too long: the journal answers"
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await env.query(run, "so_far"))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            store.held = False
            store.let_go()
        assert answers == ["a"] or answers == ["ab"]


async def test_an_update_is_judged_by_what_is_committed():
    """A node that stands still just then never commits it: the run's next owner would refuse what was accepted."""
    store = SlowStore()
    async with Env(here, store=store) as env:
        store.held = True
        run = await start_held(env, store, "steps")
        assert await waiting(store) == [Kind.STEP_DONE]
        with trio.fail_after(10), pytest.raises(Invalid, match="nothing to be seen yet"):
            await env.update(run, "look")
        store.held = False
        store.let_go()
        assert await env.update(run, "look") in ("a", "ab")


async def start_held(env: Env, store: SlowStore, name: str) -> str:
    """Start a run of which nothing but the start is committed."""
    async with trio.open_nursery() as nursery:
        found: list[str] = []

        async def begin() -> None:
            found.append(await env.start(name))

        nursery.start_soon(begin)
        assert await waiting(store) == [Kind.STARTED]
        store.let_go()
    return found[0]


async def test_an_outcome_that_is_refused_takes_the_end_with_it():
    store = Watched()
    async with Env(here, store=store) as env:
        store.taken_over = True
        run = await env.start("one")
        await trio.testing.wait_all_tasks_blocked()
        assert store.batches == [[Kind.STARTED], [Kind.STEP_DONE, Kind.ENDED]]
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED]
        assert run not in env.engine.actors, "it was dropped"
        assert (await env.show(run)).status is Status.RUNNING


async def test_what_the_code_may_not_do_is_undone_before_the_commit():
    async with Env(here) as env:
        run = await env.start("strays")
        await trio.testing.wait_all_tasks_blocked()
        (incident,) = (await env.engine.incidents(None)).items
        assert (incident.run_id, incident.kind) == (run, "foreign")
        assert (await env.show(run)).status is Status.BLOCKED
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED, Kind.STEP_DONE]
        assert await env.result(await env.start("one")) == "only"


async def test_a_failure_is_recorded_after_the_commit():
    async with Env(here) as env:
        run = await env.start("fails")
        assert (await env.ended(run)).status is Status.FAILED
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED, Kind.STEP_DONE, Kind.ENDED]


@pytest.mark.parametrize("name", ["one", "timed", "steps", "fails"])
def test_a_crash_between_the_two_changes_nothing(name):
    async def scenario(env: Env) -> None:
        await env.ended(await env.start(name, id="only"))

    assert crash_everywhere([here], scenario) >= 3


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("hears", [[Kind.SIGNAL, Kind.ENDED]]),
        ("hears-in-time", [[Kind.SIGNAL, Kind.ENDED]]),
        ("hears-and-does", [[Kind.SIGNAL], [Kind.STEP_DONE, Kind.ENDED]]),
    ],
)
async def test_a_parked_run_ends_in_the_commit_of_the_signal_that_it_came_back_for(name, written):
    store = Watched()
    async with Env(here, store=store, passivate_after="1s") as env:
        run = await env.start(name)
        await env.sleep("1m")
        assert run not in env.engine.actors
        store.batches.clear()
        await env.signal(run, "go", "late")
        assert await env.result(run) in ("late", "latelate")
        assert [batch for batch in store.batches if batch] == written


async def test_a_parked_run_whose_handler_fails_is_blocked_and_its_signal_recorded():
    async with Env(here, passivate_after="1s") as env:
        run = await env.start("minds")
        await env.sleep("1m")
        assert run not in env.engine.actors
        await env.signal(run, "go", "planted")
        await env.sleep("1s")
        (incident,) = (await env.engine.incidents(None)).items
        assert (incident.run_id, incident.kind) == (run, "handler")
        assert (await env.show(run)).status is Status.BLOCKED
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED, Kind.SIGNAL]


async def test_a_refused_signal_takes_the_end_with_it_and_stays_unread():
    store = Watched()
    async with Env(here, store=store, passivate_after="1s") as env:
        run = await env.start("hears")
        await env.sleep("1m")
        store.taken_over = True
        await env.signal(run, "go", "now")
        await trio.testing.wait_all_tasks_blocked()
        assert store.batches[-1] == [Kind.SIGNAL, Kind.ENDED]
        assert [event.kind for event in await env.events(run)] == [Kind.STARTED]
        assert run not in env.engine.actors, "it was dropped"
        assert [message.kind for message in await store.messages(run)] == [Kind.SIGNAL]


@pytest.mark.parametrize("name", ["hears", "hears-in-time", "hears-and-does"])
def test_a_crash_around_a_signal_changes_nothing(name):
    async def scenario(env: Env) -> None:
        run = await env.start(name, id="only")
        await env.sleep("1m")
        await env.signal(f"{name}:only", "go", "now", message_id="once")
        await env.ended(run)

    assert crash_everywhere([here], scenario) >= 3
