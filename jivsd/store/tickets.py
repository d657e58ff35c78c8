"""Places in the queues for locks: the one with the lowest ticket of a key holds it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Ticket(msgspec.Struct, frozen=True):
    """A place in the queue for a lock key, for the lock at `path` in a run's code; "" for the run's own.

    `at_once`: it is not drawn if somebody else stands there.
    """

    key: str
    path: str
    since: int
    at_once: bool = False


class Tickets(msgspec.Struct, frozen=True):
    """What changes about a run's places in the queues for locks.

    `gives`: the path of a ticket that is given back, if the run has it. `keeps`, if given: of the tickets that were
    drawn in its code all are given back but those for these paths. `draws` is drawn, unless the run has it. `granted`:
    the path of the one that has its lock, which is recorded with this entry.
    """

    gives: str | None = None
    draws: Ticket | None = None
    keeps: Sequence[str] | None = None
    granted: str | None = None


class Holder(msgspec.Struct, frozen=True):
    """One line in the queue for a lock key; the open run with the lowest ticket holds it."""

    key: str
    ticket: int
    run_id: str
    fence: int
    since: int
    path: str = ""
    """Of the lock in the run's code; nothing for the run's own."""
    granted: bool = False
    """Whether it is recorded that it has the lock; it may be its turn without."""
