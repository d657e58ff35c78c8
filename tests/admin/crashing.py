"""A plugin that has the endpoint of its daemon crash, at every SIGUSR1; and a workflow that takes a while."""

from __future__ import annotations

import signal
from typing import Any

import trio

from jivsd import Context, step, workflow
from jivsd.admin.server import Server

_serve = Server.run


async def _crash() -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            raise RuntimeError("made on purpose")


async def _serve_until_it_crashes(server: Server, **options: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash)
        await _serve(server, **options)
        nursery.cancel_scope.cancel()


Server.run = _serve_until_it_crashes  # type: ignore[method-assign]


@step
async def wait_a_little() -> None:
    await trio.sleep(0.05)


@workflow("count")
async def count(ctx: Context, steps: int) -> int:
    for _ in range(steps):
        await ctx.step(wait_a_little)
    return steps
