"""What must hold of the ledger that the runs have written; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST: Final = 20
"""How many violations are told."""


class Line(NamedTuple):
    """A line of the ledger; `what`: "enter" or "leave"."""

    entry: int
    run_id: str
    key: str
    what: str
    fence: int


class Ran(NamedTuple):
    """A run; `number`: its place among all that were started. `own`: it had its lock from the start."""

    run_id: str
    number: int
    status: str
    own: bool


def violations(lines: Iterable[Line], runs: Sequence[Ran]) -> list[str]:
    """What is wrong: a sentence each, none if all is well."""
    by_key: defaultdict[str, list[Line]] = defaultdict(list)
    for line in sorted(lines):
        by_key[line.key].append(line)
    found = [f"run {run.run_id} is {run.status}" for run in runs if run.status != "COMPLETED"]
    found += _once(by_key, runs)
    for key, ledger in sorted(by_key.items()):
        found += _alone(key, ledger)
        found += _in_order(key, ledger, {run.run_id: run.number for run in runs if run.own})
    return found[:MOST]


def _once(by_key: dict[str, list[Line]], runs: Sequence[Ran]) -> list[str]:
    """Each run enters and leaves once."""
    counts = Counter((line.run_id, line.what) for ledger in by_key.values() for line in ledger)
    return [
        f"run {run.run_id} wrote {what!r} {counts[run.run_id, what]} times"
        for run in runs
        for what in ("enter", "leave")
        if counts[run.run_id, what] != 1
    ]


def _alone(key: str, ledger: Sequence[Line]) -> list[str]:
    """Nobody enters before the one before has left; each holder has a higher fence number than those before it."""
    found: list[str] = []
    inside: Line | None = None
    fence = 0
    for line in ledger:
        if line.what == "enter":
            if inside is not None:
                found.append(
                    f"key {key}: run {line.run_id} entered (line {line.entry}) while {inside.run_id} was inside"
                )
            if line.fence <= fence:
                found.append(f"key {key}: run {line.run_id} had the fence {line.fence}, one before it had {fence}")
            inside, fence = line, line.fence
        elif inside is None or inside.run_id != line.run_id:
            found.append(f"key {key}: run {line.run_id} left (line {line.entry}) without being inside")
            inside = None
        else:
            if line.fence < inside.fence:
                found.append(f"key {key}: the fence of run {line.run_id} went down from {inside.fence} to {line.fence}")
            inside, fence = None, line.fence
    return found


def _in_order(key: str, ledger: Sequence[Line], numbers: dict[str, int]) -> list[str]:
    """Those who have their lock from the start enter in the order of the starts."""
    entered = [line.run_id for line in ledger if line.what == "enter" and line.run_id in numbers]
    return [
        f"key {key}: run {later} came before run {earlier}, which was started before it"
        for later, earlier in pairwise(entered)
        if numbers[later] > numbers[earlier]
    ]
