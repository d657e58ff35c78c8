"""Which stores have to conform."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
from pooler import Pooler

from jivsd.store.postgres import PostgresStore
from jivsd.store.sqlite import SqliteStore
from store.builders import Journal


def sqlite_file(request):
    return partial(SqliteStore, request.getfixturevalue("tmp_path") / "jivsd.db")


def sqlite_memory(request):
    return partial(SqliteStore, ":memory:", threaded=False)


def postgres_16(request):
    return partial(PostgresStore, request.getfixturevalue("postgres")(16).clean())


def postgres_18(request):
    return partial(PostgresStore, request.getfixturevalue("postgres")(18).clean())


def postgres_18_behind_pgbouncer(request):
    databases = request.getfixturevalue("postgres")(18)
    databases.clean()
    pooler = request.getfixturevalue("pooler")
    return partial(PostgresStore, f"{pooler.url(databases.common)}?pgbouncer=true")


STORES = {
    make.__name__: make for make in (sqlite_file, sqlite_memory, postgres_16, postgres_18, postgres_18_behind_pgbouncer)
}


@pytest.fixture(scope="session")
def pooler(postgres):
    with Pooler(postgres(18).server, server_check_delay=0) as started:
        yield started


@pytest.fixture(params=STORES)
def journal(request):
    """`async with journal() as j:` opens a new, empty store."""
    make = STORES[request.param](request)

    @asynccontextmanager
    async def opened():
        async with make() as store:
            yield Journal(store, await store.open("node-a"))

    return opened
