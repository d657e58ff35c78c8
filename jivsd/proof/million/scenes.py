"""Where the million is: a file, or a private PostgreSQL server that has not looked at its tables since they were empty.

Beside it an empty database of the same kind, to be compared with.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import asyncpg
import trio

from jivsd.proof import fill, pgserver
from jivsd.proof.million import filling
from jivsd.store.postgres import PostgresStore
from jivsd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from jivsd.store.api import Store

_SETTINGS: Final = {"autovacuum": "off", "shared_buffers": "256MB", "max_wal_size": "4GB"}


class Scene(Protocol):
    """A database that can be filled, and one that stays empty."""

    @property
    def url(self) -> str | None:
        """Of the full one; None: the file in the daemon's data folder."""
        ...

    def fill(self, runs: int, *, steps: int, span: int, code: str, tell: Callable[[int], None]) -> int:
        """Fill it; return how many events there are."""
        ...

    def settle(self) -> bool:
        """Have the server see what is in its tables; False if there is nothing to be seen to."""
        ...

    def processes(self) -> list[int]:
        """Those of the server."""
        ...

    def bytes(self) -> int:
        """How large it is."""
        ...

    def full(self) -> Store:
        """The full one."""
        ...

    def empty(self) -> Store:
        """The empty one."""
        ...


class _File:
    url = None

    def __init__(self, folder: Path) -> None:
        self._full = folder / "state" / "jivsd.db"
        self._empty = folder / "empty.db"
        self._full.parent.mkdir()

    def fill(self, runs: int, **options: Any) -> int:
        return fill.fill(self._full, runs, **options)

    def settle(self) -> bool:
        return False

    def processes(self) -> list[int]:
        return []

    def bytes(self) -> int:
        return self._full.stat().st_size

    def full(self) -> Store:
        return SqliteStore(self._full)

    def empty(self) -> Store:
        return SqliteStore(self._empty)


class _Server:
    def __init__(self, server: pgserver.Server) -> None:
        self._server = server
        self.url = server.url()
        asyncio.run(_fetch(self.url, "CREATE DATABASE empty"))

    def fill(self, runs: int, **options: Any) -> int:
        trio.run(filling.make, self.url)
        return asyncio.run(filling.fill(self.url, runs, **options))

    def settle(self) -> bool:
        asyncio.run(_fetch(self.url, "VACUUM ANALYZE"))
        return True

    def processes(self) -> list[int]:
        return self._server.processes()

    def bytes(self) -> int:
        return asyncio.run(_fetch(self.url, "SELECT pg_database_size(current_database())"))[0][0]

    def full(self) -> Store:
        return PostgresStore(self.url)

    def empty(self) -> Store:
        return PostgresStore(self._server.url("empty"))


async def _fetch(url: str, sql: str) -> list[Any]:
    connection = await cast("Any", asyncpg).connect(url)  # typed only in part
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


@contextmanager
def scene(folder: Path, *, postgres: bool, durable: bool = True) -> Generator[Scene]:
    """A database in a folder, or on a server that is removed afterwards."""
    if postgres:
        with pgserver.Server(durable=durable, settings=_SETTINGS) as server:
            yield _Server(server)
    else:
        yield _File(folder)
