"""What the steps of a migration say to each other. All of it crosses the journal as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from .request import Endpoint

Key = list[Any]
"""The key of a row, as JSON values; see `keys`. Rows are read in the order of their keys."""


class KeyColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the key by which a table is read. `collation`: how its order compares texts; None for integers."""

    name: str
    collation: str | None = None
    descending: bool = False


class Table(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table as reading, loading and hashing need it.

    `columns` are those whose values are moved: generated ones are not. `key` is unique and never NULL; its columns
    that are not among `columns` (SQLite's rowid) are read as well. `primary` is the declared primary key.
    """

    name: str
    columns: list[str]
    key: list[KeyColumn]
    primary: list[str] = []
    refers_to: list[str] = []
    kinds: list[str] = []
    """The types of `columns` in the target, when that is of another system."""

    @property
    def hidden(self) -> list[str]:
        """The key's columns that are read behind `columns`."""
        return [part.name for part in self.key if part.name not in self.columns]


class Definition(msgspec.Struct, frozen=True):
    """An object of a schema and the SQL that makes it. `kind`: table, index, view or trigger."""

    kind: str
    name: str
    table: str
    sql: str


class Job(msgspec.Struct, frozen=True):
    """What every step of a run must know. `whole`: all of the source's tables are migrated.

    `fingerprint` stands for what a later run must have in common with this one to take over its target.
    """

    source: Endpoint
    target: Endpoint
    full: bool
    upsert: bool
    whole: bool
    fingerprint: str


class Right(NamedTuple):
    """By what a step may write into the target."""

    epoch: int
    """Of the run's claim."""
    fence: int
    """Of the node at which the run is, higher at every later one: see `StepContext.fence`."""


class Claimant(NamedTuple):
    """Who claims a target. `token` stands for the claim: repeated, it gives the same epoch."""

    run: str
    token: str
    fence: int
    """See `Right.fence`."""


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table to migrate, as the source has it and, when it existed before, as the target has it."""

    source: Table
    existing: Table | None = None

    @property
    def target(self) -> Table:
        return self.existing or self.source


class Survey(msgspec.Struct, frozen=True):
    """What planning found. `pairs` are in the order in which they load: referenced tables first.

    `deferred` are the references (table, referenced table) that no order satisfies: cycles and self references.
    `taken_over`: the target holds an unfinished migration of the same job, which this run goes on with.
    """

    job: Job
    pairs: list[Pair]
    indexes: list[str]
    views: list[str]
    triggers: list[str]
    deferred: list[tuple[str, str]]
    warnings: list[str]
    free_bytes: int
    taken_over: bool = False


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key range of a table, loaded by one loop of chunks: keys above `after`, for integer keys up to `until`."""

    table: str
    number: int
    after: Key | None = None
    until: int | None = None


class Measured(msgspec.Struct, frozen=True):
    """How large a table is; `bytes` is an estimate from a sample of its rows."""

    rows: int
    bytes: int
    parts: list[Part]


class PartState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a part is: what its fence row says."""

    part: Part
    chunks: int = 0
    after: Key | None = None
    rows: int = 0
    bytes: int = 0
    done: bool = False


class Claim(msgspec.Struct, frozen=True):
    """The target is this run's under `epoch`, until another claim raises it."""

    epoch: int
    parts: list[PartState]


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chunk to load: the `number`-th of its part, the next `rows` rows behind the key `after`."""

    table: Table
    part: int
    number: int
    rows: int
    after: Key | None = None
    until: int | None = None
    conflict: list[str] = []
    """UPSERT: the target's primary key."""


class Copied(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk is committed in the target. `after`: the last key that it holds; `done`: nothing is left behind it."""

    rows: int
    bytes: int
    after: Key | None = None
    done: bool = False


class Hashed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a stretch of rows; see `content`. `after` and `done` as in Copied."""

    rows: int
    bytes: int
    sum: str
    after: Key | None = None
    done: bool = False


class Compared(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a stretch of the source's rows, and that of the `found` rows with their keys in the target."""

    rows: int
    bytes: int
    sum: str
    found: int
    found_sum: str
    after: Key | None = None
    done: bool = False


class References(msgspec.Struct, frozen=True):
    """What checking a table's references found."""

    differences: list[str]
    warnings: list[str]


class PlannedTable(msgspec.Struct, frozen=True):
    table: str
    rows: int


class Plan(msgspec.Struct, frozen=True):
    """The answer of the query `plan`. `tables` are in the order of loading; `bytes` and `seconds` are estimates.

    `deferred`: references that no order satisfies, (table, referenced table).
    """

    tables: list[PlannedTable]
    rows: int
    bytes: int
    seconds: float
    deferred: list[tuple[str, str]]
    warnings: list[str]


class TableSummary(msgspec.Struct, frozen=True):
    """How a table came over. `hash` is that of the source's rows, `equal` whether the target's is the same."""

    table: str
    rows: int
    bytes: int
    hash: str
    equal: bool


class PhaseTime(msgspec.Struct, frozen=True):
    phase: str
    seconds: float


class Summary(msgspec.Struct, frozen=True):
    """The output of a migration. Rates are those of loading."""

    name: str
    tables: list[TableSummary]
    rows: int
    bytes: int
    seconds: float
    rows_per_s: float
    bytes_per_s: float
    phases: list[PhaseTime]
    warnings: list[str]
