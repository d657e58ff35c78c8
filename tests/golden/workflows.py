"""Workflows that use every kind of command, for the golden journals. Never change one of them: add another."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import trio

from jivsd import (
    NO_RETRY,
    Context,
    Failure,
    Retry,
    StepContext,
    Transaction,
    query,
    signal,
    step,
    workflow,
)

QUICK = Retry(attempts=3, first="1s", factor=2, limit="10s", jitter=0)


class Order(msgspec.Struct):
    customer: str
    parts: list[str]


class Declined(Failure):
    pass


@step
async def double(n: int) -> int:
    return 2 * n


@step
def plain(text: str) -> str:
    return text.upper()


@step(retry=QUICK)
async def flaky(ctx: StepContext, failures: int) -> int:
    if ctx.attempt <= failures:
        raise ConnectionError(f"attempt {ctx.attempt} fails")
    return ctx.attempt


@step(retry=NO_RETRY)
async def decline(amount: int) -> None:
    raise Declined("no funds", amount=amount)


@step
async def write(tx: Transaction, text: str) -> int:
    await tx.execute("CREATE TABLE IF NOT EXISTS golden (text TEXT)")
    return await tx.execute("INSERT INTO golden VALUES (?)", (text,))


@step
async def reserve(part: str) -> int:
    return len(part)


@reserve.compensate
async def release(ctx: StepContext, reserved: int | None, part: str) -> None: ...


@step
async def show(values: list[str]) -> str:
    return " ".join(values)


@workflow("golden-steps")
async def steps(ctx: Context, n: int) -> list[int | str]:
    """Steps of each mode, retries, an error that is caught, options."""
    doubled = await ctx.step(double, n)
    text = await ctx.step(plain, "abc")
    attempts = await ctx.step(flaky, 2)
    written = await ctx.step(write, "once")
    try:
        await ctx.step(decline, 12)
    except Declined as error:
        refused = error.data["amount"]
    again = await ctx.step(double.options(name="again", timeout="1m"), doubled)
    return [doubled, text, attempts, written, refused, again]


@workflow("golden-time")
async def times(ctx: Context) -> list[str]:
    """Timers and deadlines, met and missed; a shield; a scope that is cancelled by its own code."""
    said = [ctx.now().isoformat()]
    await ctx.sleep("90m")
    await ctx.sleep_until(datetime(2026, 1, 2, tzinfo=UTC))
    with ctx.move_on_after("1h") as scope:
        await ctx.sleep("2h")
    said.append(f"moved on: {scope.cancelled}")
    try:
        with ctx.fail_after(5):
            try:
                await ctx.sleep(10)
            finally:
                with ctx.shield():
                    await ctx.step(double, 1)
    except TimeoutError:
        said.append("timed out")
    with ctx.move_on_after(0):
        await ctx.step(double, 2)
    with ctx.cancel_scope() as scope:
        scope.cancel()
        await ctx.step(double, 3)
    said.append(ctx.now().isoformat())
    return said


@workflow("golden-derived")
async def derived(ctx: Context) -> list[str]:
    """What is drawn and recorded: random numbers, UUIDs, the time, side effects, versions."""
    drawn = await ctx.step(show, [str(ctx.random.random()), str(ctx.uuid()), str(ctx.uuid()), ctx.now().isoformat()])
    noted = await ctx.side_effect(lambda: "once")
    version = await ctx.version("change", 1, 3)
    async with ctx.nursery("n") as nursery:
        jobs = [nursery[key].start_soon(_draw, ctx) for key in "ab"]
    return [drawn, noted, str(version), *(job.result for job in jobs)]


async def _draw(ctx: Context) -> str:
    return await ctx.step(show, [str(ctx.random.randrange(1000)), str(ctx.uuid()), ctx.workflow_id])


@workflow("golden-fan-out")
async def fan_out(ctx: Context, parts: list[str]) -> list[int]:
    """Nurseries with a limit, keys, repeated keys, nested ones; a race; an error that cancels siblings."""
    async with ctx.nursery("parts", limit=2) as nursery:
        jobs = [nursery[part].start_soon(_part, ctx, part) for part in parts]
    async with ctx.race("fast") as race:
        race["slow"].start_soon(ctx.sleep, "1h")
        race["quick"].start_soon(double, 21)
    try:
        async with ctx.nursery("fails") as nursery:
            nursery.start_soon(ctx.sleep, "1h")
            nursery.start_soon(decline, 1)
    except* Declined:
        pass
    return [*(job.result for job in jobs), race.winner.result]


async def _part(ctx: Context, part: str) -> int:
    await ctx.sleep(len(part))
    async with ctx.nursery("inner") as inner:
        jobs = [inner[n].start_soon(double, n) for n in range(2)]
    return sum(job.result for job in jobs) + await ctx.step(double, len(part))


@workflow("golden-approval", timeout="7d", lock_key="golden:{customer}", signals={"address": str})
class Approval:
    """Signals with and without a handler, a predicate, a query, a lock key."""

    def __init__(self) -> None:
        self.approved_by: list[str] = []

    @signal
    def approve(self, by: str) -> None:
        self.approved_by.append(by)

    @query
    def approved(self) -> list[str]:
        return self.approved_by

    async def run(self, ctx: Context, order: Order) -> list[str]:
        with ctx.fail_after("1d"):
            await ctx.wait_until(lambda: len(self.approved_by) > 1)
        address = await ctx.wait_signal("address", str)
        return [*self.approved_by, address, await ctx.step(show, order.parts)]


@workflow("golden-saga")
async def saga(ctx: Context, parts: list[str], fail: bool) -> str:
    """An inner saga that is undone, and an outer one that is when the run fails or is cancelled."""
    await ctx.step(reserve, "outer")
    try:
        async with ctx.saga(), ctx.nursery("parts") as nursery:
            for part in parts:
                nursery[part].start_soon(reserve, part)
            nursery["last"].start_soon(_refuse, ctx)
    except* Declined:
        pass
    if fail:
        await ctx.step(decline, 2)
    await ctx.sleep("1d")
    return "kept"


async def _refuse(ctx: Context) -> None:
    await ctx.sleep(1)
    await ctx.step(decline, 1)


@workflow("golden-child")
async def child(ctx: Context, n: int) -> int:
    await ctx.sleep(n)
    if n == 3:
        await ctx.step(decline, n)
    return await ctx.step(double, n)


@step
async def undo_child(ctx: StepContext, output: int | None, n: int) -> None: ...


@workflow("golden-parent")
async def parent(ctx: Context) -> list[int | str]:
    """Child runs: one that completes, one by name, one that fails, one that is cancelled, one that is undone."""
    outputs: list[int | str] = [await ctx.run(child, 1), await ctx.run("golden-child", 2)]
    try:
        await ctx.run(child, 3)
    except Exception as error:
        outputs.append(type(error).__name__)
    with ctx.move_on_after(5):
        await ctx.run(child, 100)
    try:
        async with ctx.saga():
            await ctx.run(child.options(compensate=undo_child), 4)
            await ctx.step(decline, 4)
    except Declined:
        outputs.append("undone")
    return outputs


WORLD = {"up": True}
"""What the step `call` finds."""


@step(retry=NO_RETRY)
async def call(text: str) -> str:
    if not WORLD["up"]:
        raise ConnectionError("the world is down")
    return text


@workflow("golden-call")
async def calling(ctx: Context) -> str:
    """A step that fails the run, and is tried again by a reset."""
    return await ctx.step(plain, "a") + await ctx.step(call, "b")


@step
async def slow(seconds: float) -> None:
    await trio.sleep(seconds)


@slow.compensate
async def slower(ctx: StepContext, result: None, seconds: float) -> None: ...


@workflow("golden-slow")
async def slow_steps(ctx: Context) -> str:
    """Steps that are cancelled while they are under way, abandoned and waited for; the process dies in the last."""
    with ctx.move_on_after(1):
        await ctx.step(slow, 10)
    with ctx.move_on_after(1):
        await ctx.step(slow.options(name="awaited", cancel="wait"), 10)
    await ctx.step(slow.options(name="last"), 3600)
    return "done"


@step
async def turn(seconds: float) -> None:
    await trio.sleep(seconds)


@workflow("golden-mill", lock_key="golden-miller:{miller}")
async def mill(ctx: Context, miller: str) -> list[str]:
    """Locks inside a run: nested, refused, waited for in vain, one after the other in branches, held over a failure."""
    said: list[str] = []
    async with ctx.lock(f"golden-miller:{miller}") as own:
        said.append(own.key)
    try:
        async with ctx.lock("golden-mill", timeout=0):
            said.append("free")
    except TimeoutError as error:
        said.append(type(error).__name__)
    try:
        async with ctx.lock("golden-mill", timeout="10s"):
            said.append("waited")
            await ctx.sleep("1m")
    except TimeoutError as error:
        said.append(str(error))
    async with ctx.nursery("sacks") as sacks:
        for sack in ("rye", "wheat"):
            sacks[sack].start_soon(grind, ctx, sack, said)
    with ctx.move_on_after("1m"):
        async with ctx.lock("golden-mill"), ctx.lock("golden-mill", timeout=0):
            await ctx.step(turn, 600)
    async with ctx.lock("golden-mill"):
        said.append(await ctx.step(call, "mended"))
    return said


async def grind(ctx: Context, sack: str, said: list[str]) -> None:
    async with ctx.lock("golden-mill"):
        said.append(await ctx.step(plain, sack))
        await ctx.sleep("20s")
