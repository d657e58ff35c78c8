"""Workflows that together use every command of the Context, and steps whose effects can be looked at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import trio

from jivsd import (
    NO_RETRY,
    ChildFailed,
    Context,
    Failure,
    Retry,
    StepContext,
    TimedOut,
    Transaction,
    query,
    signal,
    step,
    update,
    workflow,
)
from jivsd.engine.api import StartOptions
from jivsd.store.api import RunFilter


class World:
    """What steps have done to the outside."""

    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {}
        self.undone: list[str] = []
        self.broken: set[str] = set()

    def note(self, ctx: StepContext) -> None:
        place = f"{ctx.run_id} {ctx.path}"
        self.executed[place] += 1
        self.keys.setdefault(place, set()).add(ctx.idempotency_key)


world = World()


def fresh_world() -> World:
    global world
    world = World()
    return world


class Declined(Failure):
    pass


ALL = RunFilter()
QUICK = Retry(attempts=3, first="1s", factor=2, jitter=0)


@step
async def book(ctx: StepContext, what: str) -> str:
    world.note(ctx)
    await trio.sleep(1)
    return f"booked {what}"


@book.compensate(retry=QUICK)
async def unbook(ctx: StepContext, booking: str | None, what: str) -> None:
    world.note(ctx)
    world.undone.append(f"{what}: {booking}")


@step
def measure(ctx: StepContext, text: str) -> int:
    world.note(ctx)
    return len(text)


@step(retry=QUICK)
async def flaky(ctx: StepContext, failures: int) -> int:
    world.note(ctx)
    if ctx.attempt <= failures:
        raise Declined("not yet", attempt=ctx.attempt)
    return ctx.attempt


@step(retry=NO_RETRY)
async def decline(ctx: StepContext, why: str) -> None:
    world.note(ctx)
    raise Declined(why)


@step(retry=NO_RETRY, on_exhausted="incident")
async def ask(ctx: StepContext, question: str) -> int:
    world.note(ctx)
    raise Declined(question)


@step(timeout="10s", retry=NO_RETRY)
async def linger(ctx: StepContext, seconds: float) -> str:
    world.note(ctx)
    await trio.sleep(seconds)
    return "lingered"


@linger.compensate
async def hurry(ctx: StepContext, lingered: str | None, seconds: float) -> None:
    world.undone.append(f"linger: {lingered} {ctx.outcome_unknown}")


@step(cancel="wait")
async def dig(ctx: StepContext, seconds: float) -> str:
    world.note(ctx)
    await trio.sleep(seconds)
    return "dug"


@step
async def enter(tx: Transaction, item: str, amount: int) -> int:
    await tx.execute("CREATE TABLE IF NOT EXISTS ledger (item TEXT, amount INTEGER)")
    await tx.execute("INSERT INTO ledger VALUES (?, ?)", (item, amount))
    rows = await tx.fetch("SELECT sum(amount) AS total FROM ledger WHERE item = ?", (item,))
    if amount < 0:
        raise Declined("nothing below zero")
    return rows[0]["total"]


@workflow("everything")
async def everything(ctx: Context, name: str) -> dict[str, Any]:
    """Nearly every command, one after the other."""
    found: dict[str, Any] = {"now": ctx.now().isoformat(), "uuid": str(ctx.uuid()), "random": ctx.random.random()}
    found["booked"] = await ctx.step(book, name)
    found["measured"] = await ctx.step(measure, name)
    found["flaky"] = await ctx.step(flaky, 2)
    found["entered"] = await ctx.step(enter, name, 7)
    await ctx.sleep("1h")
    found["version"] = await ctx.version("new-way", 1, 2)
    found["drawn"] = await ctx.side_effect(lambda: 42)
    async with ctx.nursery("rooms", limit=2) as rooms:
        jobs = [rooms[room].start_soon(book, room) for room in ("red", "green", "blue")]
    found["rooms"] = [job.result for job in jobs]
    await ctx.set_attributes(stage="rooms", gone=None)
    found["lengths"] = await ctx.map(measure, ["a", "bb", "ccc"], limit=2)
    with ctx.move_on_after("5s") as scope:
        await ctx.step(linger, 8)
    found["moved on"] = scope.cancelled
    try:
        with ctx.fail_after("5s"):
            await ctx.wait_signal("never")
    except TimedOut as error:
        found["timed out"] = str(error)
    async with ctx.race("quick") as race:
        race["slow"].start_soon(slow, ctx)
        race["fast"].start_soon(fast, ctx)
    found["winner"] = race.winner.key
    try:
        await ctx.step(decline, "no")
    except Declined as error:
        found["declined"] = str(error)
    try:
        async with ctx.saga():
            await ctx.step(book, "inner")
            raise Declined("inside")
    except Declined:
        found["undone"] = True
    found["attributes"] = ctx.attributes
    found["child"] = await ctx.run(child, "kid")
    try:
        await ctx.run("child", "bad")
    except ChildFailed as error:
        found["bad child"] = error.data["status"]
    with ctx.shield():
        found["shielded"] = await ctx.step(measure, "four")
    return found


async def slow(ctx: Context) -> str:
    await ctx.sleep("1h")
    return "slow"


async def fast(ctx: Context) -> str:
    await ctx.sleep("1s")
    return "fast"


@workflow("child")
async def child(ctx: Context, name: str) -> str:
    await ctx.sleep("10s")
    booking = await ctx.step(book, f"for {name}")
    if name == "bad":
        raise Declined("bad child")
    return booking


class Reply(msgspec.Struct):
    text: str


@workflow("talk", signals={"word": Reply})
class Talk:
    """Handlers, signals that are waited for, queries, predicates."""

    def __init__(self) -> None:
        self.votes: list[str] = []
        self.said: list[str] = []

    @signal
    def vote(self, who: str) -> None:
        self.votes.append(who)

    @query
    def tally(self) -> list[str]:
        return self.votes

    @query
    def broken(self) -> int:
        raise ValueError("cannot say")

    async def run(self, ctx: Context, votes: int) -> list[str]:
        await ctx.wait_until(lambda: len(self.votes) >= votes)
        for _ in range(2):
            self.said.append((await ctx.wait_signal("word", Reply)).text)
            await ctx.step(book, self.said[-1])
        return self.said


@workflow("basket", lock_key="basket")
class Basket:
    """Updates, plain and async, beside a code that waits."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.paid = False

    @update
    def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @add.validator
    def is_open(self, item: str) -> None:
        if self.paid:
            raise Declined(f"no {item}: it is paid for")

    @update
    async def reserve(self, ctx: Context, item: str) -> str:
        booking = await ctx.step(book, item)
        await ctx.sleep("10s")
        if item == "bad":
            await ctx.step(decline, "sold out")
        self.items.append(item)
        return booking

    @signal
    def pay(self) -> None:
        self.paid = True

    async def run(self, ctx: Context, wrong: bool) -> list[str]:
        await ctx.wait_until(lambda: self.paid)
        if wrong:
            await ctx.step(decline, "no money")
        return self.items


@workflow("trip")
async def trip(ctx: Context, payment: str) -> str:
    """Bookings that are undone when the payment fails."""
    hotel = await ctx.step(book, "hotel")
    async with ctx.nursery() as side_by_side:
        side_by_side["car"].start_soon(book, "car")
        side_by_side["flight"].start_soon(book, "flight")
    if payment == "child":
        await ctx.run(child.options(compensate=forget), "kid")
    if payment != "good":
        await ctx.step(decline, "no money")
    return hotel


@step
async def forget(ctx: StepContext, booking: str | None, name: str) -> None:
    world.undone.append(f"child {name}: {booking}")


@workflow("decide")
async def decide(ctx: Context, question: str) -> int:
    return await ctx.step(ask, question)


@workflow("patient", lock_key="bench")
async def patient(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return await ctx.step(book, "bench")


@step(retry=NO_RETRY)
async def use(ctx: StepContext, machine: str) -> str:
    world.note(ctx)
    if machine in world.broken:
        raise Declined(f"{machine} is broken")
    return f"used {machine}"


@workflow("repairable", lock_key="bench", timeout="1d")
async def repairable(ctx: Context, machine: str) -> list[str]:
    done = [await ctx.step(use, "first"), ctx.random.choice(["a", "b", "c"])]
    await ctx.sleep("1m")
    done.append(await ctx.step(use, machine))
    done.append(str(await ctx.wait_signal("done")))
    return done


@workflow("children")
async def children(ctx: Context, workflows: list[str]) -> list[str]:
    """Child runs side by side, and what became of them."""
    async with ctx.nursery("kids") as kids:
        jobs = [kids[name].start_soon(outcome, ctx, name) for name in workflows]
    return [job.result for job in jobs]


async def outcome(ctx: Context, name: str) -> str:
    workflow, _, input = name.partition(":")
    try:
        return str(await ctx.run(workflow, input))
    except ChildFailed as error:
        return f"{error.data['status']}"


def named(id: str) -> StartOptions:
    return StartOptions(id=id)


@workflow("lingers")
async def lingers(ctx: Context, seconds: float) -> str:
    return await ctx.step(linger, seconds)
