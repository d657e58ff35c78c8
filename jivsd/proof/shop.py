"""The workflows whose past `jivsd.proof.past` makes up, and some that wait, have locks, or are held by an incident."""

from __future__ import annotations

from typing import Any

from jivsd import Context, Retry, step, workflow


@step(retry=Retry(attempts=2, first="1ms"))
async def reserve(number: int) -> dict[str, Any]:
    """The smallest step that has something to say."""
    return {"stock": number * 7, "place": f"shelf {number}"}


@step(retry=Retry(attempts=1), on_exhausted="incident")
async def deliver(number: int) -> None:
    """Fails, so that a person has to decide."""
    raise ConnectionError(f"no route to warehouse {number % 7}")


async def _reserve_all(ctx: Context, items: int) -> dict[str, bool]:
    for number in range(1, items + 1):
        await ctx.step(reserve, number)
    return {"sent": True}


@workflow("sale")
async def sale(ctx: Context, customer: int, items: int, express: bool) -> dict[str, bool]:
    """So many steps."""
    return await _reserve_all(ctx, items)


@workflow("mailing")
async def mailing(ctx: Context, customer: int, items: int, express: bool) -> dict[str, bool]:
    """The same, under another name."""
    return await _reserve_all(ctx, items)


@workflow("export")
async def export(ctx: Context, customer: int, items: int, express: bool) -> dict[str, bool]:
    """The same."""
    return await _reserve_all(ctx, items)


@workflow("invoice")
async def invoice(ctx: Context, customer: int, items: int, express: bool) -> dict[str, bool]:
    """The same."""
    return await _reserve_all(ctx, items)


@workflow("signup")
async def signup(ctx: Context, customer: int, items: int, express: bool) -> dict[str, bool]:
    """The same."""
    return await _reserve_all(ctx, items)


@workflow("waiting")
async def waiting(ctx: Context, number: int) -> str:
    """Waits for a signal."""
    return await ctx.wait_signal("go", str)


@workflow("queueing", lock_key="{key}")
async def queueing(ctx: Context, key: str) -> str:
    """Holds a lock, or waits for it, until there is a signal."""
    return await ctx.wait_signal("go", str)


@workflow("stuck")
async def stuck(ctx: Context, number: int) -> None:
    """Is held by an incident."""
    await ctx.step(deliver, number)
