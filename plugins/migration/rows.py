"""Rows in memory: one chunk at most, bounded in number and in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from .content import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import Key

Row = tuple[Any, ...]

CHUNK_BYTES = 8 << 20
"""A chunk that has reached this size is closed, however few its rows are."""
_slice_rows = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk as it was read: each row's columns, then its hidden key columns.

    `after`: the key of the last row; `done`: the table, or its part, has none behind it; `raw`: some value is a
    RawText.
    """

    values: list[Row]
    bytes: int
    after: Key | None
    done: bool
    raw: bool = False


def slices(rows: Iterator[Row], limit: int, budget: int) -> Iterator[tuple[list[Row], int]]:
    """Take rows in small slices, each with its bytes, until `limit` rows are taken or `budget` bytes reached.

    A slice is as large as the rows before it allow, so that the budget is passed by a few rows at most.
    """
    size = 1
    while limit > 0 and budget > 0:
        taken = list(islice(rows, min(size, limit)))
        if not taken:
            return
        weight = size_of(taken)
        limit -= len(taken)
        budget -= weight
        yield taken, weight
        size = max(1, min(_slice_rows, budget * len(taken) // weight))
