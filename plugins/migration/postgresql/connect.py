"""Sessions in a PostgreSQL database, for as long as one step needs them, and what their errors mean to a person."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import asyncpg

from jivsd import asyncio_calls, connections

from ..errors import MigrationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ..request import Endpoint

T = TypeVar("T")

APPLICATION = "jivsd migration"
"""As what sessions appear in pg_stat_activity; those that write say by what right as well."""
_settings = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "10s",
}
"""With these a value's text stands for exactly that value, in every database."""
_connect_seconds = 10
_work_seconds = 600
_unavailable = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresIOError,
    OSError,
    TimeoutError,
)


def within(
    endpoint: Endpoint,
    role: str,
    work: Callable[[Any], Awaitable[T]],
    *,
    writes: bool = False,
    doing: str = "",
    by: str = "",
) -> T:
    """Do `work` in a transaction of its own session, which is committed when it returns; wait for it.

    `role` is what errors call the database. A transaction that only reads sees one state of it. `by` is added to what
    administrators see of the session.

    Raises:
        MigrationError: it is final. Unavailable: another attempt may mend it.
    """

    async def whole() -> T:
        async with _session(endpoint, by) as session:
            isolation = None if writes else "repeatable_read"
            async with session.transaction(isolation=isolation, readonly=not writes):
                return await work(session)

    database = f"the {role} {endpoint.shown}"
    try:
        return asyncio_calls.run(whole, timeout=_work_seconds)
    except asyncpg.ClientConfigurationError as error:
        raise MigrationError(f"{database} cannot be connected to: {error}") from None
    except _unavailable as error:
        raise Unavailable(f"{database} cannot be used{doing}: {_said(error)}") from None
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{database} reports an error{doing}: {_said(error)}") from None


@asynccontextmanager
async def _session(endpoint: Endpoint, by: str) -> AsyncGenerator[Any]:
    try:
        url = connections.url_of(endpoint.connection) if endpoint.connection else endpoint.url
    except LookupError as error:
        raise MigrationError(error.args[0]) from None
    settings = {**_settings, "application_name": f"{APPLICATION}{by}"}
    session = await cast("Any", asyncpg.connect)(url, timeout=_connect_seconds, server_settings=settings)
    try:
        schema = await session.fetchval("SELECT current_schema()")
        if schema is None:
            raise MigrationError(f"the database {endpoint.shown} has no schema that its user's search_path names")
        # nothing else: so names are written without a schema, and mean this one
        await session.execute(f"SET search_path = {quoted(schema)}")
        yield session
    finally:
        session.terminate()


def _said(error: Exception) -> str:
    """What an error says, without the rows that PostgreSQL may have put into its details."""
    return getattr(error, "message", None) or str(error) or "it does not answer in time"


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
