"""The memory of a process that keeps many small objects for a long time."""

from __future__ import annotations

import ctypes
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

THRESHOLDS: Final = (5_000, 10, 200)
"""How many objects more make a collection of the youngest, and how many collections of a generation one of the next.

With Python's own thresholds a fifth of a busy daemon's time goes into looking at runs that wait (measured, 1,000 runs
at once); a full collection takes 0.3 to 0.9 s with 100,000 of them. With more objects at a time everything is kept
waiting for too long if many are garbage: 50,000 that requests had left behind took up to 0.25 s.
"""
PATIENT: Final = 100_000
"""How many more as long as collections find next to nothing. What the daemon itself drops leaves no circles: with 5,000
a seventh of a busy one's time went into looking at runs that are under way.
"""
GARBAGE: Final = 500
"""So many objects that a collection finds are more than next to nothing."""
GROWTH: Final = 2_000_000
"""How many more while it is known that they stay; a run in memory is about 65 of them."""


ARENAS: Final = 2
"""In how many places the C library may keep memory for threads. By default each thread gets one, up to eight for each
processor, and all keep what others could use.
"""
_M_ARENA_MAX: Final = -8  # of malloc.h


def hold_off() -> None:
    """Call this before what the process needs is imported: until `settle`, the collector looks at nothing.

    Looking takes a tenth of the imports' time, and what they leave behind is less than a megabyte.
    """
    gc.disable()


def settle() -> None:
    """Call this once what the process needs is imported and loaded: the collector never looks at that again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(*THRESHOLDS)
    if _adapt not in gc.callbacks:
        gc.callbacks.append(_adapt)
    if (mallopt := _of_c("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def _adapt(phase: str, found: dict[str, int]) -> None:
    """After a collection: have the next one sooner if there was garbage, later if there was none.

    Not while it is known that much comes that stays (`growing`).
    """
    threshold, *older = gc.get_threshold()
    if phase == "stop" and threshold <= PATIENT:
        young = THRESHOLDS[0] if found["collected"] > GARBAGE else min(2 * threshold, PATIENT)
        gc.set_threshold(young, *older)


@contextmanager
def growing() -> Generator[None]:
    """While this lasts, many objects are made that stay: the collector does not look at them, then or later.

    Otherwise it looks at each of them once, which is a tenth of what it takes to bring a run back (measured). They go
    when nobody holds them any more; only circles among them stay.
    """
    gc.set_threshold(GROWTH, *THRESHOLDS[1:])
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)


def trim() -> None:
    """Give memory that is free back to the system, as far as Python and the C library can.

    A full collection also empties Python's lists of spare objects, which keep whole arenas.
    """
    gc.collect()
    if (malloc_trim := _of_c("malloc_trim")) is not None:
        malloc_trim(0)


def _of_c(name: str) -> Any:
    """A function of the C library, if that has it: glibc does."""
    return getattr(ctypes.CDLL(None), name, None)
