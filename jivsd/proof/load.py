"""The workflows that the bench runs: their steps do next to nothing, so that only the engine is measured."""

from __future__ import annotations

import os
import random
import time
from functools import cache
from typing import Final

import trio

from jivsd import Context, StepContext, step, workflow


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


@cache
def _file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@step
async def noted(ctx: StepContext, number: int, notes: str, hold: bool) -> int:
    """Says in a file that it has begun, when and in which process; then it goes on for ever, if it is to."""
    os.write(_file(notes), f"{time.time():.6f} {os.getpid()} {ctx.run_id} {number}\n".encode())
    if hold:
        await trio.sleep_forever()
    return number


@workflow("in-flight")
async def in_flight(ctx: Context, notes: str, steps: int) -> None:
    """So many steps that end, and one that is under way for as long as the process lives."""
    for number in range(steps + 1):
        await ctx.step(noted, number, notes, number == steps)


@step
async def beat(name: str, number: int, notes: str, pause: float) -> None:
    """Waits for about so many seconds, and says in a file for how many it wanted to, when it began and ended, also by
    what the loop has worked.

    If all waited for the same time, those whom something has kept waiting once would come together ever after.
    """
    began = time.time(), time.thread_time()
    wanted = pause * random.uniform(0.5, 1.5)
    await trio.sleep(wanted)
    times = " ".join(f"{at:.6f}" for at in (wanted, *began, time.time(), time.thread_time()))
    os.write(_file(notes), f"{name} {number} {times}\n".encode())


STEADY: Final = 10
"""Steps of a run."""


@workflow("steady")
async def steady(ctx: Context, name: str, first: int, notes: str, pause: float) -> None:
    """Some such steps, one after the other, and on for ever in runs of the same workflow id."""
    for number in range(first, first + STEADY):
        await ctx.step(beat, name, number, notes, pause)
    await ctx.continue_as_new(name, first + STEADY, notes, pause)
