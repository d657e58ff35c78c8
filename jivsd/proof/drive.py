"""Driving: something is done for each of many, so many at once, and each is timed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")


async def drive(items: Iterable[T], work: Callable[[T], Awaitable[object]], at_once: int) -> list[float]:
    """Await `work` for every item, so many at once; return how many milliseconds each took."""
    left = iter(items)
    took: list[float] = []

    async def one_after_another() -> None:
        for item in left:
            began = time.perf_counter()
            await work(item)
            took.append((time.perf_counter() - began) * 1000)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(one_after_another)
    return took
