"""The connections of a store: which there are, and what each has to be."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from jivsd.bridge import Pool
from jivsd.store.api import StoreAway
from jivsd.store.postgres.connections import (
    JOURNAL_WAITS,
    WRITER_WAITS,
    connect,
    drop,
    spoils,
    translated,
    usable,
)
from jivsd.store.postgres.exclusion import keep_again
from jivsd.store.postgres.server import check
from jivsd.store.postgres.transactions import STEPS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from jivsd.bridge import Bridge, Usage
    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection
    from jivsd.store.postgres.exclusion import Opening

T = TypeVar("T")

READERS: Final = 4
WRITERS: Final = 2
"""Connections for what is not a batch: incidents, plugins, removals, epochs."""
CONNECTIONS: Final = 2 + WRITERS + READERS + STEPS
"""The most that a store has: of the other two, one writes batches, and one is for leases and claims."""


class Pools:
    """Connections by what they are for, in the bridge's loop."""

    def __init__(self, bridge: Bridge, address: Address, opening: Opening) -> None:
        """Prepare; nothing is connected yet.

        Args:
            bridge: where they live.
            address: to where.
            opening: of the database, which they belong to.
        """
        self.claimed = False
        """The database was opened, and is in use since."""
        self._bridge = bridge
        self._address = address
        self._opening = opening
        self.journal = self._pool(1, partial(self._connect_writer, "journal", JOURNAL_WAITS))
        self.lease = self._pool(1, self._connect_lease)
        self.writer = self._pool(WRITERS, partial(self._connect_writer, "writer", WRITER_WAITS))
        self.reader = self._pool(READERS, partial(self._connect, "reader"))
        self.step = self._pool(STEPS, partial(self._connect_writer, "transaction step", None))

    def usage(self) -> dict[str, Usage]:
        """How much each has to do."""
        return {
            "journal": self.journal.usage,
            "lease": self.lease.usage,
            "writer": self.writer.usage,
            "reader": self.reader.usage,
            "step": self.step.usage,
        }

    async def lend_another(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """In the loop: for what cannot wait until other work has ended."""
        connection = await self._connect("claim")
        try:
            return await work(connection)
        finally:
            drop(connection)

    def _pool(self, size: int, make: Callable[[], Awaitable[Connection]]) -> Pool[Connection]:
        return Pool(self._bridge, make, size=size, good=usable, drop=drop, spoils=spoils)

    async def _connect_lease(self) -> Connection:
        """Connect; keep others out again if a connection that did has been lost."""
        connection = await self._connect_writer("lease", WRITER_WAITS)
        if self.claimed:
            await self._usable(connection, keep_again(connection, self._address, self._opening))
        return connection

    async def _connect_writer(self, purpose: str, waits: str | None) -> Connection:
        """Connect, and look whether it is still a server that may be written to."""
        connection = await self._connect(purpose, waits)
        await self._usable(connection, check(connection, self._address))
        return connection

    async def _usable(self, connection: Connection, checking: Awaitable[None]) -> None:
        try:
            with self._in_use():
                await checking
        except BaseException:
            drop(connection)
            raise

    async def _connect(self, purpose: str, waits: str | None = None) -> Connection:
        with self._in_use():
            return await connect(self._address, f"{purpose} of {self._opening.node}", waits=waits)

    @contextmanager
    def _in_use(self) -> Generator[None]:
        """What keeps a store in use from a new connection may be mended: it is away meanwhile, whatever the reason."""
        try:
            yield
        except Exception as error:
            known = translated(error, self._address)
            if self.claimed and not isinstance(known, StoreAway):
                known = StoreAway(str(known))
            raise known from error
