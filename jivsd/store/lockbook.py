"""What stands in the queues for locks: who holds each key, who waits for it, and who may be waiting in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.store.tickets import Holder


class Place(msgspec.Struct, frozen=True):
    """A place in the queue for a lock key, with what is known of its run."""

    ticket: int
    run_id: str
    workflow: str
    workflow_id: str
    status: Status
    node: str
    """Where the run's shard is; "": nowhere."""
    path: str
    """Of the lock in the run's code; "" for the run's own."""
    since: int
    """When it asked for the lock."""
    held_since: int | None = None
    """When it is recorded to have got it."""


class LockQueue(msgspec.Struct, frozen=True):
    """A lock key: the first of `places` holds it, under a fence number, the others wait. `waiting`: how many do."""

    key: str
    fence: int
    waiting: int
    places: list[Place]


class Claim(NamedTuple):
    """A ticket that may be part of a circle."""

    key: str
    ticket: int
    run_id: str
    path: str
    holds: bool


class Kin(NamedTuple):
    """A run that another one has started, and waits for in its code at a path."""

    run_id: str
    parent: str
    path: str


class Tangle(NamedTuple):
    """All that any circle of runs that wait for one another can consist of; see `jivsd.cluster.circles`."""

    claims: list[Claim]
    kin: list[Kin]


class LockBook(Protocol):
    """The queues for locks, as they are committed. Every method may raise `StoreError`."""

    async def lock_queue(self, key: str | None = None, limit: int | None = None) -> list[Holder]:
        """Who holds and who waits for a lock key (or for all of them), by key and ticket; the first ones of a key."""
        ...

    async def lock_queues(
        self, key: str | None = None, limit: int = 100, after: str = "", places: int = 20
    ) -> list[LockQueue]:
        """The lock keys that somebody holds, above `after`, in order; of each the first places."""
        ...

    async def tangle(self, since: int) -> Tangle:
        """What circles may consist of, of those who have waited since a time (microseconds)."""
        ...

    async def raise_fence(self, key: str) -> int:
        """Raise and return the fence number of a lock key, for a holder that was taken over.

        Raises:
            StoreError: nobody ever held the key.
        """
        ...
