"""The embedded store: one SQLite file, one writer, readers apart."""

from jivsd.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
