"""What is checked of a server before a journal is entrusted to it; and what its clock says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection

VERSIONS: Final = (14, 18)
"""The versions that we know, from and to. Newer ones are used with a warning."""

_STATE: Final = """
SELECT current_setting('server_version_num')::integer AS version,
       set_config('synchronous_commit', current_setting('synchronous_commit'), $1) AS synchronous_commit,
       current_setting('server_encoding') AS encoding,
       current_setting('transaction_read_only') AS read_only,
       current_setting('idle_in_transaction_session_timeout') AS patience,
       pg_is_in_recovery() AS replica,
       current_user::text AS "user",
       current_database()::text AS database
"""
"""What a server is. synchronous_commit stays as it was found in this session, whatever is configured afterwards; where
a session is shared ($1), until the end of the transaction."""
_ROOM: Final = """
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0) AS server,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database
"""
_WITHOUT_RIGHTS: Final = """
SELECT relname::text FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind = 'r'
    AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
ORDER BY 1
"""
_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


async def check(connection: Connection, address: Address) -> None:
    """Look at the server behind a new connection: whether what is committed there is durable, and is ours to write.

    Raises:
        StoreError: it will not do; the message says what would.
    """
    state = await connection.fetchrow(_STATE, address.pooled)
    assert state is not None
    if (wrong := objection(dict(state))) is not None:
        raise StoreError(f"the database {address.shown} cannot hold the journal: {wrong}")


def objection(state: dict[str, Any]) -> str | None:
    """What speaks against a server, given its state; or None."""
    major = state["version"] // 10000
    if major < VERSIONS[0]:
        return f"it is PostgreSQL {major}; jivsd needs {VERSIONS[0]} or newer"
    if state["replica"]:
        return "it is a replica; name the primary, or all hosts: postgresql://user@one,two/database"
    if state["read_only"] == "on":
        return "it is read-only (default_transaction_read_only)"
    if state["encoding"] != "UTF8":
        return f"its encoding is {state['encoding']}; make one with: createdb --encoding=UTF8 --template=template0"
    if state["synchronous_commit"] == "off":
        return (
            "synchronous_commit is off, so that a crash loses what was acknowledged; say ?synchronous_commit=on in the "
            f'URL, or have an administrator say: ALTER ROLE "{state["user"]}" IN DATABASE "{state["database"]}" '
            "SET synchronous_commit = on"
        )
    if state["patience"] == "0":
        return "a pooler in between passes over what we set for our sessions: say ?pgbouncer=true in the URL"
    return None


async def doubts(connection: Connection) -> list[str]:
    """What an administrator should know of a server that will do."""
    version, fsync, pages = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::integer, current_setting('fsync'),"
        " current_setting('full_page_writes')"
    )
    found: list[str] = []
    if version // 10000 > VERSIONS[1]:
        found.append(f"it is PostgreSQL {version // 10000}; jivsd was tried with versions up to {VERSIONS[1]}")
    if fsync == "off":
        found.append("it runs with fsync=off: a crash of its machine loses what was acknowledged")
    elif pages == "off":
        found.append("it runs with full_page_writes=off: a crash of its machine can damage the journal")
    return found


async def check_room(connection: Connection, address: Address, needed: int) -> None:
    """See whether the server allows as many connections as we make.

    Raises:
        StoreError: it does not.
    """
    if address.pooled:
        return  # the pooler's are others
    server, role, database = await connection.fetchrow(_ROOM)
    for what, limit in (
        ("the server allows (max_connections)", server),
        ("its role may have (ALTER ROLE … CONNECTION LIMIT)", role),
        ("the database allows (ALTER DATABASE … CONNECTION LIMIT)", database),
    ):
        if 0 <= limit < needed:
            raise StoreError(f"the database {address.shown}: {what} {limit} connections; jivsd needs {needed}")


async def check_rights(connection: Connection, address: Address) -> None:
    """See whether we may read and write our tables.

    Raises:
        StoreError: we may not.
    """
    missing = [name for (name,) in await connection.fetch(_WITHOUT_RIGHTS, address.schema)]
    if missing:
        user = await connection.fetchval("SELECT current_user::text")
        raise StoreError(
            f"the database {address.shown}: its user may not read and write {', '.join(missing)}; an administrator can "
            f'say: GRANT ALL ON ALL TABLES IN SCHEMA {address.schema} TO "{user}"'
        )


async def clock_off(connection: Connection, now: Callable[[], float]) -> float:
    """How many seconds the server's clock is ahead of ours (negative: behind), apart from what asking took.

    Args:
        connection: to the server.
        now: our clock, in seconds since the epoch.
    """
    before = now()
    clock = await connection.fetchval(_CLOCK) / 1_000_000
    after = now()
    return min(clock - before, 0) or max(clock - after, 0)
