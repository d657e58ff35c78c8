"""Leases on shards, and the bus by which nodes call each other: what every way to have them offers.

A lease makes it quick and calm to agree on who has a shard. It decides nothing: PostgreSQL's epochs do that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Collection

Heard = Callable[[bytes], None]
"""Gets the body of each message, on the trio thread. It must not raise anything: that would end the process."""


class LeasesAway(Exception):
    """Who keeps the leases does not answer; nothing is known. The message says why, for people, without passwords."""


class LeasesError(Exception):
    """Who keeps the leases never will, as it is configured: what is wrong, where, what would be right."""


class Leases(Protocol):
    """Leases on shards of one database, as one node has them. A holder is known by its token."""

    @property
    def lease(self) -> float:
        """Seconds that a lease is good."""
        ...

    async def hold(self, shards: Collection[int]) -> set[int]:
        """Take leases, or renew them.

        When it is cancelled or fails, what it may have taken for the first time is given back behind its back; what
        was held before stays held.

        Returns:
            Those that are ours for `lease` seconds, counted from before the call.

        Raises:
            LeasesAway: nothing is known.
        """
        ...

    async def release(self, shards: Collection[int]) -> None:
        """Give leases up, those that are ours. When it fails, they are given up behind its back, or end by themselves.

        Raises:
            LeasesAway: it could not be told.
        """
        ...

    async def holders(self, shards: Collection[int]) -> dict[int, str]:
        """The tokens of whoever has the leases; those that nobody has are left out.

        Raises:
            LeasesAway: nothing is known.
        """
        ...


class Bus(Protocol):
    """How nodes call each other: at best effort. What must not be lost is in the journal, where everybody looks."""

    def tell(self, node: str | None, body: bytes) -> None:
        """Have a message taken to a node, or to everybody, oneself included; never waits, never fails."""
        ...


class _Held(NamedTuple):
    token: str
    until: float


class InProcess:
    """Leases that several holders in one process share, and a bus between them."""

    def __init__(self, lease: float, *, now: Callable[[], float] = trio.current_time) -> None:
        """Begin, with no lease taken.

        Args:
            lease: seconds that one is good.
            now: a clock, in seconds.
        """
        self.lease = lease
        self.heard: dict[str, Heard] = {}
        """Who listens on the bus, by node."""
        self._now = now
        self._held: dict[int, _Held] = {}

    def holder(self, token: str) -> InProcessLeases:
        """The leases as one holder has them."""
        return InProcessLeases(self, token)

    def bus(self, node: str, heard: Heard) -> InProcessBus:
        """Let a node listen on the bus, and call others."""
        self.heard[node] = heard
        return InProcessBus(self, trio.lowlevel.current_trio_token())

    def take(self, shard: int, token: str) -> bool:
        """Take a lease or renew it; whether it is the token's now."""
        if self.holder_of(shard) not in (None, token):
            return False
        self._held[shard] = _Held(token, self._now() + self.lease)
        return True

    def give_up(self, shard: int, token: str) -> None:
        """Give a lease up, if it is the token's."""
        if self.holder_of(shard) == token:
            del self._held[shard]

    def holder_of(self, shard: int) -> str | None:
        """Whose lease is good now."""
        held = self._held.get(shard)
        return held.token if held is not None and self._now() < held.until else None


class InProcessLeases:
    """One holder's leases in a process; see `Leases`."""

    def __init__(self, common: InProcess, token: str) -> None:
        self._common = common
        self._token = token

    @property
    def lease(self) -> float:
        """Seconds that a lease is good."""
        return self._common.lease

    async def hold(self, shards: Collection[int]) -> set[int]:
        """Take or renew; see `Leases.hold`."""
        await trio.lowlevel.checkpoint()
        return {shard for shard in shards if self._common.take(shard, self._token)}

    async def release(self, shards: Collection[int]) -> None:
        """Give up; see `Leases.release`."""
        await trio.lowlevel.checkpoint()
        for shard in shards:
            self._common.give_up(shard, self._token)

    async def holders(self, shards: Collection[int]) -> dict[int, str]:
        """Who has them; see `Leases.holders`."""
        await trio.lowlevel.checkpoint()
        found = {shard: self._common.holder_of(shard) for shard in shards}
        return {shard: token for shard, token in found.items() if token is not None}


class InProcessBus:
    """A bus within one trio run; see `Bus`."""

    def __init__(self, common: InProcess, trio_token: trio.lowlevel.TrioToken) -> None:
        self._common = common
        self._trio = trio_token

    def tell(self, node: str | None, body: bytes) -> None:
        """Take a message to those who listen now; see `Bus.tell`."""
        listening = self._common.heard
        for name in (*listening,) if node is None else (node,) if node in listening else ():
            self._trio.run_sync_soon(listening[name], body, idempotent=True)
