"""The notebook of a trial: what was asked of the daemon and promised by it, in a database that is none of the daemon's.

Only what was acknowledged is noted; what the daemon has promised must be found in its journal, whatever was killed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

_SCHEMA = """
CREATE TABLE asked (
    workflow TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    expects TEXT NOT NULL,
    PRIMARY KEY (workflow, workflow_id)
);
CREATE TABLE told (message_id TEXT NOT NULL PRIMARY KEY, run_id TEXT NOT NULL);
CREATE TABLE expected (run_id TEXT NOT NULL, what TEXT NOT NULL, item TEXT NOT NULL);
CREATE TABLE killed (number INTEGER PRIMARY KEY, second REAL NOT NULL, rows INTEGER NOT NULL, open INTEGER NOT NULL);
"""


class Notes:
    """Written as things happen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as db:
            db.executescript(_SCHEMA)

    def asked(
        self, workflow: str, workflow_id: str, run_id: str, *, expects: str, entries: Iterable[tuple[str, str]] = ()
    ) -> None:
        """A start was acknowledged. The run should end in the status `expects` with these ledger entries."""
        with self._open() as db:
            db.execute("INSERT INTO asked VALUES (?, ?, ?, ?)", (workflow, workflow_id, run_id, expects))
            db.executemany("INSERT INTO expected VALUES (?, ?, ?)", [(run_id, what, item) for what, item in entries])

    def told(self, run_id: str, message_id: str) -> None:
        """A signal was acknowledged."""
        with self._open() as db:
            db.execute("INSERT INTO told VALUES (?, ?)", (message_id, run_id))

    def killed(self, second: float, rows: int, open_runs: int) -> None:
        """The daemon was killed, so many seconds after the beginning, with so many rows loaded and runs open."""
        with self._open() as db:
            db.execute("INSERT INTO killed (second, rows, open) VALUES (?, ?, ?)", (second, rows, open_runs))

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA synchronous = OFF")  # this process is not the one that is killed
            with db:
                yield db
