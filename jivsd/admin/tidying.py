"""Memory that a wave of requests has needed goes back to the system, once the wave has passed.

Requests leave circles of objects behind, which the collector of a daemon is told to look at seldom (see
`jivsd.memory`), and bodies leave free memory that the C library keeps.
"""

from __future__ import annotations

from typing import Final

import trio

from jivsd import memory

CONNECTIONS: Final = 500
"""After how many more it is worth looking."""
BYTES: Final = 16 * 1024 * 1024
"""Or after how many bytes more that were received."""
QUIET: Final = 1.0
LITTLE: Final = 64 * 1024
"""When so many seconds have brought no more than so many bytes: tidying up keeps everything waiting for a moment."""


class Tidying:
    """Hears of everything that comes in."""

    def __init__(self) -> None:
        self._connections = 0
        self._bytes = 0
        self._wave = trio.Event()

    def came(self) -> None:
        """A connection was accepted."""
        self._connections += 1
        if self._connections == CONNECTIONS:
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
            before = -LITTLE
            while self._bytes - before >= LITTLE:
                before = self._bytes
                await trio.sleep(QUIET)
            self._connections = self._bytes = 0
            self._wave = trio.Event()
            memory.trim()
