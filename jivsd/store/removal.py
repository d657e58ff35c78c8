"""What a store says of the runs that may be removed, and in how large pieces it removes them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.records import Event, Run, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

PRUNE_EVENTS: Final = 2_000
"""Events that are removed in one transaction, unless a single run has more: a few milliseconds."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of journals in one page, unless a single run has more; an event counts for its payload and EVENT_BYTES."""
EVENT_BYTES: Final = 200
KEYS: Final = 1_000
"""Idempotency keys that are looked at in one transaction."""


class RunIds(msgspec.Struct, frozen=True):
    """A page of runs that may be removed, oldest first. `next`: the cursor of the following page, or None."""

    run_ids: list[str]
    next: str | None


class PruneCount(msgspec.Struct, frozen=True):
    """How many runs of a workflow in a status may be removed."""

    workflow: str
    status: Status
    runs: int


class Journal(msgspec.Struct, frozen=True):
    """A run and its events."""

    run: Run
    events: list[Event]


class Journals(msgspec.Struct, frozen=True):
    """A page of runs that may be removed, with their journals. `damaged` says what is wrong with those left out."""

    items: list[Journal]
    damaged: list[str]
    next: str | None


def fitting(sizes: Sequence[int]) -> int:
    """How many runs may be removed together, of which the first has so many events; one at least."""
    return max(1, sum(total <= PRUNE_EVENTS for total in accumulate(sizes)))


def bytes_of(journal: Journal) -> int:
    """How much of a page a journal takes."""
    return sum(EVENT_BYTES + len(event.payload) for event in journal.events)
