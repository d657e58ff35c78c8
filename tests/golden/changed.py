"""A workflow whose code was changed twice under an open run: what stands here is its last version."""

from __future__ import annotations

from jivsd import Context, step, workflow


@step
async def measure(word: str) -> int:
    return len(word)


@step
async def weigh(word: str) -> int:
    return 10 * len(word)


@workflow("golden-changed")
async def changed(ctx: Context) -> list[int]:
    found = [await ctx.step(measure, "one")]
    if await ctx.version("weighed-early", 1, 2) >= 2:  # not by runs that were past it when it came
        found.append(await ctx.step(weigh, "early"))
    await ctx.sleep("1h")
    if await ctx.version("weighed-late", 1, 2) >= 2:
        found.append(await ctx.step(weigh, "late"))
    await ctx.wait_signal("go")
    async with ctx.nursery("last") as last:
        last["a"].start_soon(measure, "a")
        if await ctx.version("twice", 1, 2) >= 2:
            last["b"].start_soon(weigh, "b")
    return found
