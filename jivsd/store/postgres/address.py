"""Where a PostgreSQL journal is: what a `postgresql://` URL says, to the driver and to us."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

import msgspec

from jivsd.masking import masked
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA: Final = "jivsd"
"""Where our tables are unless the URL says otherwise."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds that it may take to connect, unless the URL says otherwise."""

_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LIBPQ_ONLY: Final = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "gssencmode"}
    | {"channel_binding", "sslcompression", "requirepeer", "fallback_application_name", "client_encoding"}
)
"""Options of other drivers, which ask for nothing that asyncpg leaves out and we rely on."""


class Address(msgspec.Struct, frozen=True):
    """What a URL says.

    `dsn` is for the driver: hosts, TLS, password files and all other options that PostgreSQL's own programs know.
    """

    dsn: str
    shown: str
    """The URL for people, without passwords."""
    schema: str = SCHEMA
    pooled: bool = False
    """Whether a pooler (pgbouncer) may give every transaction another session."""
    connect_timeout: float = CONNECT_TIMEOUT


def address_of(url: str) -> Address:
    """Read a URL: `postgresql://user@host:port/database?sslmode=verify-full&schema=jivsd&pgbouncer=true`.

    Our own options are `schema`, `pgbouncer` (a pooler in transaction mode is in between) and `connect_timeout`, in
    seconds.

    Raises:
        StoreError: it is not such a URL, or an option of ours is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise StoreError(
            f"{masked(url)} is not the URL of a PostgreSQL database: write postgresql://user@host/database"
        )
    given = parse_qsl(parts.query, keep_blank_values=True)
    own = {name: value for name, value in given if name in ("schema", "pgbouncer", "connect_timeout")}
    rest = [(name, value) for name, value in given if name not in own and name not in _LIBPQ_ONLY]
    schema = own.get("schema", SCHEMA)
    if not _IDENTIFIER.fullmatch(schema) or schema.startswith("pg_"):
        raise StoreError(f"{schema!r} cannot be jivsd's schema: use small letters, digits and _, and no pg_ in front")
    return Address(
        dsn=urlunsplit((parts.scheme, parts.netloc, parts.path, _query(rest), "")),
        shown=masked(url),
        schema=schema,
        pooled=_truth("pgbouncer", own.get("pgbouncer", "false")),
        connect_timeout=_seconds(own.get("connect_timeout")),
    )


def database_of(address: Address) -> str:
    """The name of the database for sentences."""
    return unquote(urlsplit(address.dsn).path.lstrip("/")) or "the default database"


def _query(options: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in options)


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise StoreError(f"{name}={text} in the URL of the store: it is true or false")
    return text == "true"


def _seconds(text: str | None) -> float:
    if text is None:
        return CONNECT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise StoreError(f"connect_timeout={text} in the URL of the store: it is a number of seconds up to 60")
    return seconds
