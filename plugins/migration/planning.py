"""Planning, as pure functions: which tables, in what order, cut into which parts, and how much it is."""

from __future__ import annotations

import difflib
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from .model import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_chunks_per_part = 4
"""A key range smaller than this many chunks is not worth a loop of its own."""
_rows_per_s = 50_000
_bytes_per_s = 20_000_000
"""Assumed until the first chunks have been timed: what one core of a small machine does."""


def select(present: Sequence[str], tables: Sequence[str] | None, exclude: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tables to migrate, in the order of `present`, and what is wrong with the request.

    A name that is not there exactly is taken without regard to case if that leaves one table only.
    """
    problems: list[str] = []

    def resolve(names: Sequence[str], what: str) -> set[str]:
        found: set[str] = set()
        for name in names:
            exact = [name] if name in present else [it for it in present if it.casefold() == name.casefold()]
            if len(exact) == 1:
                found.add(exact[0])
            else:
                problems.append(f"{what} names {name!r}, which the source does not have{_hint(name, present)}")
        return found

    wanted = set(present) if tables is None else resolve(tables, "tables")
    left_out = resolve(exclude, "exclude")
    chosen = [name for name in present if name in wanted and name not in left_out]
    if not chosen and not problems:
        problems.append("the source has no tables" if not present else "all tables of the source are excluded")
    return chosen, problems


def _hint(name: str, present: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, present, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def order(references: Mapping[str, Sequence[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    """Tables in an order in which the referenced come first, and the references that no order satisfies.

    `references`: by table, the tables that it refers to; those that are not keys themselves are ignored. The same
    input gives the same output.
    """
    deferred = [(table, table) for table, targets in references.items() if table in targets]
    graph = {
        table: dict.fromkeys(it for it in targets if it in references and it != table)
        for table, targets in references.items()
    }
    while True:
        try:
            return list(TopologicalSorter(graph).static_order()), deferred
        except CycleError as error:
            cycle: list[str] = error.args[1]
            referenced, table = cycle[0], cycle[1]
            del graph[table][referenced]
            deferred.append((table, referenced))


def cut(table: str, first: int, last: int, rows: int, ranges: int, chunk_rows: int) -> list[Part]:
    """Cut the integer keys from `first` to `last` into at most `ranges` parts.

    The outer parts are open, so that together they hold every integer.
    """
    count = max(1, min(ranges, rows // (chunk_rows * _chunks_per_part), last - first + 1))
    bounds = [first - 1 + (last - first + 1) * number // count for number in range(1, count)]
    return [
        Part(table, number, [after] if after is not None else None, until)
        for number, (after, until) in enumerate(zip([None, *bounds], [*bounds, None], strict=True))
    ]


def estimated_seconds(rows: int, size: int) -> float:
    """How long loading may take, before anything was measured."""
    return max(rows / _rows_per_s, size / _bytes_per_s)


def too_little_space(free: int, size: int) -> str | None:
    """The problem, if `size` bytes of rows do not fit into `free` bytes."""
    if size <= free:
        return None
    return f"the target's disk has {free:,} bytes free, but the rows alone take about {size:,}"
