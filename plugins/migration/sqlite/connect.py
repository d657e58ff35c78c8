"""Connections to SQLite files, for as long as one step needs them, and what their errors mean to a person."""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from ..errors import MigrationError, Unavailable
from ..keys import RawText

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

_busy_seconds = 1.0
"""How long one attempt waits for another program's lock: short enough for a pause to take effect within 2 s."""
_turns = [threading.Lock() for _ in range(64)]
"""Writers of one file in this process queue here: SQLite's own waiting is by polling, and not fair."""
_oldest = (3, 37)


@contextmanager
def reading(path: str, role: str) -> Generator[sqlite3.Connection]:
    """A read-only connection. `role` is what errors call the database: the source, the target."""
    if not os.path.exists(path):
        raise MigrationError(f"there is no {role} database at {path}")
    if os.path.isdir(path):
        raise MigrationError(f"the {role} {path} is a folder; it must be a database file")
    with explained(path, role), closing(_open(path, _reading_mode(path))) as db:
        yield db


@contextmanager
def writing(
    path: str, doing: str, *, create: bool = False, prepare: Callable[[sqlite3.Connection], None] | None = None
) -> Generator[sqlite3.Connection]:
    """One transaction that writes to the target, committed when the block is left normally.

    Durable once committed, a crash of the host included. Foreign keys are not enforced: rows come in any order, and
    references are checked at the end. `prepare` is called before the transaction begins.
    """
    if not create and not os.path.exists(path):
        raise MigrationError(f"the target {path} is gone")
    turn = _turns[zlib.crc32(os.path.realpath(path).encode(errors="surrogateescape")) % len(_turns)]
    with turn, explained(path, "target", doing), closing(_open(path, "rwc" if create else "rw")) as db:
        # EXTRA, not FULL: in rollback-journal mode FULL may lose a commit when power fails just after it
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA foreign_keys = OFF")
        if prepare is not None:
            prepare(db)
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def _open(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, isolation_level=None, timeout=_busy_seconds)


def _reading_mode(path: str) -> str:
    """A file in WAL mode on a read-only medium can be opened only by promising that nobody changes it."""
    sealed = not os.access(os.path.dirname(path), os.W_OK) and not os.path.exists(f"{path}-wal")
    return "ro&immutable=1" if sealed and not os.access(path, os.W_OK) else "ro"


def tolerant(db: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Do `work`, and if it meets a text that is not valid UTF-8, do it again with such texts read as RawText.

    Decoding in Python costs much more than sqlite3's own, so that it is not done before it must.
    """
    try:
        return work()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("Could not decode to UTF-8"):
            raise
        db.text_factory = _text
        return work()


def _text(data: bytes) -> str | RawText:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return RawText(data)


def require_version() -> None:
    """Raises MigrationError when the SQLite that Python has is too old to describe its tables."""
    if sqlite3.sqlite_version_info < _oldest:
        wanted = ".".join(map(str, _oldest))
        raise MigrationError(f"Python's SQLite is version {sqlite3.sqlite_version}; migrations need {wanted} or later")


@contextmanager
def explained(path: str, role: str, doing: str = "") -> Generator[None]:
    """Turn sqlite3's errors into MigrationError (final) and Unavailable (worth another attempt)."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, f"the {role} {path}", f" while {doing}" if doing else "") from error


def _explain(error: sqlite3.Error, database: str, doing: str) -> MigrationError | Unavailable:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(f"{database} is locked by another program{doing}")
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"no space is left on the disk of {database}{doing}")
        case sqlite3.SQLITE_IOERR:
            return Unavailable(f"reading or writing {database} failed{doing}: {error}")
        case sqlite3.SQLITE_NOTADB:
            return MigrationError(f"{database} is not an SQLite database, or it is encrypted")
        case sqlite3.SQLITE_CORRUPT:
            return MigrationError(f"{database} is damaged{doing}: {error}; try sqlite3's .recover on a copy")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return MigrationError(f"{database} cannot be opened: may the daemon's user use it and its folder?")
        case sqlite3.SQLITE_READONLY if code == sqlite3.SQLITE_READONLY_ROLLBACK:
            return MigrationError(
                f"{database} was left in the middle of a transaction by a program that crashed; "
                "open it once with write access, so that SQLite rolls that back"
            )
        case sqlite3.SQLITE_READONLY:
            return MigrationError(f"{database} cannot be written: it is read-only")
        case sqlite3.SQLITE_CONSTRAINT:
            return MigrationError(f"{database} refuses a row{doing}: {error}")
        case _:
            return MigrationError(f"{database} reports an error{doing}: {error}")
