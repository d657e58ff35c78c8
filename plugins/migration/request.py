"""What a migration is asked to do: the input of the workflow, checked before a run exists."""

from __future__ import annotations

import os.path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

import msgspec

from jivsd import connections

FULL_MIGRATION = "FULL_MIGRATION"
"""Schema and data, into a new or empty database."""
DATA_ONLY = "DATA_ONLY"
"""Rows only, into tables that the target already has."""

BATCH = "BATCH"
"""Multi-row inserts, chunk by chunk; `parallelism` tables at once."""
PARALLEL = "PARALLEL"
"""As BATCH, and large tables are cut into key ranges that load at once."""
BULK = "BULK"
"""COPY, into PostgreSQL; there the others load by it, too."""
UPSERT = "UPSERT"
"""As BATCH, but a row whose primary key the target already has is updated."""

_types = (FULL_MIGRATION, DATA_ONLY)
_postgres_schemes = ("postgresql", "postgres")
_strategies = (BATCH, PARALLEL, UPSERT)
SQLITE = "sqlite"
POSTGRESQL = "postgresql"
_systems = (SQLITE, POSTGRESQL)


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A database. `url` for sqlite: sqlite:////absolute/path or sqlite:///path relative to the daemon's folder; for
    postgresql: postgresql://user@host/database, without a password. `connection`: its name in the configuration,
    instead of a URL.
    """

    system: str
    url: str
    connection: str = ""

    def __post_init__(self) -> None:
        if self.system not in _systems:
            raise ValueError(f"system is {self.system!r}; this version can migrate: {', '.join(_systems)}")
        if self.system == SQLITE:
            sqlite_path(self.url)
        elif not self.connection:
            check_postgres(self.url)

    @property
    def path(self) -> str:
        """The database file's absolute path; symbolic links are not followed."""
        return os.path.abspath(sqlite_path(self.url))

    def same_as(self, other: Endpoint) -> bool:
        """Whether both are one existing file, under whatever names."""
        if self.system != SQLITE or other.system != SQLITE:
            return str(self) == str(other)
        try:
            return os.path.samefile(self.path, other.path)
        except OSError:
            return False

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.path if self.system == SQLITE else self.connection or self.url

    def __str__(self) -> str:
        """One text for one database: it stands in the lock key."""
        return f"{self.system}:{self.shown}"


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows are loaded. `chunk_rows`: how many are committed at once, together with the fence's watermark."""

    strategy: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(_strategies)})] = BATCH
    parallelism: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000

    def __post_init__(self) -> None:
        if self.strategy not in (*_strategies, BULK):
            raise ValueError(f"strategy is {self.strategy!r}; for sqlite it is one of: {', '.join(_strategies)}")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of a migration. All but source and target have defaults.

    `tables`: the only ones to take (by default all); `exclude`: those to leave out.
    """

    source: Endpoint | str
    target: Endpoint | str
    name: Annotated[str, msgspec.Meta(max_length=200)] = "migration"
    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(_types)})] = FULL_MIGRATION
    tables: list[str] | None = None
    exclude: list[str] = []
    load: Load = Load()

    def __post_init__(self) -> None:
        if self.type not in _types:
            raise ValueError(f"type is {self.type!r}; it is one of: {', '.join(_types)}")
        if self.tables is not None and not self.tables:
            raise ValueError("tables is an empty list; leave it out to migrate all tables")
        if self.type == FULL_MIGRATION and self.load.strategy == UPSERT:
            raise ValueError("strategy UPSERT is for tables that exist: use it with type DATA_ONLY")
        if str(self.source) == str(self.target):
            name = self.source if isinstance(self.source, str) else self.source.shown
            raise ValueError(f"source and target are the same database, {name}")
        if isinstance(self.target, Endpoint) and self.target.system == SQLITE and self.load.strategy == BULK:
            raise ValueError(f"strategy is {BULK!r}; for sqlite it is one of: {', '.join(_strategies)}")


def endpoint_of(value: Endpoint | str) -> Endpoint:
    """The database that an input names, by URL or by the name of a configured connection.

    Raises:
        ValueError: there is no such connection, or its URL is of another system.
    """
    if not isinstance(value, str):
        return value
    try:
        url = connections.url_of(value)
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    if url.startswith("sqlite:"):
        return Endpoint(SQLITE, url)
    if urlsplit(url).scheme in _postgres_schemes:
        return Endpoint(POSTGRESQL, "", value)
    raise ValueError(f"the connection {value!r} is of another system; this version can migrate: {', '.join(_systems)}")


def check_postgres(url: str) -> None:
    """Raises ValueError unless this is a URL of PostgreSQL, and one that anybody may read."""
    parts = urlsplit(url)
    if parts.scheme not in _postgres_schemes:
        raise ValueError("url is of another form; for postgresql it is postgresql://user@host/database")
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError(
            "url has a password, which would stand in the journal: put it into the configuration, under "
            '[connections.NAME], and give "NAME" instead'
        )


def sqlite_path(url: str) -> str:
    """The file that an SQLite URL names, as it is written: nothing in it is decoded.

    Raises:
        ValueError: the URL is of another form.
    """
    path = url.removeprefix("sqlite:///")
    if path == url or "\0" in url:
        raise ValueError(f"url is {url!r}; for sqlite it is sqlite:////absolute/path or sqlite:///relative/path")
    if not path or path == ":memory:":
        raise ValueError(f"url {url!r} names no file; a migration's databases must outlive the daemon")
    return path
