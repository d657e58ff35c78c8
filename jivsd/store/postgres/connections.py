"""Connections to PostgreSQL: how they are made and set up, what their errors mean."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import asyncpg

from jivsd.bridge import BridgeClosed
from jivsd.masking import masked
from jivsd.store.api import OutcomeUnknown, StoreAway, StoreError
from jivsd.store.postgres.credentials import look_at_files, password_file_ignored, password_of, trust_of_the_system
from jivsd.store.postgres.pooled import Pooled
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from jivsd.store.postgres.address import Address, Host

T = TypeVar("T")

STATEMENT_CACHE: Final = 200
FAREWELL: Final = 0.02
"""Seconds for a connection that failed to say good-bye over TLS; a loop that is closed meanwhile complains of it."""


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


class Ask(Protocol):
    """Works with a connection of the store's."""

    async def __call__(self, work: Callable[[Connection], Awaitable[T]], /) -> T: ...


COMMON: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
    # Whatever the tables looked like when a statement was planned, it goes by the one index that is made for it. Of a
    # table that was not analysed yet a planner thinks that each condition leaves a two-hundredth, and combines what
    # several leave: 50 ms instead of 0.1 to find a workflow id among a million.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "extra_float_digits": "1",
    "timezone": "UTC",
}
_WRITER: Final = {"plan_cache_mode": "force_generic_plan"}
JOURNAL_WAITS: Final = "250ms"
WRITER_WAITS: Final = "5s"
"""How long a batch, or another statement, waits for a lock that somebody holds."""

HELD: Final = "JV001"
FENCED: Final = "JV002"
"""What the functions of our schema say: a row is missing or held; a shard has another owner."""

LOST: Final = (
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
HELD_UP: Final = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresIOError,
)
_AWAY: Final = (*LOST, *HELD_UP, asyncpg.TransactionRollbackError)
"""PostgreSQL cannot do it just now, and said that it did not."""
_EXPLAINED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedObjectError,
)
"""Errors that we can say more of than the driver does."""
_OTHER_NAME: Final = (62, 64)
"""OpenSSL's codes for a certificate of another host or address."""


async def connect(address: Address, purpose: str, *, waits: str | None = None) -> Connection:
    """Connect to the first of the hosts that will do. In the bridge's loop.

    Args:
        address: to where.
        purpose: what an administrator sees of it in pg_stat_activity.
        waits: of a connection that writes: how long it waits for locks.

    Raises:
        NoHost: none will do.
        Exception: whatever the driver says of the only one; see `translated`.
    """
    look_at_files(address)
    settings = address.settings | COMMON | ({} if waits is None else {**_WRITER, "lock_timeout": waits})
    name = {"application_name": f"jivsd {purpose}"}
    if address.pooled:  # it refuses settings at the beginning of a session
        return Pooled(await _connect_somewhere(address, name, statement_cache_size=0), settings)
    return await _connect_somewhere(address, settings | name, statement_cache_size=STATEMENT_CACHE)


async def _connect_somewhere(address: Address, settings: dict[str, str], **options: Any) -> Connection:
    options |= {"server_settings": settings, "ssl": trust_of_the_system(address)}
    if not address.hosts:
        return await _connect(address, {**options, "password": password_of(address, None)})
    failed: list[tuple[Host, Exception]] = []
    for _ in address.hosts:
        host = address.hosts[address.first]
        try:
            return await _connect(
                address, {**options, "host": host[0], "port": host[1], "password": password_of(address, host)}
            )
        except Exception as error:
            failed.append((host, error))
            address.first = (address.first + 1) % len(address.hosts)
    if len(failed) == 1:
        raise failed[0][1]
    raise NoHost(failed)


async def _connect(address: Address, options: dict[str, Any]) -> Connection:
    try:
        return await cast("Any", asyncpg.connect)(address.dsn, timeout=address.connect_timeout, **options)
    except Exception:
        await asyncio.sleep(FAREWELL)
        raise


class NoHost(Exception):
    """None of several hosts will do."""

    def __init__(self, failed: Sequence[tuple[Host, Exception]]) -> None:
        super().__init__("none of the hosts will do")
        self.failed = failed


def usable(connection: Connection) -> bool:
    """Whether a connection can be lent again."""
    return not connection.is_closed() and not connection.is_in_transaction()


def drop(connection: Connection) -> None:
    """Close a connection at once."""
    connection.terminate()


def spoils(error: Exception) -> bool:
    """Whether an error means that the connection, on which it came, is of no use any more."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, (*LOST, asyncpg.ReadOnlySQLTransactionError))  # another host may be the primary now


def starts_just_now(error: StoreError) -> bool:
    """Whether a server has said that it is just starting, or recovering from a crash."""
    cause: BaseException | None = error
    while isinstance(cause, StoreError):
        cause = cause.__cause__
    return isinstance(cause, asyncpg.CannotConnectNowError)


def translated(error: BaseException, address: Address) -> StoreError:
    """What an error of the driver means to the callers of a store."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, BridgeClosed):
        return StoreError(f"the database {address.shown} is not open")
    if isinstance(error, NoHost):
        reasons = "; ".join(f"{name}: {_reason(one, address, name)}" for (name, _), one in error.failed)
        kind = StoreAway if any(_passes(one) for _, one in error.failed) else StoreError
        return kind(f"cannot use the database {address.shown}: none of its hosts will do ({reasons})")
    kind = StoreAway if _passes(error) else StoreError
    if not isinstance(error, (*_AWAY, *_EXPLAINED)):
        said = f"{type(error).__name__}: {masked(str(error))}"
        return kind(f"the database {address.shown} answered unexpectedly: {said}")
    name = address.hosts[0][0] if address.hosts else "this machine"
    return kind(f"cannot use the database {address.shown}: {_reason(error, address, name)}")


def _passes(error: BaseException) -> bool:
    """Whether an error is of a kind that goes by itself."""
    return isinstance(error, _AWAY) and not isinstance(error, ssl.SSLError | asyncpg.ClientConfigurationError)


def _reason(error: BaseException, address: Address, host: str) -> str:
    """What is wrong, and what would be right."""
    said = masked(str(error)) or type(error).__name__
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case socket.gaierror():
            return f"the name {host} cannot be resolved ({error.strerror})"
        case ssl.SSLCertVerificationError():
            return _distrust(error, host)
        case ssl.SSLError():
            return f"TLS failed: {said}"
        case ConnectionError() if "rejected SSL" in said:
            return "it takes no TLS, which sslmode in the URL asks for"
        case asyncpg.TargetServerAttributeNotMatched():
            return "it is not the primary"
        case asyncpg.ProtocolViolationError() if "startup parameter" in said:
            return f"{said}; that is a pooler: say ?pgbouncer=true in the URL"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            ignored = password_file_ignored(address)
            return f"{said}; {ignored or 'look at the user and the password in the URL, and at pg_hba.conf'}"
        case asyncpg.LockNotAvailableError():
            return "somebody holds a lock for too long"
        case asyncpg.InvalidCatalogNameError():
            return f"{said}; make it with: createdb"
        case asyncpg.InsufficientPrivilegeError():
            return f"{said}; its user needs that permission"
        case asyncpg.UndefinedObjectError() if "parameter" in said:
            return f"{said}; the URL has an option that PostgreSQL does not know"
        case _:
            return said


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _OTHER_NAME:
        return (
            f"the certificate of {host} is for another name ({error.verify_message}): name the host as its certificate "
            "does"
        )
    return f"the certificate of {host} is not trusted ({error.verify_message}): sslrootcert has to name its authority"


def translated_commit(error: BaseException, address: Address) -> StoreError:
    """What an error means that came in answer to what makes a batch durable."""
    if isinstance(error, LOST):
        return OutcomeUnknown(
            f"the database {address.shown} did not say whether it has committed: {masked(str(error))}"
        )
    return translated(error, address)


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
