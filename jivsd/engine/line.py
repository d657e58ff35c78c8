"""A line of those who wait for room, and who of them is next. It decides only: it knows neither clocks nor tasks."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from jivsd.clock import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

PRIORITY_WORTH: Final = 60 * SECOND
"""What a step of priority is worth, in microseconds of waiting: whoever has waited longer than that goes first all the
same, so that nobody waits for ever behind those of a higher priority who keep coming."""
FEW: Final = 1000
"""Places of those who left that may stay in the heaps; beyond that, as many as there are others."""


class Place(Generic[T]):
    """A place in a line; `item` is None once it was left, or its turn came."""

    __slots__ = ("group", "item")

    def __init__(self, group: Hashable, item: T) -> None:
        self.group = group
        self.item: T | None = item


class Line(Generic[T]):
    """Who waits. The higher priority goes first; within one, who has waited longest.

    Each waits in a group. A group for which there is no room holds up nobody of another.
    """

    def __init__(self) -> None:
        self._heaps: dict[Hashable, list[tuple[int, int, Place[T]]]] = {}
        self._numbers = count()
        self.waiting = 0
        """How many wait."""
        self._gone = 0

    def __len__(self) -> int:
        """How many wait."""
        return self.waiting

    def count(self, group: Hashable) -> int:
        """How many wait in a group."""
        return sum(place.item is not None for _, _, place in self._heaps.get(group, ()))

    def join(self, item: T, *, since: int, priority: int = 0, group: Hashable = None) -> Place[T]:
        """Wait. `since`: from when on, in microseconds; whoever joins earlier goes first among equals."""
        place = Place(group, item)
        rank = since - priority * PRIORITY_WORTH
        heapq.heappush(self._heaps.setdefault(group, []), (rank, next(self._numbers), place))
        self.waiting += 1
        return place

    def leave(self, place: Place[T]) -> bool:
        """Wait no longer. False if it had left already, or its turn has come."""
        if place.item is None:
            return False
        place.item = None
        self.waiting -= 1
        self._gone += 1
        if self._gone > FEW and self._gone > self.waiting:
            self._forget_the_gone()
        return True

    def next(self, room: Callable[[Any], bool]) -> T | None:
        """Take the next one out of a group for which there is room; None if nobody can go."""
        best: list[tuple[int, int, Place[T]]] | None = None
        for group, heap in list(self._heaps.items()):
            while heap and heap[0][2].item is None:
                heapq.heappop(heap)
                self._gone -= 1
            if not heap:
                del self._heaps[group]
            elif (best is None or heap[0] < best[0]) and room(group):
                best = heap
        if best is None:
            return None
        place = heapq.heappop(best)[2]
        item, place.item = place.item, None
        self.waiting -= 1
        return item

    def _forget_the_gone(self) -> None:
        for group, heap in list(self._heaps.items()):
            heap[:] = [entry for entry in heap if entry[2].item is not None]
            heapq.heapify(heap)
            if not heap:
                del self._heaps[group]
        self._gone = 0
