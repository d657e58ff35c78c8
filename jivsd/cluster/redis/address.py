"""Where Redis is: what a URL says.

- `redis://user:password@host:6379/0`, `rediss://…` over TLS, `unix:///run/redis.sock?db=0`
- `redis+sentinel://user:password@host:26379,other:26379/SERVICE/0`
- `redis+cluster://user:password@host:6379,other:6379`
- `rediss+sentinel://`, `rediss+cluster://`: the same over TLS
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from jivsd.cluster.leases import LeasesError
from jivsd.masking import masked

if TYPE_CHECKING:
    from urllib.parse import SplitResult

Host = tuple[str, int]
Kind = Literal["one", "sentinel", "cluster"]

PORTS: Final[dict[Kind, int]] = {"one": 6379, "sentinel": 26379, "cluster": 6379}
"""Where a server listens unless the URL says otherwise."""

_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("one", False),
    "rediss": ("one", True),
    "unix": ("one", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_TLS_OPTIONS: Final = {"ca", "cert", "key", "verify"}
_SENTINEL_OPTIONS: Final = {"sentinel_user", "sentinel_password"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Tls(msgspec.Struct, frozen=True):
    """How a connection is encrypted, and who is believed."""

    ca: str | None = None
    """A file with the certificates of authorities; None: those of the machine."""
    cert: str | None = None
    """A file with our certificate, and `key`, one with its key."""
    key: str | None = None
    verify: Literal["full", "ca", "none"] = "full"
    """Whether the certificate must be of a known authority, and for the host's name, too."""


class Address(msgspec.Struct, frozen=True):
    """What a URL says."""

    kind: Kind
    hosts: tuple[Host, ...]
    """Servers, Sentinels, or some of a cluster's nodes; none: it is a Unix socket."""
    shown: str
    """The URL for people, without passwords."""
    path: str = ""
    """Of the Unix socket."""
    service: str = ""
    """What Sentinel calls the primary and its replicas."""
    database: int = 0
    user: str | None = None
    password: str | None = None
    sentinel_user: str | None = None
    sentinel_password: str | None = None
    tls: Tls | None = None


def address_of(url: str) -> Address:
    """Read a URL.

    Raises:
        LeasesError: it is not one of ours; the message says what is wrong, and what would be right.
    """
    shown = masked(url)
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        return _read(parts, options, shown)
    except ValueError as error:
        raise LeasesError(f"redis = {shown}: {error}") from None


def _read(parts: SplitResult, options: dict[str, str], shown: str) -> Address:
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"it begins with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    kind, encrypted = _SCHEMES[parts.scheme]
    if parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError("in a password write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and %25 for %")
    known = {"db", *(_TLS_OPTIONS if encrypted else ()), *(_SENTINEL_OPTIONS if kind == "sentinel" else ())}
    if strange := options.keys() - known:
        raise ValueError(f"there is no option {min(strange)} here; there are {', '.join(sorted(known))}")
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if places or not path.startswith("/") or path.endswith("/"):
            raise ValueError("write unix:///absolute/path/of/a/socket, with three slashes")
        hosts, service, number = (), "", ""
    else:
        hosts = tuple(_host(one, PORTS[kind]) for one in places.split(","))
        service, number = _after_hosts(kind, path.removeprefix("/"))
        if kind == "one" and len(hosts) > 1:
            raise ValueError("several hosts go with redis+sentinel:// or redis+cluster://")
        path = ""
    return Address(
        kind=kind,
        hosts=hosts,
        shown=shown,
        path=path,
        service=service,
        database=_database(kind, number, options.get("db")),
        user=unquote(user) or None,
        password=unquote(password) or None,
        sentinel_user=options.get("sentinel_user"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if encrypted else None,
    )


def _host(text: str, usual: int) -> Host:
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    if not name:
        raise ValueError("a host is missing")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port is a number up to 65535")
    return name, int(port) if port else usual


def _after_hosts(kind: Kind, path: str) -> tuple[str, str]:
    """The service of a Sentinel's, and the number of a database."""
    if kind != "sentinel":
        return "", path
    service, _, number = path.partition("/")
    if not _NAME.fullmatch(service):
        raise ValueError("after the hosts of Sentinels comes what they call the primary: redis+sentinel://host/SERVICE")
    return service, number


def _database(kind: Kind, path: str, option: str | None) -> int:
    if path and option is not None:
        raise ValueError("the number of the database is there twice")
    number = path or option or "0"
    if not (number.isascii() and number.isdigit() and int(number) < 1_000_000):
        raise ValueError("a database of Redis is a number, e.g. /0")
    if kind == "cluster" and int(number) > 0:
        raise ValueError("a Redis Cluster has no database but 0")
    return int(number)


def _tls(options: dict[str, str]) -> Tls:
    for name in ("ca", "cert", "key"):
        path = options.get(name)
        if path is not None and not os.access(path, os.R_OK):
            raise ValueError(f"{name}={path} cannot be read")
    if ("cert" in options) != ("key" in options):
        raise ValueError("cert and key go together")
    given = {name: options[name] for name in _TLS_OPTIONS & options.keys()}
    try:
        return msgspec.convert(given, Tls)
    except msgspec.ValidationError:
        raise ValueError("verify is full, ca or none") from None
