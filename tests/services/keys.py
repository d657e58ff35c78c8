"""The plugin for tests of locks: runs that take them in the order that they are told."""

from __future__ import annotations

from jivsd import Context, TimedOut, workflow


@workflow("take")
async def take(ctx: Context, keys: list[str], wait: str | None = None) -> str:
    """Takes locks, one inside the other, with a signal before each but the first."""
    try:
        await _take(ctx, keys, wait)
    except TimedOut as error:
        return str(error)
    return "had all"


async def _take(ctx: Context, keys: list[str], wait: str | None) -> None:
    if keys:
        async with ctx.lock(keys[0], timeout=wait):
            if len(keys) > 1:
                await ctx.wait_signal("go")
            await _take(ctx, keys[1:], wait)


@workflow("own", lock_key="{key}")
async def own(ctx: Context, key: str, inner: str | None = None) -> None:
    if inner is not None:
        await ctx.wait_signal("go")
        async with ctx.lock(inner):
            pass
    else:
        await ctx.wait_signal("done")


@workflow("nested", lock_key="{key}")
async def nested(ctx: Context, key: str) -> None:
    """Waits for a child that wants its own lock."""
    await ctx.run(own, key, None)
