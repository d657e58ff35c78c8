"""Who may write: a database is prepared and its shards are claimed; epochs are raised."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from jivsd import logs
from jivsd.records import IncidentState
from jivsd.store import clocks
from jivsd.store.api import StoreError
from jivsd.store.postgres import reading, rows
from jivsd.store.postgres.connections import sql_of
from jivsd.store.postgres.exclusion import enter, keep_others_out
from jivsd.store.postgres.schema import migrate
from jivsd.store.postgres.server import check_rights, check_room, clock_off, doubts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from typing import Protocol

    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection
    from jivsd.store.postgres.exclusion import Opening

    class Lend(Protocol):
        """Lends another connection."""

        def __call__(self, work: Callable[[Connection], Awaitable[list[Any]]], /) -> Awaitable[list[Any]]: ...


log = logs.get(__name__)

CLAIM_WAITS: Final = "5s"
"""How long a change of epochs waits for a lock, that of the session it runs in notwithstanding."""
BLOCKED: Final = 1.0
"""Seconds that a change of epochs waits for a transaction under an old one before its session is ended."""


class Claim:
    """What a node that has opened a database may do to its shards."""

    def __init__(self, address: Address, opening: Opening, lend: Lend, now: Callable[[], float]) -> None:
        """Prepare.

        Args:
            address: where the database is.
            opening: who it is, and how.
            lend: lends a connection beside the one that waits.
            now: the node's clock, in seconds since the epoch.
        """
        self._address = address
        self._sql = sql_of(address.schema)
        self._opening = opening
        self._node = opening.node
        self._claim = opening.instance
        self._lend = lend
        self._now = now

    async def make(self, connection: Connection, connections: int) -> int:
        """Check the database, bring its schema up to date, claim all shards; return the epoch (0: they are shared).

        Args:
            connection: to the database.
            connections: how many there will be.

        Raises:
            StoreError: something speaks against it.
        """
        for doubt in await doubts(connection):
            log.warning("the database server is not as it should be", why=doubt)
        await check_room(connection, self._address, connections)
        await keep_others_out(connection, self._address, self._opening)
        await migrate(connection, self._address)
        await check_rights(connection, self._address)
        await self._check_clock(connection)
        await enter(connection, self._address, self._opening)
        if self._opening.share:
            return 0
        claimed = await self._insist(connection, "claim_shards", self._node, self._claim)
        return claimed[0]["epoch"]

    async def take(
        self, connection: Connection, shards: Mapping[int, int], unsure: Mapping[int, int]
    ) -> dict[int, int]:
        """Claim shards that are still at the epochs at which they were seen; `unsure` as for `raise_epochs`.

        Raises:
            StoreError: the clock is off.
        """
        await self._check_clock(connection)
        return await self._change("claim_some", connection, self._node, shards, unsure)

    async def raise_epochs(
        self, connection: Connection, node: str, shards: Mapping[int, int], unsure: Mapping[int, int]
    ) -> dict[int, int]:
        """Raise epochs of `node`; `unsure`: those that an earlier attempt, whose answer was lost, may have raised."""
        return await self._change("raise_epochs", connection, node, shards, unsure)

    async def _change(
        self,
        statement: str,
        connection: Connection,
        node: str,
        shards: Mapping[int, int],
        unsure: Mapping[int, int],
    ) -> dict[int, int]:
        known = (list(shards), list(shards.values()), node, self._claim)
        raised = {row["id"]: row["epoch"] for row in await self._insist(connection, statement, *known)}
        mine = [shard for shard in shards if shard not in raised and unsure.get(shard) == shards[shard]]
        for row in await connection.fetch(self._sql["own_epochs"], mine, node, self._claim):
            if row["epoch"] == shards[row["id"]] + 1:
                raised[row["id"]] = row["epoch"]
        return raised

    async def _check_clock(self, connection: Connection) -> None:
        """Claim nothing with a clock that is off, and have it known."""
        off = await clock_off(connection, self._now)
        if not clocks.is_off(off):
            return
        same = clocks.fingerprint_of(self._node)
        if not (await reading.incidents(connection, self._sql, IncidentState.OPEN, None, 1, None, same))[0]:
            opened = clocks.incident(self._node, off, int(self._now() * 1_000_000))
            await connection.execute(self._sql["put_incident"], *rows.incident_row(opened))
        raise StoreError(f"{clocks.sentence(self._node, off)} (the database {self._address.shown})")

    async def _insist(self, connection: Connection, statement: str, *arguments: Any) -> list[Any]:
        """Change epochs; sessions that are in the way for long are ended."""
        async with self._session(connection) as pid:
            changing = asyncio.ensure_future(connection.fetch(self._sql[statement], *arguments))
            try:
                await asyncio.wait({changing}, timeout=BLOCKED)
                if not changing.done():
                    ended = await self._lend(lambda other: other.fetch(self._sql["end_blockers"], pid))
                    log.warning("sessions were ended that held shards", sessions=len(ended))
                return await changing
            finally:
                changing.cancel()

    @asynccontextmanager
    async def _session(self, connection: Connection) -> AsyncGenerator[int]:
        """The process that works for a connection, and goes on doing so; it waits until blockers have been ended."""
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{CLAIM_WAITS}'")
            yield await connection.fetchval("SELECT pg_backend_pid()")
