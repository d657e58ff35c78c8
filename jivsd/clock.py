"""Time as a seam. Journal time is an integer: microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import durationpy
import trio

SECOND = 1_000_000
"""One second in the journal's unit, microseconds."""

Duration = str | int | float | timedelta
"""A length of time as people write it: `"10m"`, `"1h30m"`, `"7d"`, seconds as a number, or a timedelta."""


class Clock(Protocol):
    """Where the engine gets its time from."""

    def now(self) -> int:
        """Microseconds since the epoch."""
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


class TrioClock:
    """Journal time that follows trio's clock, so that `trio.testing.MockClock` moves durable deadlines too."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def now(self) -> int:
        return self._epoch + int(trio.current_time() * SECOND)


LONGEST = 100 * 365 * 86_400 * SECOND
"""A hundred years: no longer duration means anything, or fits with the time of day into the journal."""


def microseconds(duration: Duration) -> int:
    """Return a duration in microseconds.

    Raises:
        ValueError: the text is not a duration such as `"250ms"`, `"10m"`, `"1h30m"` or `"7d"`, or it is longer than
            a hundred years.
        TypeError: it is of another type.
    """
    length = _microseconds(duration)
    if abs(length) > LONGEST:
        raise ValueError(f"{duration!r} is too long a duration: a hundred years at most")
    return length


def _microseconds(duration: Duration) -> int:
    match duration:
        case bool():
            raise TypeError(f"a duration is a text such as '10m', a number of seconds or a timedelta, not {duration!r}")
        case str():
            try:
                length: timedelta = durationpy.from_str(duration)
            except (durationpy.DurationError, ValueError, KeyError, IndexError):
                raise ValueError(f"{duration!r} is not a duration: e.g. '250ms', '10m', '1h30m', '7d'") from None
            return round(length / timedelta(microseconds=1))
        case int() | float():
            if isinstance(duration, float) and not math.isfinite(duration):
                raise ValueError(f"{duration!r} is not a duration: it has no end")
            return round(duration * SECOND)
        case timedelta():
            return round(duration / timedelta(microseconds=1))
        case _:  # pyright: ignore[reportUnnecessaryComparison] -- not every caller is type-checked
            raise TypeError(f"a duration is a text such as '10m', a number of seconds or a timedelta, not {duration!r}")


def as_datetime(at: int) -> datetime:
    """Return journal time as an aware UTC datetime."""
    return datetime.fromtimestamp(at / SECOND, UTC)


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as journal time.

    Raises:
        ValueError: the datetime has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: pass an aware datetime, e.g. datetime.now(UTC)")
    return round(moment.timestamp() * SECOND)
