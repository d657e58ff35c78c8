"""The database file: opening it, keeping others out, bringing its schema up to date, and what its errors mean."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import apsw

from jivsd.records import SHARDS
from jivsd.store.api import OutcomeUnknown, StoreAway, StoreError
from jivsd.store.statements import migrations, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

T = TypeVar("T")

MEMORY: Final = ":memory:"
APPLICATION_ID: Final = 0x6A697673
"""What `file(1)` and we recognise our databases by: "jivs"."""
BUSY_MS: Final = 5_000
"""How long a statement waits for another process, such as a backup or the sqlite3 shell, in milliseconds."""

_WRITER: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",  # for the tables that plugins bring; ours have none
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)
_READER: Final = ("PRAGMA query_only = ON", "PRAGMA cache_size = -4096", "PRAGMA trusted_schema = OFF")

AWAY: Final = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.PermissionsError,
    apsw.NoMemError,
)
_DAMAGED: Final = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)


class Ask(Protocol):
    """Works with a connection of the store's."""

    async def __call__(self, work: Callable[[apsw.Connection], T], /) -> T: ...


def query(connection: apsw.Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """Run SQL; return the cursor with its rows.

    Typed Any, because apsw's own types name `collections.abc.Buffer`, which is new in Python 3.12.
    """
    return cast("Any", connection).execute(sql, parameters)


@contextmanager
def together(connection: apsw.Connection) -> Generator[None]:
    """What is read inside is of one snapshot; what is written is written whole or not at all."""
    with connection:
        yield


def first(connection: apsw.Connection, sql: str, *parameters: Any) -> tuple[Any, ...] | None:
    """The first row of a query, or None; no others are left unread behind it."""
    rows: list[tuple[Any, ...]] = query(connection, sql, parameters).fetchall()
    return rows[0] if rows else None


def path_of(url: str | Path) -> str:
    """The path of a store's URL: `sqlite:////absolute/path`, `sqlite:///relative/path`, a bare path, or `:memory:`.

    Raises:
        StoreError: it is the URL of something else.
    """
    text = str(url)
    if text in (MEMORY, "sqlite://", "sqlite:///:memory:"):
        return MEMORY
    if text.startswith("sqlite:///"):
        return text.removeprefix("sqlite:///")
    if "://" in text:
        raise StoreError(f"{text.partition('://')[0]}:// is not an embedded store: write sqlite:////path/to/jivsd.db")
    return text


def translated(error: apsw.Error, path: str) -> StoreError:
    """What an error of SQLite means to the callers of a store."""
    if isinstance(error, AWAY):
        return StoreAway(f"cannot use the database {path}: {error}{_advice(error)}")
    if isinstance(error, _DAMAGED):
        return StoreError(f"the database {path} is damaged: {error}; restore a backup, or look with: jivsd db check")
    return StoreError(f"the database {path} answered unexpectedly: {type(error).__name__}: {error}")


def translated_commit(error: apsw.Error, path: str) -> StoreError:
    """What an error of COMMIT means.

    When the last fsync fails, the commit is rolled back here but lies whole in the write-ahead log: were the process
    killed now, recovery would bring it back. The next transaction overwrites it.
    """
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC:
        return OutcomeUnknown(f"the database {path} could not be synced: {error}")
    return translated(error, path)


def _advice(error: apsw.Error) -> str:
    match error:
        case apsw.FullError():
            return "; make room on its disk"
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return "; make it and its folder writable for this user"
        case apsw.BusyError() | apsw.LockedError():
            return "; another program holds its lock"
        case _:
            return ""


class FileLock:
    """Keeps a second daemon off a database file: a lock on `<file>.lock`, which names its holder's process."""

    def __init__(self, path: str) -> None:
        """Take the lock.

        Raises:
            StoreError: another process has it, or the file cannot be made.
        """
        self._path = f"{path}.lock"
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open the database {path}: {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(
                f"the database {path} is in use by another jivsd, process {holder}: stop that one, or use another "
                "data folder"
            ) from None
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds without the name in it

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would let two in."""
        os.close(self._file)


def connect_writer(path: str) -> apsw.Connection:
    """Open the connection that writes; make the file when there is none, readable by its owner only.

    Raises:
        StoreError: it cannot be opened, or is not ours.
    """
    try:
        if path != MEMORY:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open the database {path}: {error.strerror}") from None
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise translated(error, path) from None
    try:
        connection.set_busy_timeout(BUSY_MS)
        _refuse_foreign(connection, path)
        query(connection, "PRAGMA auto_vacuum = INCREMENTAL")  # of a new database; later it would have no effect
        mode = first(connection, "PRAGMA journal_mode = WAL")
        if path != MEMORY and mode != ("wal",):
            raise StoreError(f"the database {path} lies on a file system without the locks that WAL needs; use another")
        for pragma in _WRITER:
            query(connection, pragma)
    except apsw.Error as error:
        connection.close()
        raise translated(error, path) from None
    except StoreError:
        connection.close()
        raise
    return connection


def connect_reader(path: str) -> apsw.Connection:
    """Open a connection that only reads.

    Raises:
        StoreError: it cannot be opened.
    """
    if not Path(path).is_file():
        raise StoreError(f"there is no database {path}")
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(BUSY_MS)
        for pragma in _READER:
            query(connection, pragma)
    except apsw.Error as error:
        raise translated(error, path) from None
    return connection


def check_version(connection: apsw.Connection, path: str) -> int:
    """The number of the last migration of a database; 0 if it is new.

    Raises:
        StoreError: it is newer than this program.
    """
    newest = len(migrations("sqlite"))
    version = _version(connection)
    if version > newest:
        raise StoreError(
            f"the database {path} has schema version {version}, this jivsd knows up to {newest}: use the newer jivsd "
            "that made it, or restore a backup from before"
        )
    return version


def migrate(connection: apsw.Connection, path: str) -> None:
    """Bring the schema up to date, each migration in a transaction of its own; a new database gets its shards.

    Raises:
        StoreError: the database is newer than this program.
        StoreAway: it cannot be written to.
    """
    sql = statements("sqlite")
    version = check_version(connection, path)
    try:
        for migration in migrations("sqlite"):
            if migration.number <= version:
                continue
            with together(connection):
                query(connection, migration.sql)
                query(connection, f"PRAGMA application_id = {APPLICATION_ID}")
                query(connection, sql["put_meta"], ("schema", str(migration.number)))
        if first(connection, sql["meta"], "shards") is None:
            with together(connection):
                for shard in range(SHARDS):
                    query(connection, sql["insert_shard"], (shard,))
                query(connection, sql["put_meta"], ("shards", str(SHARDS)))
        if first(connection, sql["meta"], "shards") != (str(SHARDS),):
            raise StoreError(f"the database {path} was made with another number of shards than {SHARDS}")
    except apsw.Error as error:
        raise translated(error, path) from None


@cache
def own_names() -> frozenset[str]:
    """The names of our tables, views and indices, in lower case."""
    connection = apsw.Connection(MEMORY)
    for migration in migrations("sqlite"):
        query(connection, migration.sql)
    return frozenset(name.lower() for (name,) in query(connection, "SELECT name FROM sqlite_schema"))


def _version(connection: apsw.Connection) -> int:
    if not connection.table_exists("main", "meta"):
        return 0
    found = first(connection, statements("sqlite")["meta"], "schema")
    return int(found[0]) if found else 0


def _refuse_foreign(connection: apsw.Connection, path: str) -> None:
    mark = first(connection, "PRAGMA application_id")
    if first(connection, "SELECT 1 FROM sqlite_schema LIMIT 1") and mark != (APPLICATION_ID,):
        raise StoreError(f"{path} is the database of another program: name another file for jivsd's own")
