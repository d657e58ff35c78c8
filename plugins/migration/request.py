"""What a migration is asked to do: the input of the workflow, checked before a run exists."""

from __future__ import annotations

import os.path
from typing import Annotated

import msgspec

FULL_MIGRATION = "FULL_MIGRATION"
"""Schema and data, into a new or empty database."""
DATA_ONLY = "DATA_ONLY"
"""Rows only, into tables that the target already has."""

BATCH = "BATCH"
"""Multi-row inserts, chunk by chunk; `parallelism` tables at once."""
PARALLEL = "PARALLEL"
"""As BATCH, and large tables are cut into key ranges that load at once."""
UPSERT = "UPSERT"
"""As BATCH, but a row whose primary key the target already has is updated."""

_types = (FULL_MIGRATION, DATA_ONLY)
_strategies = (BATCH, PARALLEL, UPSERT)
_systems = ("sqlite",)


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A database. `url` for sqlite: sqlite:////absolute/path or sqlite:///path relative to the daemon's folder."""

    system: str
    url: str

    def __post_init__(self) -> None:
        if self.system not in _systems:
            raise ValueError(f"system is {self.system!r}; this version can migrate: {', '.join(_systems)}")
        sqlite_path(self.url)

    @property
    def path(self) -> str:
        """The database file's absolute path; symbolic links are not followed."""
        return os.path.abspath(sqlite_path(self.url))

    def same_as(self, other: Endpoint) -> bool:
        """Whether both are one existing file, under whatever names."""
        try:
            return os.path.samefile(self.path, other.path)
        except OSError:
            return False

    def __str__(self) -> str:
        """One text for one database: it stands in the lock key."""
        return f"{self.system}:{self.path}"


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows are loaded. `chunk_rows`: how many are committed at once, together with the fence's watermark."""

    strategy: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(_strategies)})] = BATCH
    parallelism: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000

    def __post_init__(self) -> None:
        if self.strategy not in _strategies:
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
        source, target = endpoint_of(self.source, "source"), endpoint_of(self.target, "target")
        if str(source) == str(target):
            raise ValueError(f"source and target are the same database, {source.path}")


def endpoint_of(value: Endpoint | str, what: str) -> Endpoint:
    """The database that an input names, given by URL or by the name of a configured connection.

    Raises:
        ValueError: it is a connection's name, which plugins cannot look up yet.
    """
    if isinstance(value, str):
        raise ValueError(
            f"{what} is the name {value!r}, but migrations cannot use named connections yet: "
            'give {"system": "sqlite", "url": "sqlite:////path/to/file"}'
        )
    return value


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
