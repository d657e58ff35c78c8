"""Workflows for the tests of the doors."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from jivsd import NO_RETRY, Context, Failure, StepContext, query, signal, step, update, workflow


class Order(msgspec.Struct):
    item: str
    amount: int = 1


@workflow("buy")
async def buy(ctx: Context, order: Order) -> str:
    return f"{order.amount} x {order.item}"


@workflow("same")
async def same(ctx: Context, value: Any) -> Any:
    return value


@workflow("nap")
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


@step
async def pack(ctx: StepContext, items: int) -> None:
    ctx.heartbeat({"shelf": 7}, done=1, total=items)
    await trio.sleep_forever()


@workflow("pack")
async def packs(ctx: Context, items: int) -> None:
    await ctx.step(pack, items)


@workflow("approval", timeout="7d")
class Approval:
    by: str | None = None

    @signal
    def approve(self, by: str) -> None:
        self.by = by

    @query
    def approver(self) -> str | None:
        return self.by

    @update
    async def ask(self, ctx: Context, question: str) -> str:
        if question == "odd":
            raise ValueError("what?")
        await ctx.wait_until(lambda: self.by)
        return f"{question}? {self.by}"

    @ask.validator
    def check(self, question: str) -> None:
        if not question:
            raise ValueError("ask something")

    async def run(self, ctx: Context) -> str:
        by = await ctx.wait_until(lambda: self.by)
        await ctx.set_attributes(approved_by=by)
        return by


@step(retry=NO_RETRY)
async def pay(ctx: StepContext) -> int:
    raise Failure("no funds")


@workflow("broke")
async def broke(ctx: Context) -> int:
    return await ctx.step(pay)


@step(retry=NO_RETRY, on_exhausted="incident")
async def ship(ctx: StepContext) -> str:
    raise Failure("no van")


@workflow("held")
async def held(ctx: Context) -> str:
    return await ctx.step(ship)


@workflow("announce")
async def announce(ctx: Context, items: list[str]) -> None:
    for item in items:
        await ctx.emit("announced", {"item": item})
    await ctx.emit("done")


@workflow("rounds")
async def rounds(ctx: Context, number: int) -> None:
    """Goes on as new once, and waits then."""
    if number == 0:
        await ctx.continue_as_new(1)
    await ctx.wait_signal("go")
