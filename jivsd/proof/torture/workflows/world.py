"""The outside world: a database of its own, in which steps note each time that they are carried out.

Nothing is synced: what a killed process has written stays in the system's memory, and that is all that is asked for.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd import StepContext

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS call (
    run_id TEXT NOT NULL, path TEXT NOT NULL, attempt INTEGER NOT NULL, key TEXT NOT NULL, detail TEXT NOT NULL,
    at INTEGER NOT NULL, node TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS call_run ON call (run_id);
CREATE TABLE IF NOT EXISTS mended (run_id TEXT NOT NULL, name TEXT NOT NULL);
"""
"""`call`: a row each time that a step's body begins; `at` in microseconds, `node` where there are
several. `mended`: what no longer fails."""
PATIENCE_S = 30.0
_NODE = os.environ.get("JIVSD_NODE", "")


def _now() -> int:
    return time.time_ns() // 1000


now: Callable[[], int] = _now
"""The time in microseconds, on the clock that the journal is dated by: a seam for tests."""
_lock = threading.Lock()
_connections: dict[str, sqlite3.Connection] = {}


def make(path: str) -> None:
    """Make the database."""
    with _lock:
        _connection(path).executescript(SCHEMA)


def call(path: str, ctx: StepContext, detail: str) -> None:
    """Note that a step is being carried out."""
    row = (ctx.run_id, ctx.path, ctx.attempt, ctx.idempotency_key, detail)
    with _lock:
        _connection(path).execute("INSERT INTO call VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, now(), _NODE))


def mend(path: str, run_id: str, name: str) -> None:
    """Let a step no longer fail."""
    with _lock:
        _connection(path).execute("INSERT INTO mended VALUES (?, ?)", (run_id, name))


def is_mended(path: str, run_id: str, name: str) -> bool:
    """Whether a step need no longer fail."""
    with _lock:
        found = _connection(path).execute("SELECT 1 FROM mended WHERE run_id = ? AND name = ?", (run_id, name))
        return found.fetchone() is not None


def _connection(path: str) -> sqlite3.Connection:
    if path not in _connections:
        made = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA synchronous = OFF")
        _connections[path] = made
    return _connections[path]
