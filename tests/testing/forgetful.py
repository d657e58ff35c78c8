"""Workflows with mistakes that only a crash brings to light."""

from __future__ import annotations

import trio

from jivsd import Context, step, workflow

remembered: list[str] = []


@step
async def remember(word: str) -> None:
    remembered.append(word)
    await trio.sleep(1)


@step
async def count() -> int:
    return len(remembered)


@workflow("not-idempotent")
async def not_idempotent(ctx: Context) -> int:
    """Its step does something twice when it is run twice, and that shows."""
    await ctx.step(remember, "a")
    return await ctx.step(count)


@workflow("global-state")
async def global_state(ctx: Context) -> int:
    """It keeps something where a replay does not find it again."""
    remembered.append("b")
    await ctx.sleep("1m")
    return len(remembered)
