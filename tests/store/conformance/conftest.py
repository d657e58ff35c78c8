"""Which stores have to conform."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest

from jivsd.store.sqlite import SqliteStore
from store.builders import Journal


def sqlite_file(tmp_path):
    return partial(SqliteStore, tmp_path / "jivsd.db")


def sqlite_memory(tmp_path):
    return partial(SqliteStore, ":memory:", threaded=False)


@pytest.fixture(params=[sqlite_file, sqlite_memory], ids=lambda factory: factory.__name__)
def journal(request, tmp_path):
    """`async with journal() as j:` opens a new, empty store."""
    make = request.param(tmp_path)

    @asynccontextmanager
    async def opened():
        async with make() as store:
            yield Journal(store, await store.open("node-a"))

    return opened
