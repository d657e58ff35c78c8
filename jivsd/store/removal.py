"""What a store says of the runs that may be removed."""

from __future__ import annotations

import msgspec

from jivsd.records import Event, Run, Status


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
