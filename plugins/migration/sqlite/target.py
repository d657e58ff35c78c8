"""An SQLite database that is written: claimed, loaded chunk by chunk under its fence, completed, released."""

from __future__ import annotations

import os
import shutil
import sqlite3
from typing import TYPE_CHECKING

from ..catalogue import TargetState
from ..content import content_of
from ..errors import MigrationError
from ..model import Copied
from . import fence
from .catalogue import read_catalogue
from .connect import reading, tolerant, writing
from .source import SqliteDatabase
from .sql import by_key, inserts, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Chunk, Claim, Claimant, Definition, Job, Part, Right, Table
    from ..rows import Rows

_index_cache = "PRAGMA cache_size = -65536"
"""64 MiB for sorting while an index is built."""


class SqliteTarget(SqliteDatabase):
    """The SQLite file that rows are moved to."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "target")

    def examine(self) -> TargetState:
        """Look without changing anything; a file that is not there yet is as good as an empty database."""
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            return TargetState(None, 0, [f"the target's folder {folder} does not exist"])
        free = shutil.disk_usage(folder).free
        if not os.access(folder, os.W_OK):
            return TargetState(None, free, [f"the target's folder {folder} is not writable for the daemon's user"])
        if os.path.isdir(self.path):
            return TargetState(None, free, [f"the target {self.path} is a folder; it must be a database file"])
        if not os.path.exists(self.path):
            return TargetState(None, free)
        if not os.access(self.path, os.W_OK):  # SQLite itself would say so at the first change only
            return TargetState(None, free, [f"the target {self.path} cannot be written: it is read-only"])
        with writing(self.path, "checking that it can be written") as db:
            found = fence.job_of(db) if fence.exists(db) else None
            return TargetState(read_catalogue(db), free, fence=found)

    def claim(
        self,
        job: Job,
        claimant: Claimant,
        parts: Sequence[Part],
        definitions: Sequence[Definition],
        settings: dict[str, int | str],
    ) -> Claim:
        """Make the tables and the fence, or take over the fence of an unfinished run of the same job.

        Raises:
            MigrationError: the target is no longer as it was planned for.
        """

        def prepare(db: sqlite3.Connection) -> None:
            if job.full and db.execute("PRAGMA page_count").fetchone() == (0,):
                for name in ("encoding", "page_size", "auto_vacuum"):
                    db.execute(f"PRAGMA {name} = {quoted(str(settings[name]))}")

        with writing(self.path, "making its tables", create=job.full, prepare=prepare) as db:
            if fence.exists(db):
                fingerprint, owner = fence.job_of(db)
                if fingerprint != job.fingerprint:
                    raise MigrationError(f"the target {self.path} holds another unfinished migration, of run {owner}")
            else:
                if job.full:
                    self._create(db, definitions)
                elif not job.upsert:
                    self._require_empty(db, parts)
                fence.make(db, job.fingerprint, claimant, parts)
            return fence.claim(db, claimant)

    def _create(self, db: sqlite3.Connection, definitions: Sequence[Definition]) -> None:
        if db.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
            raise MigrationError(f"the target {self.path} is not empty any more")
        for definition in definitions:
            db.execute(definition.sql)

    def _require_empty(self, db: sqlite3.Connection, parts: Sequence[Part]) -> None:
        for table in dict.fromkeys(part.table for part in parts):
            if has_rows(db, table):
                raise MigrationError(f"table {table!r} of the target has rows; use strategy UPSERT to update them")

    def load(self, job: Job, right: Right, chunk: Chunk, rows: Rows) -> Copied:
        """Commit a chunk and its watermark together, or find that it was committed before.

        Raises:
            Fenced: the target belongs to another run by now; nothing was written.
        """

        def prepare(db: sqlite3.Connection) -> None:
            if job.full:
                # What the source holds is moved as it is, also rows from when a check was not there or not enforced.
                db.execute("PRAGMA ignore_check_constraints = ON")

        with writing(self.path, f"loading table {chunk.table.name!r}", prepare=prepare) as db:
            earlier = fence.committed(db, right, chunk)
            if earlier is not None:
                return earlier
            _insert(db, job, chunk, rows)
            copied = Copied(len(rows.values), rows.bytes, rows.after, rows.done)
            fence.advance(db, chunk, copied)
            return copied

    def build(self, right: Right, definitions: Sequence[Definition]) -> None:
        """Make indexes, views or triggers that are not there yet."""
        with writing(self.path, _making(definitions), prepare=lambda db: db.execute(_index_cache).close()) as db:
            fence.require(db, right)
            _make(db, definitions)

    def build_working(self, right: Right, definitions: Sequence[Definition]) -> list[tuple[str, str]]:
        """Make views and triggers, but none that needs what the target does not have.

        Returns:
            Kind and name of those that were left out.
        """
        with writing(self.path, _making(definitions)) as db:
            fence.require(db, right)
            views = [it for it in definitions if it.kind == "view"]
            _make(db, views)
            broken = [it for it in views if not _works(db, f"SELECT * FROM {quoted(it.name)}")]
            gone = {it.name for it in broken}
            for trigger in definitions:
                if trigger.kind != "trigger":
                    continue
                if trigger.table not in gone:
                    _make(db, [trigger])
                    if _fires(db, trigger.table):
                        continue
                broken.append(trigger)
            for it in reversed(broken):
                db.execute(f"DROP {it.kind} IF EXISTS {quoted(it.name)}")
            return [(it.kind, it.name) for it in broken]

    def set_sequences(self, job: Job, right: Right, sequences: dict[str, int]) -> None:
        """Let AUTOINCREMENT go on where the source's stands; in tables that were there before, never backwards."""
        with writing(self.path, "setting its sequences") as db:
            fence.require(db, right)
            present = read_catalogue(db).sequences
            for table, value in sequences.items():
                if job.full:
                    db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, value))
                elif table in present and present[table] < value:
                    db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (value, table))

    def content_of_keys(self, table: Table, rows: Rows) -> tuple[int, int]:
        """How many of the target's rows have the primary keys of these rows, and the content of those."""
        with reading(self.path, self.role) as db:
            found = tolerant(db, lambda: [it for row in rows.values for it in db.execute(*by_key(table, row))])
            return len(found), content_of(found)

    def finish(self, job: Job, right: Right, settings: dict[str, int | str], analyse: bool) -> None:
        """Give the target the source's settings and remove the fence; nothing of the migration is left then."""
        with writing(self.path, "finishing it") as db:
            if not fence.exists(db):
                return
            fence.require(db, right)
            fence.drop(db)
            if job.full:
                db.execute(f"PRAGMA user_version = {int(settings['user_version'])}")
                db.execute(f"PRAGMA application_id = {int(settings['application_id'])}")
                if analyse:
                    db.execute("PRAGMA analysis_limit = 1000")
                    db.execute("ANALYZE")


def has_rows(db: sqlite3.Connection, table: str) -> bool:
    return db.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1").fetchone() is not None


def _making(definitions: Sequence[Definition]) -> str:
    return "making " + ", ".join(f"{it.kind} {it.name!r}" for it in definitions[:3])


def _make(db: sqlite3.Connection, definitions: Sequence[Definition]) -> None:
    present = set(db.execute("SELECT type, name FROM sqlite_schema"))
    for definition in definitions:
        if (definition.kind, definition.name) not in present:
            db.execute(definition.sql)


def _works(db: sqlite3.Connection, statement: str) -> bool:
    """Whether all that a statement needs is there; a view without a trigger for it is no obstacle."""
    try:
        db.execute(f"EXPLAIN {statement}").close()
    except sqlite3.OperationalError as error:
        return not str(error).startswith("no such")
    return True


def _fires(db: sqlite3.Connection, table: str) -> bool:
    """Whether the triggers of a table or view can run; compiling a change compiles them too."""
    columns = [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    changes = ", ".join(f"{quoted(name)} = {quoted(name)}" for name in columns)
    home = quoted(table)
    statements = (f"INSERT INTO {home} DEFAULT VALUES", f"UPDATE {home} SET {changes}", f"DELETE FROM {home}")
    return all(_works(db, statement) for statement in statements)


def _insert(db: sqlite3.Connection, job: Job, chunk: Chunk, rows: Rows) -> None:
    """Insert a chunk's rows without firing the table's triggers: what they did is among the source's rows."""
    sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"
    triggers = db.execute(sql, (chunk.table.name,)).fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {quoted(name)}")
    table = chunk.table
    columns = [*table.columns, *table.hidden] if job.full else table.columns
    values = rows.values if job.full or not table.hidden else [row[: len(columns)] for row in rows.values]
    for sql, parameters in inserts(table.name, columns, chunk.conflict, values, raw=rows.raw):
        db.execute(sql, parameters)
    for _, sql in triggers:
        db.execute(sql)
