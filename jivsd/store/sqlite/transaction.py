"""Transaction steps: a plugin's writes in jivsd's own database, committed together with the step's record."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import apsw

from jivsd.store.api import TransactionError
from jivsd.store.sqlite.database import AWAY, own_names

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from jivsd.records import Event
    from jivsd.store.txstep import TxStep

LIMIT: Final = 0.1
"""How long a transaction step may take, in seconds: every other append waits behind it."""
_CHECK_EVERY: Final = 1_000
"""How many steps of SQLite's machine lie between two looks at the clock."""

_ON_TABLE: Final = frozenset({apsw.SQLITE_READ, apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_ON_SCHEMA: Final = frozenset(
    {
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_REINDEX,  # every CREATE INDEX asks for it, too
    }
)
_FORBIDDEN: Final = {
    apsw.SQLITE_TRANSACTION: "BEGIN, COMMIT or ROLLBACK: the step commits when its function returns",
    apsw.SQLITE_SAVEPOINT: "SAVEPOINT",
    apsw.SQLITE_ATTACH: "ATTACH",
    apsw.SQLITE_DETACH: "DETACH",
    apsw.SQLITE_PRAGMA: "PRAGMA",
    apsw.SQLITE_ANALYZE: "ANALYZE",
    apsw.SQLITE_CREATE_TEMP_TABLE: "temporary tables",
    apsw.SQLITE_CREATE_TEMP_VIEW: "temporary views",
    apsw.SQLITE_CREATE_TEMP_INDEX: "temporary indices",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "temporary triggers",
}


class Lost(Exception):
    """The step's SQL has rolled back the whole batch around it (an interrupt, `OR ROLLBACK`, `RAISE(ROLLBACK)`)."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Guard:
    """SQLite's authorizer for a connection: while a transaction step has it, that may touch only its own tables."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._names = own_names()
        self._active = False
        self.denied: str | None = None
        # Set once: setting it again would make SQLite prepare every statement anew.
        connection.set_authorizer(self._authorize)

    @contextmanager
    def active(self) -> Generator[None]:
        """Guard what is prepared inside."""
        self._active = True
        self.denied = None
        try:
            yield
        finally:
            self._active = False

    def _authorize(
        self, operation: int, first: str | None, second: str | None, database: str | None, inner: str | None
    ) -> int:
        if not self._active:
            return apsw.SQLITE_OK
        objection = self._objection(operation, first or "", second or "")
        if objection is None:
            return apsw.SQLITE_OK
        self.denied = objection
        return apsw.SQLITE_DENY

    def _objection(self, operation: int, first: str, second: str) -> str | None:
        if operation in _FORBIDDEN:
            return f"a transaction step may not use {_FORBIDDEN[operation]}"
        if operation in _ON_TABLE:
            touched = (first,)
        elif operation in _ON_SCHEMA:
            touched = (first, second)
        else:
            return None
        own = [name for name in touched if name.lower() in self._names]
        return f"a transaction step may not touch jivsd's own {own[0]!r}" if own else None


class SqliteTransaction:
    """What a transaction step works with; its awaitables are complete at once. Dead when the step has returned."""

    def __init__(self, connection: apsw.Connection, guard: Guard, deadline: float) -> None:
        self._connection = connection
        self._guard = guard
        self._deadline = deadline
        self._open = True

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> int:
        """Run one or more statements; return the number of rows that the last one changed.

        Raises:
            TransactionError: it is not allowed, or the time is up.
            apsw.Error: SQLite's own errors, such as a violated constraint.
        """
        before = self._connection.total_changes()
        self._run(sql, parameters)
        return self._connection.changes() if self._connection.total_changes() > before else 0

    async def fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises as `execute` does."""
        return self._run(sql, parameters)

    async def fetchrow(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> dict[str, Any] | None:
        """Run a query; return its first row, or None. Raises as `execute` does."""
        return next(iter(self._run(sql, parameters)), None)

    async def fetchval(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Any:
        """Run a query; return the first value of its first row, or None. Raises as `execute` does."""
        return next((value for row in self._run(sql, parameters) for value in row.values()), None)

    def close(self) -> None:
        """The step has returned: whoever kept the transaction can do nothing with it."""
        self._open = False

    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._deadline

    def check_time(self) -> None:
        """Raise TransactionError when the time is up."""
        if self.is_late():
            raise TransactionError(f"the transaction step took longer than {LIMIT * 1000:.0f} ms: nothing was written")

    def _run(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[dict[str, Any]]:
        if not self._open:
            raise TransactionError("this transaction has ended: use it only inside its step")
        self.check_time()
        with self._guard.active():
            try:
                # Not cached: a statement of ours with the same text would come unguarded.
                cursor = cast("Any", self._connection).execute(sql, parameters, can_cache=False)
                return [
                    dict(zip((column[0] for column in cursor.get_description()), row, strict=True)) for row in cursor
                ]
            except apsw.AuthError:
                raise TransactionError(self._guard.denied or "a transaction step may not do this") from None
            except apsw.InterruptError:
                self.check_time()
                raise


def drive(connection: apsw.Connection, guard: Guard, step: TxStep) -> Event:
    """Run a step's body inside the savepoint that is open; return the event that it yields.

    Raises:
        Lost: nothing is left of the batch, either.
        apsw.Error: the disk is full or the like: nothing was the step's fault.
        BaseException: whatever the body raised; the savepoint has to be rolled back.
    """
    transaction = SqliteTransaction(connection, guard, time.monotonic() + LIMIT)
    connection.set_progress_handler(transaction.is_late, _CHECK_EVERY)
    try:
        event = step.body(transaction)
        transaction.check_time()
        if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            raise TransactionError("the transaction step leaves a foreign key that points nowhere")
    except (KeyboardInterrupt, SystemExit):
        raise
    except AWAY:
        raise
    except BaseException as error:
        if not connection.in_transaction:
            raise Lost(error) from error
        raise
    finally:
        transaction.close()
        connection.set_progress_handler(None)
    if not connection.in_transaction:
        raise Lost(TransactionError("the transaction step's SQL has rolled everything back"))
    return event


def expected(event: Event, run_id: str, seq: int) -> Event:
    """The event that a step has yielded.

    Raises:
        ValueError: it is another one than event `seq` of run `run_id`.
    """
    if (event.run_id, event.seq) != (run_id, seq):
        raise ValueError(f"the transaction step yielded event {event.seq} of {event.run_id}, not {seq}")
    return event
