"""PostgreSQL for tests: real private servers, and a database for each test.

A server is started when the first test asks for it, one a worker and version, and ended with the session.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import asyncpg
import trio

from jivsd.proof.pgserver import VERSIONS, Server
from jivsd.store.postgres import PostgresStore

TEMPLATE = "jivsd_template"


class Databases:
    """One server's databases. `fresh` makes one with our schema; `clean` empties one that was used before."""

    def __init__(self, server):
        self.server = server
        self._numbers = count(1)
        self.common = None
        """The name of the database that `clean` empties."""
        self.sql(f"CREATE DATABASE {TEMPLATE}")
        with ThreadPoolExecutor(1) as elsewhere:  # the first test that asks may run in trio itself
            elsewhere.submit(trio.run, self._migrate, server.url(TEMPLATE)).result()

    def sql(self, *statements, database="postgres"):
        """Run statements; return the rows of the last one."""

        async def run():
            connection = await asyncpg.connect(self.server.url(database))
            try:
                for statement in statements[:-1]:
                    await connection.execute(statement)
                return await connection.fetch(statements[-1])
            finally:
                await connection.close()

        return asyncio.run(run())

    def fresh(self):
        """The URL of a new database with our schema in it: a clone, which costs a few tenths of a second."""
        return self.server.url(self.clone())

    def clone(self):
        """The name of a new database with our schema in it."""
        name = f"jivsd_{next(self._numbers)}"
        strategy = "" if self.server.version < 15 else " STRATEGY file_copy"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}{strategy}")
        return name

    def clean(self):
        """The URL of a database that is empty now, and in which the next test that asks has its journal."""
        if self.common is None:
            self.common = self.clone()
        self.sql(*_EMPTY, database=self.common)
        return self.server.url(self.common)

    async def _migrate(self, url):
        async with PostgresStore(url) as store:
            await store.open("template")


_TABLES = (
    *("attribute", "event", "feed", "forwarded", "idempotency_key", "inbox", "incident", "lease", "lock"),
    *("lock_ticket", "outbox", "payload", "plugin_code", "plugin_migration", "progress", "request"),
    *("run", "run_count", "run_hour"),  # the last ones: removing runs is counted
)
_EMPTY = [
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid()",
    *(f"DELETE FROM jivsd.{name}" for name in _TABLES),
    "SELECT setval(pg_get_serial_sequence('jivsd.' || name, 'number'), 1, false)"
    " FROM unnest('{run,inbox,outbox,feed,incident,request}'::text[]) AS name",
    "UPDATE jivsd.shard SET epoch = 0, since = 0, node = '', claim = NULL",
    "DROP SCHEMA public CASCADE",  # what plugins have made there
    "CREATE SCHEMA public",
]


class Servers:
    """The servers of a session, by version."""

    def __init__(self, *, durable=False):
        self._durable = durable
        self._databases = {}

    def __call__(self, version):
        if version not in self._databases:
            server = Server(version, durable=self._durable)
            try:
                server.start()
                self._databases[version] = Databases(server)
            except BaseException:
                server.remove()
                raise
        return self._databases[version]

    def close(self):
        for databases in self._databases.values():
            databases.server.remove()


NEWEST = max(VERSIONS)


def in_memory(databases):
    """A class of stores that takes the place of `SqliteStore(":memory:", threaded=False)` in tests."""
    in_use = set()

    class MemoryStore(PostgresStore):
        def __init__(self, path=":memory:", *, threaded=False):
            assert path == ":memory:"
            url = databases.fresh() if in_use else databases.clean()
            in_use.add(self)
            super().__init__(url, threaded=False)

        async def close(self):
            await super().close()
            in_use.discard(self)

    return MemoryStore
