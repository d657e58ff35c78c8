"""Connections to PostgreSQL: how they are set up, what is checked of a server, what its errors mean."""

from __future__ import annotations

import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import asyncpg

from jivsd.bridge import BridgeClosed
from jivsd.masking import masked
from jivsd.store.api import OutcomeUnknown, StoreAway, StoreError
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from jivsd.store.postgres.address import Address

VERSIONS: Final = (14, 18)
"""The versions that we know, from and to. Newer ones are used with a warning."""
CLOCK_OFF: Final = 1.0
"""Seconds that our clock and the database's may differ."""
STATEMENT_CACHE: Final = 200


class Connection(Protocol):
    """What we use of asyncpg's connection, which is typed only in part. Rows have values by place and by name."""

    async def execute(self, query: str, *args: Any) -> str: ...

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...

    async def fetchrow(self, query: str, *args: Any) -> Any: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[None]: ...

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def get_server_pid(self) -> int: ...

    def terminate(self) -> None: ...


_COMMON: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
    "extra_float_digits": "1",
    "timezone": "UTC",
}
_WRITER: Final = {
    # Whatever the tables looked like when a statement was planned, it goes by the index.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}
JOURNAL_WAITS: Final = "250ms"
WRITER_WAITS: Final = "5s"
"""How long a batch, or another statement, waits for a lock that somebody holds."""

_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver is confused, by a server that speaks out of turn when it is shut down
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
    BridgeClosed,
)
"""The connection is gone or does not answer: what was asked last may have been done."""
_AWAY: Final = (
    *_LOST,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresIOError,
)
"""PostgreSQL cannot do it just now, and said that it did not."""

_STATE: Final = """
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('server_encoding') AS encoding,
       current_setting('transaction_read_only') AS read_only,
       pg_is_in_recovery() AS replica,
       current_user::text AS "user",
       current_database()::text AS database,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS clock
"""


async def connect(address: Address, purpose: str, *, waits: str | None = None) -> Connection:
    """Connect. In the bridge's loop.

    Args:
        address: to where.
        purpose: what an administrator sees of it in pg_stat_activity.
        waits: of a connection that writes: how long it waits for locks.

    Raises:
        Exception: whatever the driver says; see `translated`.
    """
    settings = {"application_name": f"jivsd {purpose}"}
    if not address.pooled:  # a pooler refuses settings at the beginning of a session
        settings |= _COMMON | ({} if waits is None else {**_WRITER, "lock_timeout": waits})
    return await cast("Any", asyncpg.connect)(
        address.dsn,
        timeout=address.connect_timeout,
        statement_cache_size=0 if address.pooled else STATEMENT_CACHE,
        server_settings=settings,
    )


def usable(connection: Connection) -> bool:
    """Whether a connection can be lent again."""
    return not connection.is_closed() and not connection.is_in_transaction()


def drop(connection: Connection) -> None:
    """Close a connection at once."""
    connection.terminate()


def spoils(error: Exception) -> bool:
    """Whether an error means that the connection, on which it came, is of no use any more."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, _LOST)


def translated(error: BaseException, address: Address) -> StoreError:
    """What an error of the driver means to the callers of a store."""
    if isinstance(error, StoreError):
        return error
    said = masked(str(error)) or type(error).__name__
    if isinstance(error, TimeoutError):
        said = "it does not answer in time"
    if isinstance(error, BridgeClosed):
        return StoreError(f"the database {address.shown} is not open")
    if isinstance(error, _AWAY):
        return StoreAway(f"cannot use the database {address.shown}: {said}")
    match error:
        case asyncpg.InvalidAuthorizationSpecificationError():
            why = f"{said}; look at the user and the password in the URL, and at pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            why = f"{said}; make it with: createdb"
        case asyncpg.InsufficientPrivilegeError():
            why = f"{said}; its user needs that permission"
        case _:
            return StoreError(f"the database {address.shown} answered unexpectedly: {type(error).__name__}: {said}")
    return StoreError(f"cannot use the database {address.shown}: {why}")


def translated_commit(error: BaseException, address: Address) -> StoreError:
    """What an error means that came in answer to what makes a batch durable."""
    if isinstance(error, _LOST):
        return OutcomeUnknown(
            f"the database {address.shown} did not say whether it has committed: {masked(str(error))}"
        )
    return translated(error, address)


async def check(connection: Connection, address: Address) -> None:
    """Look at the server behind a new connection: whether what is committed there is durable, and is ours to write.

    Raises:
        StoreError: it will not do; the message says what would.
    """
    before = time.time()
    state = await connection.fetchrow(_STATE)
    assert state is not None
    after = time.time()
    if (wrong := objection(dict(state), before, after)) is not None:
        raise StoreError(f"the database {address.shown} cannot hold the journal: {wrong}")


def objection(state: dict[str, Any], before: float, after: float) -> str | None:
    """What speaks against a server, given its state and our clock before and after it was asked; or None."""
    major = state["version"] // 10000
    if major < VERSIONS[0]:
        return f"it is PostgreSQL {major}; jivsd needs {VERSIONS[0]} or newer"
    if state["replica"]:
        return "it is a replica; name the primary, or several hosts with target_session_attrs=read-write"
    if state["read_only"] == "on":
        return "it is read-only (default_transaction_read_only)"
    if state["encoding"] != "UTF8":
        return f"its encoding is {state['encoding']}; make one with: createdb --encoding=UTF8 --template=template0"
    if state["synchronous_commit"] == "off":
        return (
            "synchronous_commit is off, so that a crash loses what was acknowledged; an administrator can say: "
            f'ALTER ROLE "{state["user"]}" IN DATABASE "{state["database"]}" SET synchronous_commit = on'
        )
    clock = state["clock"] / 1_000_000
    if clock < before - CLOCK_OFF or clock > after + CLOCK_OFF:
        off = f"{before - clock:.1f} s behind" if clock < before else f"{clock - after:.1f} s ahead of"
        return f"its clock is {off} this machine's: set both by NTP"
    return None


class Sql:
    """The statements of the PostgreSQL store, for a schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """The SQL of a statement."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = in_schema(statements("postgres")[name], self.schema)
        return text


@cache
def sql_of(schema: str) -> Sql:
    """The statements for a schema."""
    return Sql(schema)


def in_schema(sql: str, schema: str) -> str:
    """SQL that is written for the schema `jivsd`, for another one."""
    return re.sub(r"\bjivsd\.", f"{schema}.", sql)
