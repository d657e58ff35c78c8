"""How long a node may believe that a shard is still its own.

Leases are trusted from before they were asked for, minus a margin, so that a node stops before another may start
(river, `internal/leadership/elector.go`), by a clock that goes on while the machine sleeps.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from jivsd.store.sharing import REDIS

if TYPE_CHECKING:
    from collections.abc import Collection

MARGIN: Final = 0.1
"""Parts of a lease that are not relied on: clocks that go at different speeds, and what it takes to stop."""


def boottime() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Trust:
    """What is known of one node's leases. Times are by its clock, in seconds."""

    def __init__(self, lease: float, postgresql_lease: float) -> None:
        """Begin with nothing.

        Args:
            lease: seconds that keys in Redis are good.
            postgresql_lease: seconds that the node's row is good.
        """
        self._lease = lease * (1 - MARGIN)
        self._row_lease = postgresql_lease * (1 - MARGIN)
        self.row = -inf
        """Until when the node's row is surely good."""
        self._keys: dict[int, float] = {}

    def renewed_row(self, asked: float) -> None:
        """The node's row was renewed; it was asked for at that time."""
        self.row = asked + self._row_lease

    def renewed_keys(self, shards: Collection[int], asked: float) -> None:
        """The keys of shards were set, or renewed."""
        self._keys |= dict.fromkeys(shards, asked + self._lease)

    def forget(self, shards: Collection[int]) -> None:
        """The keys of shards are none of ours."""
        for shard in shards:
            self._keys.pop(shard, None)

    def until(self, shard: int, by: str) -> float:
        """Until when a shard is surely held by what it is held by."""
        return min(self.row, self._keys.get(shard, -inf)) if by == REDIS else self.row
