"""The example of DESIGN.md section 7, as it stands there."""

from __future__ import annotations

import msgspec

from jivsd import Context, Retry, StepContext, query, signal, step, workflow


@workflow("nap")
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


class Move(msgspec.Struct):
    tenant: str
    tables: list[str]


@step(retry=Retry(attempts=5, first="2s", factor=2, limit="10s"), timeout="10m")
async def copy(ctx: StepContext, table: str) -> int: ...  # pyright: ignore[reportReturnType]: the page leaves it out


@copy.compensate
async def drop(ctx: StepContext, rows: int | None, table: str) -> None: ...


@workflow("move-tenant", lock_key="tenant:{tenant}", timeout="7d")
class MoveTenant:
    approved_by: str | None = None

    @signal
    def approve(self, by: str) -> None:
        self.approved_by = by

    @query
    def approved(self) -> bool:
        return self.approved_by is not None

    async def run(self, ctx: Context, move: Move) -> int:
        async with ctx.saga(), ctx.nursery("tables", limit=8) as tables:
            copies = [tables[table].start_soon(copy, table) for table in move.tables]
        with ctx.fail_after("24h"):
            await ctx.wait_until(lambda: self.approved_by)
        return sum(job.result for job in copies)
