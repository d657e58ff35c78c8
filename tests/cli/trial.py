"""The plugin that the command line's tests run."""

from __future__ import annotations

from typing import Annotated, Any

from jivsd import NO_RETRY, Context, Retry, Secret, StepContext, query, signal, step, update, workflow


@step
async def add(ctx: StepContext, n: int) -> int:
    return n + 1


@step(retry=Retry(attempts=2, first="1ms", jitter=0))
async def call_carrier(ctx: StepContext) -> None:
    raise ConnectionError("the carrier \x1b[31mdoes not answer")


@step(retry=NO_RETRY, on_exhausted="incident")
async def weigh(ctx: StepContext) -> int:
    raise OSError("the scales are broken")


@step
async def book(ctx: StepContext) -> str:
    return "booked"


@book.compensate
async def unbook(ctx: StepContext, booking: str | None) -> None:
    pass


@workflow("add-up")
async def add_up(ctx: Context, n: int) -> int:
    total = 0
    for _ in range(n):
        total = await ctx.step(add, total)
    return total


@workflow("ship")
async def ship(ctx: Context) -> None:
    await ctx.step(book)
    await ctx.step(call_carrier)


@workflow("weigh")
async def weighing(ctx: Context) -> int:
    return await ctx.step(weigh)


@workflow("gate")
class Gate:
    """Fans out, then waits for a signal; says how far it is."""

    def __init__(self) -> None:
        self.approved_by: str | None = None
        self.branches = 0

    @signal
    def approve(self, by: str) -> None:
        self.approved_by = by

    @update
    async def ask(self, ctx: Context, question: str) -> str:
        return f"{question}? {await ctx.wait_until(lambda: self.approved_by)}"

    @query
    def progress(self) -> dict[str, Any]:
        return {"phase": "FANNING", "done": self.branches, "total": 4, "unit": "branches", "detail": "one to go"}

    async def run(self, ctx: Context) -> str:
        async with ctx.nursery("fan") as fan:
            jobs = [fan[key].start_soon(add, n) for n, key in enumerate(("a", "b", "c"))]
        self.branches = len(jobs)
        with ctx.fail_after("1h"):
            return await ctx.wait_until(lambda: self.approved_by)


@workflow("safe")
async def safe(ctx: Context, word: Annotated[str, Secret]) -> int:
    return len(word)


@workflow("announce")
async def announce(ctx: Context, item: str) -> None:
    await ctx.emit("announced", {"item": item})
