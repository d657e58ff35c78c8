"""`ctx.lock`: who holds, who waits, how long, and that it is given back."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import pytest
import trio

from jivsd import NO_RETRY, Context, Deadlock, Failure, NotDurable, signal, step, workflow
from jivsd.engine.limits import Limits
from jivsd.records import Kind, Status
from jivsd.testing import Env, crash_everywhere

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

order: list[str] = []
working: set[str] = set()
broken: set[str] = set()


@step(retry=NO_RETRY)
async def work(name: str, seconds: float) -> str:
    assert not working, "two at once"
    working.add(name)
    try:
        order.append(name)
        await trio.sleep(seconds)
    finally:
        working.discard(name)
    if name in broken:
        raise Failure(f"{name} is broken")
    return name


@step(retry=NO_RETRY, cancel="wait")
async def dig(name: str, seconds: float) -> str:
    return await work.function(name, seconds)


@step
async def slow_to_stop(name: str) -> None:
    assert not working, "two at once"
    working.add(name)
    try:
        await trio.sleep(100)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(7)
        order.append(f"{name} stopped")
        working.discard(name)


@workflow("user")
async def user(ctx: Context, name: str, seconds: float = 10, timeout: str | None = None) -> list[Any]:
    fences = []
    async with ctx.lock("mill", timeout=timeout) as lock:
        fences.append(lock.fence)
        await ctx.step(work, name, seconds)
    await ctx.sleep(1)
    return [name, *fences]


@workflow("leaves")
async def leaves(ctx: Context, how: str) -> str:
    """Every way out of the block."""
    with suppress(Failure), ctx.move_on_after("5s"):
        async with ctx.lock("mill"):
            match how:
                case "raise":
                    raise Failure("out")
                case "fail":
                    await ctx.step(work, "broken", 1)
                case "timeout":
                    await ctx.sleep("1h")
                case "cut short":
                    await ctx.step(work, "cut", 60)
                case "cut slowly":
                    await ctx.step(slow_to_stop, "slow")
                case "wait":
                    await ctx.step(dig, "dig", 60)
                case _:
                    await ctx.sleep(2)
    await ctx.sleep("1d")
    return how


@workflow("twice", lock_key="own:{name}")
class Twice:
    async def run(self, ctx: Context, name: str) -> list[Any]:
        seen: list[Any] = []
        async with ctx.lock(f"own:{name}") as own, ctx.lock("mill") as outer, ctx.lock("mill", timeout=0) as inner:
            seen += [own.key, outer.fence == inner.fence]
            async with ctx.nursery() as nursery:
                nursery.start_soon(self.again, ctx, seen)
        with pytest.raises(RuntimeError, match="not held"):
            ctx.lock("mill").fence  # noqa: B018  # that it raises is the point
        return seen

    async def again(self, ctx: Context, seen: list[Any]) -> None:
        async with ctx.lock("mill", timeout=0) as lock:
            seen.append(lock.key)


@workflow("siblings")
async def siblings(ctx: Context) -> list[str]:
    done: list[str] = []
    async with ctx.nursery() as nursery:
        for name in "abc":
            nursery[name].start_soon(sibling, ctx, name, done)
    return done


async def sibling(ctx: Context, name: str, done: list[str]) -> None:
    async with ctx.lock("mill"):
        done.append(await ctx.step(work, name, 5))


@workflow("misuse")
async def misuse(ctx: Context, how: str) -> str:
    try:
        if how == "crossed":
            block = ctx.lock("a")
            await block.__aenter__()
            with ctx.cancel_scope():
                await block.__aexit__(None, None, None)
        async with ctx.lock("" if how == "empty" else "a\0b"):
            pass
    except (ValueError, NotDurable) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@workflow("loop")
async def loop(ctx: Context, first: str, second: str) -> str:
    async with ctx.lock(first):
        await ctx.sleep(1)
        async with ctx.lock(second, timeout="1h"):
            return "both"


@workflow("repaired")
class Repaired:
    stopped = False

    @signal
    def stop(self) -> None:
        self.stopped = True

    async def run(self, ctx: Context) -> list[Any]:
        async with ctx.lock("mill") as lock:
            first = lock.fence
            await ctx.step(work, "begin", 1)
            await ctx.step(work, "mend", 5)
            return [first, lock.fence]


@workflow("chain")
async def chain(ctx: Context, left: int) -> int:
    async with ctx.lock("mill") as lock:
        await ctx.step(work, f"chain {left}", 5)
        if left:
            await ctx.continue_as_new(left - 1)
        return lock.fence


@workflow("crossing")
async def crossing(ctx: Context, limit: str | None, inner: str | None = None) -> list[str]:
    """Two branches that take two locks in contrary order."""
    said: list[str] = []
    with ctx.move_on_after(limit) if limit else ctx.cancel_scope():
        async with ctx.nursery() as nursery:
            nursery["left"].start_soon(cross, ctx, "a", "b", None, said)
            nursery["right"].start_soon(cross, ctx, "b", "c", None, said)
            nursery["far"].start_soon(cross, ctx, "c", "a", inner, said)
    return said


async def cross(ctx: Context, first: str, second: str, timeout: str | None, said: list[str]) -> None:
    async with ctx.lock(first):
        await ctx.sleep("abc".index(first) + 1)
        try:
            async with ctx.lock(second, timeout=timeout):
                said.append(f"{first}{second}")
        except (Deadlock, TimeoutError) as error:
            said.append(f"{type(error).__name__}: {error}")


@workflow("begged")
async def begged(ctx: Context) -> str:
    """Waits outside of the block for what it holds itself, until it is told not to."""
    async with ctx.nursery() as nursery, ctx.lock("mill"):
        nursery["child"].start_soon(user.function, ctx, "child", 1)
        await ctx.wait_signal("enough")
    return "done"


@pytest.fixture(autouse=True)
def _afresh():
    order.clear()
    working.clear()
    broken.clear()


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_blocks_of_one_key_come_one_after_the_other_first_come_first_served(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        runs = []
        for name in "abc":
            runs.append(await env.start("user", {"name": name}))
            await trio.sleep(1)
        (wait,) = await env.waits(runs[2])
        assert (wait.kind, wait.what, wait.behind) == ("lock", "lock 'mill'", runs[:2])
        results = [await env.result(run) for run in runs]
        assert order == ["a", "b", "c"]
        fences = [fence for _, fence in results]
        assert fences == sorted(set(fences)), "each holder has a higher fence number"
        assert await env.store.lock_queue() == []
        kinds = [event.kind for event in await env.events(runs[0])]
        assert kinds == [Kind.STARTED, Kind.LOCK_GRANTED, Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.ENDED]


@pytest.mark.parametrize(("how", "after"), [("leave", 2), ("raise", 0), ("fail", 1), ("timeout", 5), ("cut short", 5)])
async def test_every_way_out_of_the_block_gives_it_back(how, after):
    broken.add("broken")
    async with Env(here) as env:
        await env.start("leaves", how)
        run = await env.start("user", {"name": "next", "seconds": 0})
        began = trio.current_time()
        await env.result(run)
        assert trio.current_time() - began == pytest.approx(after + 1, abs=0.01)


@pytest.mark.parametrize(("how", "after"), [("cut slowly", 12), ("wait", 5)])
async def test_it_is_not_given_back_while_a_cancelled_step_still_works(how, after):
    async with Env(here) as env:
        await env.start("leaves", how)
        run = await env.start("user", {"name": "next", "seconds": 0})
        began = trio.current_time()
        await env.result(run)
        assert trio.current_time() - began == pytest.approx(after + 1, abs=0.01)


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_an_end_gives_it_back(how, passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("user", {"name": "first", "seconds": 1000})
        second = await env.start("user", {"name": "second"})
        await trio.sleep(1)
        await getattr(env, how)(first)
        assert (await env.result(second))[0] == "second"
        assert await env.store.lock_queue() == []


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_who_waits_too_long_leaves_the_queue(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        await env.start("user", {"name": "first", "seconds": 20})
        impatient = await env.start("user", {"name": "impatient", "timeout": "5s"})
        last = await env.start("user", {"name": "last", "timeout": "1m"})
        row = await env.ended(impatient)
        assert row.error is not None
        assert (row.error.type, row.error.message) == ("TimedOut", "waited for lock 'mill' in vain")
        assert [one.run_id for one in await env.store.lock_queue("mill")][1:] == [last]
        assert (await env.result(last))[0] == "last"


async def test_who_would_not_wait_hears_who_holds_it():
    async with Env(here) as env:
        free = await env.start("user", {"name": "free", "timeout": "0s"})
        late = await env.start("user", {"name": "late", "timeout": "0s"})
        row = await env.ended(late)
        assert row.error is not None
        assert (row.error.type, row.error.data) == ("TimedOut", {"run_id": free})
        assert row.error.message == f"lock 'mill' is held by run {free}"
        assert (await env.result(free))[0] == "free"
        assert (await env.result(await env.start("user", {"name": "again", "timeout": "0s"})))[0] == "again"


async def test_what_a_run_or_a_block_around_has_already_is_not_asked_for_again():
    async with Env(here) as env:
        run = await env.start("twice", "x")
        assert await env.result(run) == ["own:x", True, "mill"]
        assert [event.path for event in await env.events(run) if event.kind == Kind.LOCK_GRANTED] == ["!lock", "lock"]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_branches_of_one_run_exclude_each_other(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        assert await env.result(await env.start("siblings")) == ["a", "b", "c"]
        assert order == ["a", "b", "c"]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_starts_with_a_lock_key_and_blocks_use_the_same_keys(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        run = await env.start("user", {"name": "a", "seconds": 5})
        await trio.sleep(1)
        other = await env.start("user", {"name": "b"}, lock_key="mill")
        await trio.sleep(1)
        assert (await env.show(other)).status is Status.PENDING
        await env.result(run)
        await env.result(other)
        assert order == ["a", "b"]


@pytest.mark.parametrize(
    ("how", "message"),
    [("empty", "ValueError: a lock key has 1 to 512"), ("nul", "ValueError"), ("crossed", "NotDurable: lock 'a' must")],
)
async def test_misuse_is_explained(how, message):
    async with Env(here) as env:
        assert (await env.result(await env.start("misuse", how))).startswith(message)


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_a_reset_run_draws_the_locks_again_that_its_code_holds_before_it_goes_on(passivate_after):
    broken.add("mend")
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("repaired", id="r")
        await env.ended(first)
        broken.clear()
        other = await env.start("user", {"name": "other", "seconds": 30})
        again = await env.retry(first)
        await trio.sleep(10)
        (wait, *_) = [one for one in await env.waits(again) if one.kind == "lock"]
        assert wait.behind == [other]
        before, after = await env.result(again)
        assert after > before
        assert order == ["begin", "mend", "other", "mend"]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
async def test_a_blocked_run_keeps_its_lock_and_an_ended_one_does_not(passivate_after):
    async with Env(here, passivate_after=passivate_after) as env:
        first = await env.start("user", {"name": "first", "seconds": 10})
        second = await env.start("user", {"name": "second"})
        await trio.sleep(1)
        env.engine.actors[first].machine.block("replay", "planted")
        env.engine.actors[first].wake()
        await trio.sleep(100)
        assert (await env.show(second)).parked is (passivate_after == 0)
        (wait,) = await env.waits(second)
        assert wait.behind == [first]
        await env.terminate(first)
        assert (await env.result(second))[0] == "second"


async def test_a_suspended_runs_end_calls_those_who_are_parked():
    async with Env(here, passivate_after=0) as env:
        first = await env.start("user", {"name": "first", "seconds": 10})
        await trio.sleep(1)
        second = await env.start("user", {"name": "second"})
        await trio.sleep(1)
        while first not in env.engine.suspended:
            if (actor := env.engine.actors.get(first)) is not None:
                actor.fail(RuntimeError("planted"))
            await trio.sleep(0.1)
        assert (await env.show(second)).parked
        await env.terminate(first)
        assert (await env.result(second))[0] == "second"


async def test_a_paused_run_that_waits_gets_its_turn_and_does_nothing_with_it_before_it_is_resumed():
    async with Env(here) as env:
        first = await env.start("user", {"name": "first"})
        second = await env.start("user", {"name": "second"})
        await trio.sleep(1)
        await env.pause(second)
        await env.result(first)
        await trio.sleep(100)
        assert order == ["first"]
        assert [one.run_id for one in await env.store.lock_queue("mill")] == [second]
        await env.resume(second)
        assert (await env.result(second))[0] == "second"


async def test_who_is_continued_as_new_goes_to_the_end_of_the_queue():
    async with Env(here) as env:
        first = await env.start("chain", 1)
        second = await env.start("user", {"name": "second", "seconds": 1})
        fence = await env.result(first)
        assert order == ["chain 1", "second", "chain 0"]
        assert fence > (await env.result(second))[1]
        assert await env.store.lock_queue() == []


DEADLOCK = "Deadlock: lock 'a' is held by another branch of this run, which waits for a lock that this one holds"


@pytest.mark.parametrize(
    ("limit", "inner", "said"),
    [
        (None, None, {DEADLOCK}),
        (None, "5s", {"TimedOut: waited for lock 'a' in vain"}),
        ("5s", None, set()),
    ],
)
async def test_a_run_that_would_wait_for_itself_for_ever_is_told_so(limit, inner, said):
    async with Env(here) as env:
        run = await env.start("crossing", {"limit": limit, "inner": inner})
        result = await env.result(run)
        assert {line for line in result if ":" in line} == said
        assert [line for line in result if ":" not in line] == (["bc", "ab"] if said else [])


async def test_it_can_be_seen_that_a_run_waits_for_what_it_holds_itself():
    async with Env(here) as env:
        run = await env.start("begged")
        await trio.sleep(1)
        (wait,) = [one for one in await env.waits(run) if one.kind == "lock"]
        assert (wait.path, wait.behind) == ("nursery[child]/lock", [run])
        await env.signal(run, "enough")
        assert await env.result(run) == "done"


async def test_a_reset_run_that_waits_for_room_stands_in_no_queue():
    broken.add("mend")
    async with Env(here, limits=Limits(active_runs=1)) as env:
        first = await env.start("repaired")
        await env.ended(first)
        broken.clear()
        other = await env.start("siblings")
        await trio.sleep(1)
        again = await env.retry(first)
        await trio.sleep(1)
        assert {one.run_id for one in await env.store.lock_queue("mill")} == {other}
        await env.result(other)
        await env.result(again)
        assert order == ["begin", "mend", "a", "b", "c", "mend"]


HOLDS = """
from jivsd import Context, step, workflow

@step
async def work(n: int) -> int:
    return n

@workflow("holds")
async def holds(ctx: Context) -> list:
    async with ctx.lock("mill") as lock:
        await ctx.wait_signal("go")
    await ctx.wait_signal("on")
    return [lock.key]
"""


async def test_code_is_changed_under_a_run_only_if_it_holds_the_same_locks(tmp_path):
    file = tmp_path / "p.py"
    file.write_text(HOLDS)
    async with Env(file) as env:
        past, inside, waits = [await env.start("holds") for _ in range(3)]
        await env.signal(past, "go")
        await trio.sleep(1)
        file.write_text(HOLDS.replace('    await ctx.wait_signal("on")', '        await ctx.wait_signal("on")'))
        await env.reload()
        moves = await env.adopt("p")
        assert {run: move.state for run, move in moves.items()} == {past: "stays", inside: "moved", waits: "moved"}
        assert (moves[past].path, moves[past].expected, moves[past].found) == ("lock", "lock, over", "lock, held")
        for run in (past, inside, waits):
            for name in ("on",) if run == past else ("go", "on"):
                await env.signal(run, name)
            assert await env.result(run) == ["mill"]


async def test_blocked_code_is_not_mended_into_holding_a_lock_that_was_given_back(tmp_path):
    file = tmp_path / "p.py"
    file.write_text(HOLDS.replace('await ctx.wait_signal("on")', "import trio; await trio.sleep(1)"))
    async with Env(file) as env:
        run = await env.start("holds")
        await env.signal(run, "go")
        await trio.sleep(1)
        assert (await env.show(run)).status is Status.BLOCKED
        file.write_text(HOLDS.replace('    await ctx.wait_signal("on")', '        await ctx.wait_signal("on")'))
        await env.reload()
        move = (await env.adopt("p"))[run]
        assert (move.state, move.path, move.found) == ("stays", "lock", "lock, held")


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
def test_no_crash_loses_a_lock_or_lets_two_in(passivate_after):
    async def scenario(env):
        working.clear()
        first = await env.start("leaves", "leave")
        runs = []
        for name in "ab":
            await trio.sleep(0.5)
            runs.append(await env.start("user", {"name": name, "seconds": 3}))
        await trio.sleep(0.25)
        impatient = await env.start("user", {"name": "impatient", "timeout": "3s"})
        refused = await env.start("user", {"name": "refused", "timeout": "0s"})
        assert [(await env.result(run))[0] for run in runs] == ["a", "b"]
        assert {(await env.ended(run)).status for run in (impatient, refused)} == {Status.FAILED}
        if passivate_after is None:
            assert await env.result(await env.start("siblings")) == ["a", "b", "c"]
            assert await env.result(await env.start("twice", "x")) == ["own:x", True, "mill"]
        await env.ended(first)
        assert await env.store.lock_queue() == []

    assert crash_everywhere([here], scenario, passivate_after=passivate_after) > 20
