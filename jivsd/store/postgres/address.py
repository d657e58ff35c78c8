"""Where a PostgreSQL journal is: what a `postgresql://` URL says, to the driver and to us."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

import msgspec

from jivsd.masking import masked
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA: Final = "jivsd"
"""Where our tables are unless the URL says otherwise."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds that it may take to connect to a host, unless the URL says otherwise."""

Host = tuple[str, int | None]
"""A name, an address or the folder of a Unix socket; and a port, or None for the usual one."""

_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_OURS: Final = frozenset({"schema", "pgbouncer", "connect_timeout"})
_DRIVERS: Final = frozenset(
    {"host", "port", "user", "password", "dbname", "database", "passfile", "service", "target_session_attrs"}
    | {"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"}
)
"""What the driver itself understands; every other option is a setting of the server."""
_LIBPQ_ONLY: Final = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslsni"}
    | {"sslcompression", "fallback_application_name", "client_encoding", "load_balance_hosts", "gssdelegation"}
    | {"min_protocol_version", "max_protocol_version", "sslcertmode", "channel_binding", "gssencmode", "replication"}
)
"""Options of other drivers that can be passed over: they ask for nothing that is left out and that anyone relies on."""
_REFUSED: Final = {
    ("channel_binding", "require"): "say sslmode=verify-full with sslrootcert instead, and leave it out",
    ("gssencmode", "require"): "use TLS, sslmode=verify-full, and leave it out",
    ("sslcertmode", "require"): "leave it out: the server decides whether it wants a certificate",
    ("requirepeer", ""): "leave it out, and keep the folder of the socket to the server's user",
    ("require_auth", ""): "leave it out, and say sslmode=verify-full, so that it can be no other server",
    ("hostaddr", ""): "say host=… with a name that resolves to that address",
}
"""Options of other drivers that somebody relies on, with the value that matters, and what to do instead."""
_REPLICAS: Final = frozenset({"standby", "prefer-standby", "read-only"})


class Address(msgspec.Struct):
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
    hosts: list[Host] = []
    """Where the server may be; none: where a server of this machine usually is."""
    settings: dict[str, str] = {}
    """Of the server, for our sessions."""
    first: int = 0
    """Which of the hosts is tried first: the one that was good last, or the one after it when that no longer is."""

    def option(self, name: str, variable: str) -> str | None:
        """An option of the URL, or else what the environment says."""
        return dict(parse_qsl(urlsplit(self.dsn).query)).get(name) or os.environ.get(variable)


def address_of(url: str) -> Address:
    """Read a URL: `postgresql://user@host:port/database?sslmode=verify-full&schema=jivsd&pgbouncer=true`.

    Our own options are `schema`, `pgbouncer` (a pooler in transaction mode is in between) and `connect_timeout`, in
    seconds and for each host. With several hosts, the primary is meant.

    Raises:
        StoreError: it is not such a URL, an option of ours is wrong, or it asks for what the driver cannot do.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise StoreError(
            f"{masked(url)} is not the URL of a PostgreSQL database: write postgresql://user@host/database"
        )
    if parts.fragment or parts.netloc.count("@") > 1:
        raise StoreError(f"{masked(url)}: {_ESCAPE}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in given.items():
        advice = _REFUSED.get((name, value)) or _REFUSED.get((name, ""))
        if advice is not None:
            raise StoreError(f"{name}={value} in the URL of the store: jivsd's driver cannot do that; {advice}")
    schema = given.get("schema", SCHEMA)
    if not _IDENTIFIER.fullmatch(schema) or schema.startswith("pg_"):
        raise StoreError(f"{schema!r} cannot be jivsd's schema: use small letters, digits and _, and no pg_ in front")
    hosts = _hosts(parts.netloc.rpartition("@")[2], given)
    if given.get("target_session_attrs") in _REPLICAS:
        raise StoreError("target_session_attrs in the URL of the store: a journal needs the primary; say read-write")
    if len(hosts) > 1 and "PGTARGETSESSIONATTRS" not in os.environ:
        given.setdefault("target_session_attrs", "read-write")
    dsn = urlunsplit((parts.scheme, parts.netloc, parts.path, _query(given.items()), ""))
    return Address(
        dsn=dsn,
        shown=masked(url),
        schema=schema,
        pooled=_truth("pgbouncer", given.get("pgbouncer", "false")),
        connect_timeout=_seconds(given.get("connect_timeout")),
        hosts=hosts,
        settings=_settings(given),
    )


def database_of(address: Address) -> str:
    """The name of the database for sentences."""
    return unquote(urlsplit(address.dsn).path.lstrip("/")) or "the default database"


_ESCAPE: Final = (
    "something in it is not as in a URL; in a password write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and "
    "%25 for %, or leave it out and use a password file"
)


def _hosts(netloc: str, given: dict[str, str]) -> list[Host]:
    """The hosts that the URL names, or else the environment: as PostgreSQL's own programs read them."""
    spec = unquote(netloc) if netloc else given.get("host") or os.environ.get("PGHOST") or ""
    ports = (given.get("port") or os.environ.get("PGPORT") or "").split(",")
    hosts: list[Host] = []
    for number, one in enumerate(spec.split(",") if spec else ()):
        name, port = _host(one)
        if not port:
            port = ports[number] if len(ports) > 1 and number < len(ports) else ports[0]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise StoreError(f"the URL of the store: a port is not a number up to 65535, or {_ESCAPE}")
        hosts.append((name, int(port) if port else None))
    return hosts


def _host(spec: str) -> tuple[str, str]:
    if spec.startswith("/"):
        return spec, ""
    if spec.startswith("["):
        name, _, rest = spec[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = spec.partition(":")
    return name or "localhost", port


def _settings(given: dict[str, str]) -> dict[str, str]:
    """The settings of the server that the URL asks for."""
    settings = {name: value for name, value in given.items() if name not in _OURS | _DRIVERS | _LIBPQ_ONLY}
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise StoreError(f"{name!r} in the URL of the store is no option of PostgreSQL")
    if (options := os.environ.get("PGOPTIONS")) is not None:
        settings.setdefault("options", options)
    return settings


def _query(options: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in options if name in _DRIVERS and value)


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
