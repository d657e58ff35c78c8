"""Memory that a wave of requests has needed goes back to the system, once the wave has passed.

Requests leave circles of objects behind, which the collector of a daemon is told to look at seldom (see
`jivsd.memory`), and bodies leave free memory that the C library keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import memory

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS: Final = 500
"""After how many that have come or gone it is worth looking: what a client has not taken goes with its connection."""
BYTES: Final = 16 * 1024 * 1024
"""Or after how many bytes more that were received."""
QUIET: Final = 1.0
FEW: Final = 50
LITTLE: Final = 64 * 1024
"""But not before so many seconds in which only so many have come or gone, and only so many bytes have come: tidying up
keeps everything waiting for a moment."""


class Tidying:
    """Hears of everything that comes in. `calm`: whether nobody is in the middle of much; asked for each door."""

    def __init__(self) -> None:
        self.calm: list[Callable[[], bool]] = []
        self._connections = 0
        self._bytes = 0
        self._wave = trio.Event()

    def moved(self) -> None:
        """A connection has come, or gone."""
        self._connections += 1
        if self._connections >= CONNECTIONS:
            self._wave.set()

    def received(self, size: int) -> None:
        """So many bytes were received."""
        self._bytes += size
        if self._bytes >= BYTES:
            self._wave.set()

    async def run(self) -> None:
        """Tidy up after every wave, until cancelled."""
        while True:
            await self._wave.wait()
            connections, size = -FEW, -LITTLE
            while self._connections - connections >= FEW or self._bytes - size >= LITTLE or not self._is_calm():
                connections, size = self._connections, self._bytes
                await trio.sleep(QUIET)
            self._connections = self._bytes = 0
            self._wave = trio.Event()
            memory.trim()

    def _is_calm(self) -> bool:
        return all(calm() for calm in self.calm)
