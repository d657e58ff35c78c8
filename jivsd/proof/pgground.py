"""The bench on PostgreSQL: schemas of its own in somebody's database, and what one connection can insert there."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from jivsd.bridge import Bridge, Pool
from jivsd.proof.rawlimit import Raw, batches
from jivsd.store.postgres import PostgresStore
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import JOURNAL_WAITS, connect, drop, in_schema, translated, usable
from jivsd.store.postgres.content import EVENT_COLUMNS, Content

if TYPE_CHECKING:
    from collections.abc import Generator

    from jivsd.records import Event
    from jivsd.store.api import Store
    from jivsd.store.postgres.connections import Connection
    from jivsd.store.postgres.content import Parameter

PATIENCE: Final = 60.0

_INSERT: Final = """
INSERT INTO jivsd.event (run_id, at, checksum, seq, attempt, kind, path, "by", payload, payload_hash)
SELECT * FROM unnest($1::text::uuid[], $2::text::bigint[], $3::text::bigint[], $4::text::integer[],
                     $5::text::integer[], $6::text::text[], $7::text::text[], $8::text::text[], $9::bytea[],
                     $10::text::text[])
"""


@contextmanager
def schemas(url: str) -> Generator[_Schemas]:
    """Schemas in a database, dropped at the end."""
    made = _Schemas(url)
    try:
        yield made
    finally:
        asyncio.run(made.drop())


class _Schemas:
    name = "postgresql"

    def __init__(self, url: str) -> None:
        address_of(url)
        self._url = url
        self._made: list[str] = []

    def store(self) -> Store:
        return PostgresStore(self._new())

    async def raw(self, *, rows: int, runs: int, batch: int) -> Raw:
        """Through the same bridge and driver, into the same table, as the store does it."""
        url = self._new()
        async with PostgresStore(url) as store:
            await store.open("bench")
        address = address_of(url)
        insert = in_schema(_INSERT, address.schema)
        prepared = [_columns(events) for events in batches(rows, runs, batch)]
        async with Bridge("jivsd-raw") as bridge:
            pool: Pool[Connection] = Pool(
                bridge, lambda: connect(address, "bench", waits=JOURNAL_WAITS), size=1, good=usable, drop=drop
            )
            await pool.use(lambda db: db.fetch("SELECT 1"), timeout=PATIENCE)
            began = time.perf_counter()
            for columns in prepared:
                await pool.use(lambda db, columns=columns: db.fetch(insert, *columns), timeout=PATIENCE)
            seconds = time.perf_counter() - began
            await pool.close()
        return Raw(rows, len(prepared), seconds)

    async def versions(self) -> dict[str, str]:
        async with Bridge() as bridge:
            return await bridge.call(self._versions, timeout=PATIENCE)

    async def _versions(self) -> dict[str, str]:
        connection = await connect(address_of(self._url), "bench")
        try:
            found = await connection.fetchval("SELECT current_setting('server_version')")
        finally:
            drop(connection)
        return {"postgresql": found.split()[0], "asyncpg": version("asyncpg"), "uvloop": version("uvloop")}

    async def drop(self) -> None:
        """Drop all schemas."""
        await self._execute(*(f"DROP SCHEMA IF EXISTS {schema} CASCADE" for schema in self._made))

    async def _execute(self, *statements: str) -> None:
        address = address_of(self._url)
        try:
            connection = await connect(address, "bench")
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                drop(connection)
        except Exception as error:
            raise translated(error, address) from error

    def url(self) -> str:
        """For a daemon: the tables of its plugins, too, are in a schema that is new, and dropped at the end."""
        url = self._new()
        tables = f"{self._made[-1]}_plugins"
        self._made.append(tables)
        asyncio.run(self._execute(f"CREATE SCHEMA {tables}"))
        return f"{url}&search_path={tables}"

    def _new(self) -> str:
        """Of a schema that is new, and dropped at the end."""
        schema = f"jivsd_bench_{uuid4().hex[:12]}"
        self._made.append(schema)
        return f"{self._url}{'&' if '?' in self._url else '?'}schema={schema}"


def _columns(events: list[Event]) -> list[Parameter]:
    content = Content()
    for event in events:
        content.append(event)
    return content.parameters()[-EVENT_COLUMNS:]
