"""Checking the database, in bounded pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.store.api import DamagedRow, StoreError
from jivsd.store.postgres import rows
from jivsd.store.postgres.reading import BEFORE_ALL
from jivsd.store.upkeep import CHECK_ROWS, RELATIONS, REPORTED, gap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.store.postgres.connections import Connection, Sql

    Piece = Callable[[Connection], Awaitable[bool]]


class Checker:
    """A check, piece by piece. Each piece adds to `findings` and says whether there is more to do of its kind."""

    def __init__(self, sql: Sql) -> None:
        self.findings: list[str] = []
        self.pieces: list[Piece] = [self.relations, self.runs, self.events]
        self._sql = sql
        self._last_run = BEFORE_ALL
        self._last = (BEFORE_ALL, 0)

    async def relations(self, connection: Connection) -> bool:
        """Check that what belongs together is there, and that what is counted is right."""
        for statement, what in RELATIONS.items():
            found = await connection.fetch(self._sql[statement])
            self.findings += [what.format(*row) for row in found[:REPORTED]]
        return False

    async def runs(self, connection: Connection) -> bool:
        """Check that the next rows of runs can be read."""
        found = await connection.fetch(self._sql["check_runs"], self._last_run, CHECK_ROWS)
        for row in found:
            try:
                rows.run_of(row)
            except StoreError as error:
                self.findings.append(str(error))
            self._last_run = row["run_id"]
        return len(found) == CHECK_ROWS

    async def events(self, connection: Connection) -> bool:
        """Check the next events: their checksums, and that none is missing."""
        found = await connection.fetch(self._sql["check_events"], *self._last, CHECK_ROWS)
        for row in found:
            self._event(row)
        return len(found) == CHECK_ROWS

    def _event(self, row: rows.Row) -> None:
        run_id, seq, *_ = row
        if missing := gap(self._last, run_id, seq):
            self.findings.append(missing)
        try:
            rows.event_of(tuple(row)[1:], run_id, seq)
        except DamagedRow as error:
            self.findings.append(str(error))
        self._last = (run_id, seq)
