"""Updates: checked, durable, applied once, answered; plain ones and those that work for a while."""

from __future__ import annotations

import sys

import msgspec
import pytest
import trio

from engine import commands
from jivsd import Context, TimedOut, update, workflow
from jivsd.engine.api import Conflict, Gone, Invalid, NotFound, UpdateFailed
from jivsd.records import NULL, Kind, Status, payload_of
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@pytest.fixture(autouse=True)
def _fresh():
    commands.fresh_world()


@workflow("counter")
class Counter:
    """Ends when it is told to; while it ends, it takes nothing more."""

    def __init__(self) -> None:
        self.total = 0
        self.over = ""

    @update
    def add(self, amount: int, times: int = 1) -> int:
        if amount == 13:
            raise ValueError("unlucky")
        self.total += amount * times
        return self.total

    @add.validator
    def check(self, amount: int, times: int) -> None:
        if self.total + amount * times > 100:
            raise ValueError("at most 100")

    @update("odd-result")
    def odd(self) -> int:
        return "odd"  # pyright: ignore[reportReturnType]

    @update
    async def wait(self, ctx: Context, seconds: float) -> str:
        await ctx.sleep(seconds)
        return f"waited {seconds:g} s"

    @update
    async def patience(self, ctx: Context) -> str:
        with ctx.fail_after("5s"):
            await ctx.wait_until(lambda: self.total == 100)
        return "at last"

    @update
    def end(self, how: str) -> None:
        self.over = how

    async def run(self, ctx: Context) -> int:
        await ctx.wait_until(lambda: self.over)
        if self.over != "well":
            raise ValueError(self.over)
        return self.total


async def test_an_update_changes_the_run_and_is_answered():
    async with Env(here) as env:
        run = await env.start("counter", id="c")
        assert await env.update(run, "add", {"amount": 3}) == 3
        assert await env.update("counter:c", "add", {"amount": 2, "times": 5}) == 13
        assert await env.update(run, "wait", 60) == "waited 60 s"
        assert await env.update(run, "end", "well") is None
        assert await env.result(run) == 13
        kinds = [event.kind for event in await env.events(run)]
        assert kinds.count(Kind.UPDATE) == kinds.count(Kind.UPDATE_DONE) == 4


async def test_a_run_that_has_left_memory_comes_back_for_an_update():
    async with Env(here, passivate_after=0) as env:
        run = await env.start("counter")
        await env.sleep("1m")
        assert env.engine.actors == {}
        with pytest.raises(Invalid, match="at most 100"):
            await env.update(run, "add", {"amount": 101})
        assert env.engine.actors == {}
        assert await env.update(run, "add", {"amount": 3}) == 3
        await env.sleep("1m")
        assert await env.update(run, "wait", 600) == "waited 600 s"
        await env.update(run, "end", "well")
        assert await env.result(run) == 3


async def test_it_is_applied_once_and_answered_as_it_was():
    async with Env(here) as env:
        run = await env.start("counter", id="c")
        first = await env.engine.update(run, "add", b'{"amount": 60}', message_id="m", wait=1)
        again = await env.engine.update(run, "add", b'{"amount": 60}', message_id="m")  # its validator would refuse it
        assert (first.duplicate, again.duplicate) == (False, True)
        assert (first.value, again.value) == (msgspec.Raw(b"60"), msgspec.Raw(b"60"))
        await env.update(run, "end", "well")
        await env.result(run)
        second = await env.start("counter", id="c")
        late = await env.engine.update("counter:c", "add", b'{"amount": 1}', message_id="m")
        assert (late.run_id, late.value) == (run, msgspec.Raw(b"60"))
        await env.engine.prune(RunFilter())
        with pytest.raises(Gone, match="was pruned"):
            await env.engine.update("counter:c", "add", b'{"amount": 60}', message_id="m")
        assert await env.update(second, "add", {"amount": 1}) == 1


async def test_one_that_is_at_work_is_answered_later():
    async with Env(here) as env:
        run = await env.start("counter")
        soon = await env.engine.update(run, "wait", b"60", message_id="m", wait=5)
        assert (soon.answered, soon.value) == (False, NULL)
        assert [(wait.kind, wait.path) for wait in await env.waits(run)] == [
            ("update", "!update[m]"),
            ("timer", "!update[m]/sleep"),
            ("until", "wait_until"),
        ]
        env.engine.actors[run].fail(RuntimeError("planted"))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(answered, env, run)


async def answered(env: Env, run: str) -> None:
    assert await env.update(run, "wait", 60, message_id="m") == "waited 60 s"


async def test_a_run_does_not_end_before_its_updates():
    async with Env(here) as env:
        run = await env.start("counter")
        env.later("1s", env.update, run, "end", "well")
        await env.engine.update(run, "wait", b"60", message_id="m")
        await trio.sleep(30)
        assert (await env.show(run)).status is Status.RUNNING
        with pytest.raises(UpdateFailed, match="the run has come to its end"):
            await env.update(run, "add", {"amount": 5}, message_id="late")
        assert await env.update(run, "wait", 60, message_id="m") == "waited 60 s"
        assert await env.result(run) == 0


@pytest.mark.parametrize("how", ["fail", "cancel", "terminate"])
async def test_what_ends_the_run_otherwise_ends_its_updates(how):
    async with Env(here) as env:
        run = await env.start("counter")
        await env.engine.update(run, "wait", b"60", message_id="m")
        await trio.sleep(1)
        await (env.update(run, "end", "badly") if how == "fail" else getattr(env, how)(run))
        problem = "ended before it answered" if how == "terminate" else "Cancelled: the run has come to its end"
        with pytest.raises((UpdateFailed, Conflict), match=problem):
            await env.update(run, "wait", 60, message_id="m")
        expected = {"fail": Status.FAILED, "cancel": Status.CANCELLED, "terminate": Status.TERMINATED}
        assert (await env.ended(run)).status is expected[how]


async def test_who_waits_for_an_answer_hears_of_the_end():
    async with Env(here) as env:
        run = await env.start("counter")
        env.later("10s", env.terminate, run)
        with pytest.raises(Conflict, match="ended before it answered"):
            await env.update(run, "wait", 60)
        assert env.engine.answers._waiting == {}


async def test_what_a_handler_raises_goes_to_the_caller_alone():
    async with Env(here) as env:
        run = await env.start("counter")
        with pytest.raises(UpdateFailed, match="update 'add' failed: ValueError: unlucky") as failed:
            await env.update(run, "add", {"amount": 13})
        assert failed.value.data["error"].type == "ValueError"
        with pytest.raises(UpdateFailed, match="does not fit its annotation: Expected `int`, got `str`"):
            await env.update(run, "odd-result")
        with pytest.raises(UpdateFailed, match=TimedOut.__name__):
            await env.update(run, "patience")
        assert (await env.show(run)).status is Status.RUNNING
        assert await env.update(run, "add", {"amount": 1}) == 1


async def test_what_does_not_fit_is_refused_and_leaves_nothing():
    async with Env(here) as env:
        run = await env.start("counter")
        for name, payload, problem in [
            ("add", b'{"amount": 101}', "update 'add' is refused: ValueError: at most 100"),
            ("add", b'{"amount": "x"}', "Expected `int`, got `str`"),
            ("add", b"{", "add"),
        ]:
            with pytest.raises(Invalid, match=problem):
                await env.engine.update(run, name, payload)
        with pytest.raises(NotFound, match="has no update 'sub'; it has: add, end, odd-result, patience, wait"):
            await env.engine.update(run, "sub", b"1")
        assert len(await env.events(run)) == 1
        assert await env.store.messages(run) == []


async def test_the_validator_is_asked_again_when_it_is_applied():
    async with Env(here) as env:
        run = await env.start("counter")
        await env.pause(run)
        refused: list[str] = []

        async def add() -> None:
            try:
                await env.update(run, "add", {"amount": 60})
            except UpdateFailed as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add)
            nursery.start_soon(add)
        assert refused == ["update 'add' failed: ValueError: at most 100"]


async def test_a_message_id_is_for_one_kind_of_message():
    async with Env(here) as env:
        run = await env.start("counter")
        await env.signal(run, "hello", message_id="m")
        with pytest.raises(Conflict, match="message id 'm' was used for a signal"):
            await env.update(run, "add", {"amount": 1}, message_id="m")


async def test_an_ended_run_takes_no_updates():
    async with Env(here) as env:
        run = await env.start("counter")
        await env.update(run, "end", "well")
        await env.result(run)
        with pytest.raises(Conflict, match="has ended") as refused:
            await env.update(run, "add", {"amount": 1})
        assert refused.value.code == "ended"


async def test_before_its_code_has_begun_a_run_takes_updates_and_applies_them_then():
    async with Env(commands) as env:
        first = await env.start("basket", False)
        second = await env.start("basket", False)
        await env.engine.update(second, "add", b'"lamp"', message_id="a")
        await env.engine.update(second, "reserve", b'"desk"', message_id="b")
        await trio.sleep(60)
        assert commands.world.executed == {}
        third = await env.start("basket", False)
        await env.engine.update(third, "add", b'"lamp"', message_id="c")
        await env.cancel(third)
        with pytest.raises(UpdateFailed, match="the run has come to its end"):
            await env.update(third, "add", "lamp", message_id="c")
        await env.signal(first, "pay")
        assert await env.update(second, "reserve", "desk", message_id="b") == "booked desk"
        assert await env.update(second, "add", "lamp", message_id="a") == 1
        await env.signal(second, "pay")
        assert await env.result(second) == ["lamp", "desk"]


@workflow("mended")
class Mended:
    def __init__(self) -> None:
        self.items: list[str] = []
        self.closed = False

    @update
    def add(self, item: str) -> None:
        if item == "bad":
            raise ValueError(item)
        self.items.append(item)

    @update
    def close(self) -> None:
        self.closed = True

    async def run(self, ctx: Context) -> list[str]:
        try:
            await ctx.step(commands.use, "mill")
        except commands.Declined:
            await ctx.wait_until(lambda: self.closed)
            raise
        return self.items


async def test_a_reset_keeps_the_updates_that_were_not_refused():
    commands.world.broken.add("mill")
    async with Env(here) as env:
        run = await env.start("mended")
        await env.update(run, "add", "lamp")
        with pytest.raises(UpdateFailed, match="bad"):
            await env.update(run, "add", "bad")
        await env.update(run, "close")
        assert (await env.ended(run)).status is Status.FAILED
        commands.world.broken.clear()
        again = await env.retry(run)
        assert await env.result(again) == ["lamp"]
        kept = [payload_of(event).name for event in await env.events(again) if event.kind == Kind.UPDATE]
        assert kept == ["add", "close"]
