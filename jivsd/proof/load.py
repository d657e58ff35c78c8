"""The workflow that the bench runs: steps that do nothing, so that only the engine is measured."""

from __future__ import annotations

from jivsd import Context, step, workflow


@step
async def work(number: int) -> int:
    """The smallest step: its outcome is durable, and that is all."""
    return number


@workflow("bench")
async def bench(ctx: Context, steps: int) -> int:
    """So many steps, one after the other."""
    for number in range(steps):
        await ctx.step(work, number)
    return steps


@workflow("parked", timeout="30d")
async def parked(ctx: Context) -> str:
    """Waits for a signal, or for its time to be up."""
    return await ctx.wait_signal("go", str)
