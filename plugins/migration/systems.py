"""The databases that a migration can read and write, behind two protocols: steps know nothing else of them.

A further system is a module beside `sqlite` and a line in each of `source_of` and `target_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .postgresql.source import PostgresDatabase
from .postgresql.target import PostgresTarget
from .request import POSTGRESQL
from .sqlite.source import SqliteDatabase
from .sqlite.target import SqliteTarget
from .translation import SqliteForPostgres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalogue import Catalogue, TargetState
    from .model import (
        Chunk,
        Claim,
        Claimant,
        Copied,
        Definition,
        Hashed,
        Job,
        Key,
        Measured,
        Part,
        Right,
        Table,
    )
    from .request import Endpoint
    from .rows import Rows


class Source(Protocol):
    """A database that is read. Each method is one short piece of work: it opens, reads and closes.

    All raise MigrationError for what is final and Unavailable for what another attempt may mend.
    """

    def catalogue(self) -> Catalogue:
        """All but the rows."""
        ...

    def measure(self, table: Table, ranges: int, chunk_rows: int) -> Measured:
        """Count a table's rows, estimate their bytes, and cut it into at most `ranges` parts."""
        ...

    def read(self, table: Table, after: Key | None, until: int | None, limit: int) -> Rows:
        """The next rows behind the key `after`: at most `limit`, fewer when they are large."""
        ...

    def content(self, table: Table, after: Key | None) -> Hashed:
        """The content of the next rows behind the key `after`: of as many as a step may hash."""
        ...

    def broken_references(self, table: str) -> dict[str, int] | None:
        """By referenced table, how many rows of `table` refer to rows that are not there.

        A referenced table that is not there at all is left out. None: the system cannot tell.
        """
        ...


class Target(Source, Protocol):
    """A database that is written, in transactions that hold the fence (see `sqlite.fence`)."""

    def examine(self) -> TargetState:
        """What planning must know of it; nothing is changed, and it need not exist."""
        ...

    def claim(
        self,
        job: Job,
        claimant: Claimant,
        parts: Sequence[Part],
        definitions: Sequence[Definition],
        settings: dict[str, int | str],
    ) -> Claim:
        """Make the tables and the fence, or take over the fence of an unfinished run of the same job."""
        ...

    def load(self, job: Job, right: Right, chunk: Chunk, rows: Rows) -> Copied:
        """Commit a chunk and its watermark together, or find that it was committed before."""
        ...

    def build(self, right: Right, definitions: Sequence[Definition]) -> None:
        """Make indexes, views or triggers that are not there yet."""
        ...

    def build_working(self, right: Right, definitions: Sequence[Definition]) -> list[tuple[str, str]]:
        """Make views and triggers, but none that needs what the target does not have: kind and name of those."""
        ...

    def set_sequences(self, job: Job, right: Right, sequences: dict[str, int]) -> None:
        """Let sequences go on where the source's stand; in tables that were there before, never backwards."""
        ...

    def content_of_keys(self, table: Table, rows: Rows) -> tuple[int, int]:
        """How many of the target's rows have the primary keys of these rows, and the content of those."""
        ...

    def finish(self, job: Job, right: Right, settings: dict[str, int | str], analyse: bool) -> None:
        """Give the target the source's settings and remove the fence; nothing of the migration is left then."""
        ...


def source_of(endpoint: Endpoint, target: Endpoint | None = None) -> Source:
    """The source; when the target is of another system, with all in that system's words."""
    if endpoint.system == POSTGRESQL:
        return PostgresDatabase(endpoint, "source")
    if target is not None and target.system == POSTGRESQL:
        return SqliteForPostgres(endpoint.path, "source")
    return SqliteDatabase(endpoint.path, "source")


def target_of(endpoint: Endpoint) -> Target:
    return PostgresTarget(endpoint) if endpoint.system == POSTGRESQL else SqliteTarget(endpoint.path)
