"""What nodes that share a database say there of themselves, and how shards pass from one to another.

The database decides who owns a shard (`jivsd.shard`: epoch and node; every batch is fenced by it). What is said here
besides, a row for each node, keeps live nodes from taking what others have. (DESIGN.md section 6.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING: Final = ""
ALONE: Final = "alone"
REDIS: Final = "redis"
POSTGRESQL: Final = "postgresql"
"""What a node's shards are held by (`Member.by`): it has none yet; it does not share; locks in Redis; its row."""


class NameTaken(StoreError):
    """Another node of this name is alive, and has the shards: this one has to end."""


class Owner(NamedTuple):
    """Who may write what belongs to a shard. `node` is "" when nobody may."""

    shard: int
    epoch: int
    node: str
    since: int = 0
    """When it became this owner's, in microseconds since the epoch, by the database's clock; 0: nobody ever had it."""


class Member(msgspec.Struct, frozen=True):
    """A node, as its own row says."""

    node: str
    instance: str
    """Which opening of the database by that node it is."""
    joined_at: int
    left: float
    """Seconds that its lease is still good, by the database's clock; below 0: so long has it been over."""
    by: str
    """What its shards are held by just now: `REDIS`, `POSTGRESQL`; `ALONE`, `NOTHING`."""
    leaving: bool
    full: bool
    """Whether it takes no starts from outside just now."""
    version: str


class View(NamedTuple):
    """Who owns what, and who is there. An owner that is no member has left, or is gone for good."""

    owners: list[Owner]
    members: list[Member]


class NodeState(msgspec.Struct, frozen=True):
    """A node and what it has, for people. `member` is None when it is gone, and nobody has taken its shards yet."""

    node: str
    member: Member | None
    owned: list[tuple[int, int, int]]
    """Shards, with their epochs and since when it has had them, in microseconds since the epoch."""


class Standing(msgspec.Struct, frozen=True):
    """How a node stands."""

    held: int
    """Shards."""
    by: str
    good: bool
    """Whether it takes part, and what it has is renewed in time."""
    redis_away: bool | None
    """Whether Redis, which is configured, does not hold its shards just now; None: there is none."""


class Neighbours(Protocol):
    """What a daemon knows of the nodes that have its database."""

    async def nodes(self) -> list[NodeState]:
        """Who has which shards."""
        ...

    def standing(self) -> Standing:
        """How this node stands."""
        ...


class Sharing(Protocol):
    """What one node can do about shards. Every method may raise `StoreError`; `StoreAway`: it may have been done."""

    async def database(self) -> str:
        """What tells this database from all others, copies of it included."""
        ...

    async def beat(self, lease: float, *, by: str, leaving: bool, full: bool) -> None:
        """Make or renew my row; it is good for `lease` seconds.

        Raises:
            NameTaken: another node of my name lives, or has lived since mine was over.
        """
        ...

    async def view(self) -> View:
        """Who owns what, and who is there."""
        ...

    async def claim(self, shards: Mapping[int, int]) -> dict[int, int]:
        """Take those of some shards that are still at the epoch at which they were seen; return their new epochs.

        To claim none is to ask whether one may. Waits for, or shuts out, what is written under the old ones. May be
        repeated when its outcome is unknown.

        Raises:
            StoreError: this node's clock is too far from the database's (which opens an incident).
        """
        ...

    async def release(self, shards: Mapping[int, int]) -> None:
        """Give up those of some shards, with their epochs, that are mine. Nothing of them may be written afterwards."""
        ...

    async def leave(self) -> None:
        """Remove my row."""
        ...
