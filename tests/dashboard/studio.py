"""The plugin that the dashboard's tests run: a branch of each kind, and what people have to decide."""

from __future__ import annotations

from typing import Any

from jivsd import NO_RETRY, Context, Retry, StepContext, query, signal, step, workflow


@step(retry=Retry(attempts=3, first="50ms", jitter=0))
async def copy(ctx: StepContext, table: str) -> int:
    if table == "customers" and ctx.attempt == 1:
        raise ConnectionError("the source does not answer")
    return 10


@copy.compensate
async def drop(ctx: StepContext, rows: int | None, table: str) -> None:
    pass


@step(retry=NO_RETRY)
async def check(ctx: StepContext, good: bool) -> str:
    if not good:
        raise ValueError("the totals differ")
    return "equal"


@step(retry=NO_RETRY, on_exhausted="incident")
async def weigh(ctx: StepContext) -> int:
    raise OSError("the scales are broken")


@workflow("letter")
async def letter(ctx: Context, to: str) -> str:
    return f"sent to {to}"


@workflow("move", lock_key="tenant:{tenant}")
class Move:
    """Copies tables, waits until somebody has approved, checks.

    A `<script>alert(1)</script>` in a description is text.
    """

    def __init__(self) -> None:
        self.approved_by: str | None = None

    @signal
    def approve(self, by: str) -> None:
        self.approved_by = by

    @query
    def progress(self) -> dict[str, Any]:
        return {"phase": "APPROVAL", "done": 2, "total": 3, "unit": "phases", "detail": "one to go"}

    async def run(self, ctx: Context, tenant: str, good: bool = True) -> str:
        async with ctx.nursery("tables") as tables:
            for table in ("orders", "customers"):
                tables[table].start_soon(copy, table)
        by = await ctx.wait_until(lambda: self.approved_by)
        await ctx.step(check, good)
        await ctx.run(letter, tenant)
        return f"approved by {by}"


@workflow("scales")
async def scales(ctx: Context, item: str) -> int:
    """Weighs something, with scales that are broken: a person has to say what it weighs."""
    return await ctx.step(weigh)
