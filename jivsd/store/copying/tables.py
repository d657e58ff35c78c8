"""What is copied: the tables of a journal and their columns, as every store has them.

A row on its way is a tuple of values that no store is partial to; see `Kind`.
"""

from __future__ import annotations

from enum import Enum, auto
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = tuple[Any, ...]


class Kind(Enum):
    """What the values of a column are on their way; all of them may be None."""

    ID = auto()
    """The id of a run, as text."""
    TEXT = auto()
    INTEGER = auto()
    TRUTH = auto()
    """A bool."""
    REAL = auto()
    JSON = auto()
    """JSON, as bytes."""
    BYTES = auto()
    OTHER = auto()
    """A value of a plugin that only PostgreSQL has a type for (a time, a number with a scale): as it is written."""
    ANY = auto()
    """A value of a plugin in SQLite, where each row may have another type."""


class Column(NamedTuple):
    """A column of a table. `sqlite`: how SQLite derives it, if it keeps it nowhere itself."""

    name: str
    kind: Kind
    sqlite: str | None = None


class Table(NamedTuple):
    """A table. `key`: in whose order it is read. `rows`: how many are under way together.

    `source`: what SQLite reads it from. `counted`: whether its rows have a number that is drawn from a sequence.
    `own`: whether it is ours, and not a plugin's.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    rows: int = 1_000
    source: str = ""
    counted: bool = False
    own: bool = True


def _columns(**kinds: str) -> tuple[Column, ...]:
    return tuple(Column(name, Kind[kind.upper()]) for kind, names in kinds.items() for name in names.split())


_OPTION: Final = "options ->> '{}'"

TABLES: Final = (
    Table(
        "run",
        (
            *_columns(id="run_id", integer="number created_at started_at ended_at wake_at shard"),
            *_columns(truth="paused parked", text="status workflow workflow_id code_hash"),
            *_columns(json="options attributes input output error"),
            *(Column(name, Kind.ID, _OPTION.format(name)) for name in ("parent", "chain")),
            *(Column(name, Kind.TEXT, _OPTION.format(name)) for name in ("lock_key", "correlation_id")),
        ),
        key=("number",),
        rows=100,
        counted=True,
    ),
    Table(
        "attribute",
        (
            *_columns(text="name value run_workflow", integer="run_created_at run_number"),
            Column("run_id", Kind.ID, "run.run_id"),
        ),
        key=("name", "value", "run_created_at", "run_number"),
        source="attribute LEFT JOIN run ON run.number = run_number",
    ),
    Table(
        "event",
        _columns(id="run_id", integer="at checksum seq attempt", text="kind path by payload_hash", bytes="payload"),
        key=("run_id", "seq"),
        rows=500,
    ),
    Table("payload", _columns(text="hash", integer="uses", bytes="body"), key=("hash",), rows=4),
    Table(
        "progress",
        _columns(id="run_id", integer="at attempt", real="done total", text="path", json="details"),
        key=("run_id", "path"),
        rows=100,
    ),
    Table(
        "inbox",
        _columns(
            integer="number at",
            id="run_id",
            text="state workflow workflow_id message_id kind path by",
            bytes="payload",
        ),
        key=("number",),
        rows=100,
        counted=True,
    ),
    Table(
        "idempotency_key",
        _columns(text="workflow key input_hash", id="run_id", integer="at"),
        key=("workflow", "key"),
    ),
    Table("lock", _columns(text="key", integer="last_ticket fence"), key=("key",)),
    Table(
        "lock_ticket",
        _columns(text="key path", integer="ticket since", id="run_id", truth="granted"),
        key=("key", "ticket"),
    ),
    Table(
        "outbox",
        _columns(integer="number at", id="run_id", text="path workflow workflow_id topic", json="payload"),
        key=("number",),
        rows=100,
        counted=True,
    ),
    Table(
        "incident",
        _columns(
            integer="number at resolved_at",
            text="incident_id kind message run_id workflow path state resolution resolved_by resolved_why fingerprint",
            json="details history",
            truth="acknowledged",
        ),
        key=("number",),
        rows=100,
        counted=True,
    ),
    Table(
        "request",
        _columns(
            integer="number at shard tries",
            id="id run_id",
            text="state kind workflow workflow_id name key why by",
            json="payload options",
        ),
        key=("number",),
        rows=100,
        counted=True,
    ),
    Table("plugin_code", _columns(text="code_hash name", json="files", integer="at"), key=("code_hash",), rows=2),
)
"""All that is kept, but for what is counted (run_count, run_hour), and what a database is by itself (meta, shard)."""

KEPT_ANYWAY: Final = frozenset({"plugin_code"})
"""Tables that may have rows in a database that counts as empty: a daemon was there, and did nothing. They go."""


def quoted(name: str) -> str:
    """A name in SQL, whatever it is."""
    return '"{}"'.format(name.replace('"', '""'))


def refuse_other_version(version: int, newest: int, shown: str) -> None:
    """Refuse a database with an older schema than this program's; newer ones have been refused before.

    Raises:
        StoreError: it has one.
    """
    if version < newest:
        raise StoreError(
            f"the database {shown} has schema version {version}, and only version {newest} is copied: bring it up to "
            "date with: jivsd db upgrade --store URL"
        )


def refuse_content(found: Mapping[str, int], shown: str) -> None:
    """Refuse a target in which tables have rows, of which there are so many.

    Raises:
        StoreError: it has some.
    """
    if listed := ", ".join(f"{name}: {rows:,}" for name, rows in found.items() if rows and name not in KEPT_ANYWAY):
        raise StoreError(f"the database {shown} is not empty, and stays as it is (rows of {listed}): name a new one")


class Tally:
    """How many rows there were, and a sum over them in which their order does not matter."""

    def __init__(self, table: Table) -> None:
        self.rows = 0
        self.sum = 0
        places = [place for place, column in enumerate(table.columns) if column.kind is not Kind.OTHER]
        self._places = places if len(places) < len(table.columns) else None

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows. What a database writes in its own way is left out of the sum."""
        for row in rows:
            self.rows += 1
            values = row if self._places is None else [row[place] for place in self._places]
            digest = blake2b(msgspec.msgpack.encode(values), digest_size=16).digest()
            self.sum = (self.sum + int.from_bytes(digest)) % (1 << 128)
