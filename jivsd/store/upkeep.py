"""What is looked for in a database that is checked. For every store."""

from __future__ import annotations

from typing import Final

CHECK_ROWS: Final = 5_000
"""Rows looked at in one query: none lasts so long that it keeps a write-ahead log from being emptied."""
REPORTED: Final = 1_000
"""Findings that are listed: a database with more is not mended line by line."""

RELATIONS: Final = {
    "check_orphans": "run {} has events but no row",
    "check_empty": "run {} has no events",
    "check_counts": "the runs of workflow {!r} that are {} are miscounted",
    "check_hours": "the runs of workflow {!r} that are {} are miscounted in the hour {}",
    "check_payloads": "the large payload {} is not used as often as it says",
    "check_messages": "message {!r} is for {}:{}, of which there is no run",
    "check_incidents": "incident {} belongs to run {}, which is not there",
    "check_attributes": "the attribute {}={} belongs to a run that is not there",
    "check_tickets": "the lock key {!r} has a ticket for run {}, which is not open",
}
"""The statements that ask for what must not be found, and what it means."""


def gap(last: tuple[str, int], run_id: str, seq: int) -> str | None:
    """What is missing between two events that follow each other: after `last` comes event `seq` of run `run_id`."""
    expected = last[1] + 1 if run_id == last[0] else 1
    if seq == expected:
        return None
    missing = f"event {expected}" if seq == expected + 1 else f"events {expected} to {seq - 1}"
    return f"{missing} of run {run_id} missing"
