"""Workflows whose steps are lone: they run in the run's own task."""

from __future__ import annotations

import time

import trio

from jivsd import Context, Retry, query, signal, step, workflow

once = Retry(attempts=1)
stopped: list[str] = []
hooks: dict[str, object] = {}


@step(retry=once)
async def rest(seconds: float) -> float:
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        stopped.append(f"rest {seconds:g}")
        raise
    return seconds


@step(retry=once, timeout="1s")
async def hurry(seconds: float) -> float:
    await trio.sleep(seconds)
    return seconds


@rest.compensate
async def wake_up(result: float | None, seconds: float) -> None:
    await trio.sleep(0.1)
    stopped.append(f"undone {seconds:g}")


@step(retry=once)
async def leak() -> None:
    trio.CancelScope().__enter__()


@step(retry=once)
def block(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@workflow("patient")
class Patient:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @signal
    def hear(self, word: str) -> None:
        self.heard.append(word)

    @query
    def words(self) -> list[str]:
        return self.heard

    async def run(self, ctx: Context, seconds: list[float]) -> list[str]:
        for one in seconds:
            await ctx.step(rest, one)
        return self.heard


@workflow("reply")
class Reply:
    """Goes on at a signal while its lone step still runs: what it does then needs tasks beside."""

    def __init__(self) -> None:
        self.go = False

    @signal
    def start(self) -> None:
        self.go = True

    async def run(self, ctx: Context) -> list[float]:
        async with ctx.nursery() as both:
            slow = both["slow"].start_soon(rest, 100)
            quick = both["quick"].start_soon(self._quick, ctx)
        return [slow.result, quick.result]

    async def _quick(self, ctx: Context) -> float:
        await ctx.wait_until(lambda: self.go)
        return await ctx.step(rest, 1) + await ctx.step(rest, 2)


@workflow("contest")
async def contest(ctx: Context) -> str:
    async with ctx.race() as race:
        race["step"].start_soon(rest, 100)
        race["time"].start_soon(doze, ctx)
    await ctx.step(rest, 1)
    return race.winner.key


async def doze(ctx: Context) -> None:
    await ctx.sleep(5)


@workflow("deadline")
async def deadline(ctx: Context) -> list[str]:
    found: list[str] = []
    for seconds in (0.5, 5, 0.5):
        try:
            await ctx.step(hurry, seconds)
        except Exception as error:
            found.append(type(error).__name__)
        else:
            found.append("done")
    return found


@workflow("sloppy")
async def sloppy(ctx: Context) -> list[str]:
    found: list[str] = []
    for work in (leak, leak):
        try:
            await ctx.step(work)
        except RuntimeError as error:
            found.append(str(error))
    await ctx.step(rest, 1)
    return found


@workflow("foreign")
class Foreign:
    """Awaits something undurable when it hears a signal, while its lone step runs."""

    def __init__(self) -> None:
        self.go = False

    @signal
    def start(self) -> None:
        self.go = True

    async def run(self, ctx: Context) -> None:
        async with ctx.nursery() as both:
            both["slow"].start_soon(rest, 100)
            both["bad"].start_soon(self._bad, ctx)

    async def _bad(self, ctx: Context) -> None:
        await ctx.wait_until(lambda: self.go)
        with trio.CancelScope():
            await trio.sleep(1)


@workflow("threads")
async def threads(ctx: Context, seconds: list[float]) -> float:
    return sum([await ctx.step(block, one) for one in seconds])
