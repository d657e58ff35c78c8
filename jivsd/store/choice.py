"""Which store a URL means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.config import sqlite_path
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from jivsd.store.postgres import PostgresStore
    from jivsd.store.sqlite import SqliteStore


def is_postgres(url: str) -> bool:
    """Whether a URL is that of a PostgreSQL database."""
    return url.partition(":")[0] in ("postgresql", "postgres")


def store_of(url: str, *, read_only: bool = False) -> SqliteStore | PostgresStore:
    """The store of a URL: `sqlite:////path/of/a/file` or `postgresql://user@host/database`. It is not opened yet.

    Raises:
        StoreError: there is no such store, or something is wrong with the URL.
    """
    if is_postgres(url):
        from jivsd.store.postgres import PostgresStore  # its driver takes a while to import

        return PostgresStore(url, read_only=read_only)
    from jivsd.store.sqlite import SqliteStore

    try:
        return SqliteStore(sqlite_path(url), read_only=read_only)
    except ValueError as error:
        raise StoreError(f"the URL of the store {error}") from None
