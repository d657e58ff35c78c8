"""Workflows that keep the daemon busy, or hang it."""

import time

from jivsd import Context, workflow


def nothing() -> None:
    pass


@workflow("busy")
async def busy(ctx: Context, steps: int) -> None:
    for _ in range(steps):
        time.sleep(0.002)  # noqa: ASYNC251 -- code that behaves badly
        await ctx.side_effect(nothing)


@workflow("hang")
async def hang(ctx: Context, seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 -- as above
