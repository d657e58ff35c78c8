"""Looking after the database: checking it, copying it, removing what is old, all in bounded pieces."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import apsw

from jivsd.store.api import DamagedRow, StoreError
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import first, query, together, translated
from jivsd.store.statements import statements
from jivsd.store.upkeep import CHECK_ROWS, RELATIONS, REPORTED, gap

if TYPE_CHECKING:
    from collections.abc import Callable

BACKUP_PAGES: Final = 2_000
"""Pages copied between two looks at whether somebody still wants the copy."""

_sql: Final = statements("sqlite")


def check(connection: apsw.Connection, path: str, pause: Callable[[], None]) -> list[str]:
    """See `Store.check`. `pause` is called between the pieces, and may raise to end the check."""
    checker = _Checker(connection)
    pieces = [checker.structure, checker.relations, checker.runs, checker.events]
    while pieces and len(checker.findings) < REPORTED:
        try:
            if not pieces[0]():
                pieces.pop(0)
        except apsw.Error as error:
            checker.findings.append(str(translated(error, path)))
            pieces.pop(0)
        except UnicodeDecodeError as error:
            checker.findings.append(f"the database {path} holds text that is not UTF-8: {error}")
            pieces.pop(0)
        pause()
    return checker.findings


class _Checker:
    """The pieces of a check. Each adds to `findings` and says whether it has more to do."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.findings: list[str] = []
        self._connection = connection
        self._last_run = 0
        self._last = ("", 0)

    def structure(self) -> bool:
        """Let SQLite check its pages and indices."""
        found = [line for (line,) in query(self._connection, f"PRAGMA integrity_check({REPORTED})")]
        self.findings += [f"SQLite: {line}" for line in found if line != "ok"]
        return False

    def relations(self) -> bool:
        """Check that what belongs together is there, and that what is counted is right."""
        for statement, what in RELATIONS.items():
            found = query(self._connection, _sql[statement]).fetchall()
            self.findings += [what.format(*row) for row in found[:REPORTED]]
        return False

    def runs(self) -> bool:
        """Check that the next rows of runs can be read."""
        found = query(self._connection, _sql["check_runs"], (self._last_run, CHECK_ROWS)).fetchall()
        for row in found:
            try:
                rows.run_of(row)
            except StoreError as error:
                self.findings.append(str(error))
            self._last_run = row[-1]
        return len(found) == CHECK_ROWS

    def events(self) -> bool:
        """Check the next events: their checksums, and that none is missing."""
        count = 0
        for row in query(self._connection, _sql["check_events"], (*self._last, CHECK_ROWS)):
            count += 1
            self._event(row)
        return count == CHECK_ROWS

    def _event(self, row: rows.Row) -> None:
        run_id, seq = row[0], row[1]
        if missing := gap(self._last, run_id, seq):
            self.findings.append(missing)
        try:
            rows.event_of(row, run_id, seq)
        except DamagedRow as error:
            self.findings.append(str(error))
        self._last = (run_id, seq)


def backup(source: apsw.Connection, target: str, pause: Callable[[], None]) -> None:
    """See `Store.backup`. `pause` is called between the pieces, and may raise to give up.

    The copy is written to a file beside the target, so that half a copy never has its name.
    """
    if os.path.lexists(target):
        raise StoreError(f"there is already a file {target}: choose another name for the backup")
    partial = f"{target}.partial"
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from None
    try:
        _copy(source, partial, pause)
        os.link(partial, target)  # unlike a rename, this never takes the place of a file that came meanwhile
        sync_folder(os.path.dirname(os.path.abspath(target)))
    except apsw.Error as error:
        raise translated(error, target) from error
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from None
    finally:
        for leftover in (partial, f"{partial}-journal"):
            with suppress(FileNotFoundError):
                os.remove(leftover)


def _copy(source: apsw.Connection, path: str, pause: Callable[[], None]) -> None:
    copy = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        with together(source), copy.backup("main", source, "main") as progress:
            # One snapshot: a write between two pieces would make SQLite begin again.
            first(source, "SELECT count(*) FROM sqlite_schema")
            while not progress.step(BACKUP_PAGES):
                pause()
        first(copy, "PRAGMA journal_mode = DELETE")  # a backup is one file: no log beside it
    finally:
        copy.close(force=True)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
