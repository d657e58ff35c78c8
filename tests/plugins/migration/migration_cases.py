"""What the tests of the migration plugin share: databases, step contexts, comparisons."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import msgspec
from hypothesis import settings

import jivsd
from plugins.migration.model import Chunk, Copied
from plugins.migration.request import Request
from plugins.migration.steps import claim, copy_chunk, inspect, measure

NASTY = """
PRAGMA user_version = 7;
PRAGMA application_id = 1234;
CREATE TABLE "Mixed ""quoted"" [Name]" (
    "Id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "select" TEXT NOT NULL DEFAULT '', [br acket] REAL, `tick` BLOB, "ünï 表" ANY
);
CREATE TABLE composite (
    a TEXT COLLATE NOCASE, b INTEGER, c, PRIMARY KEY (a COLLATE BINARY DESC, b ASC)
) WITHOUT ROWID;
CREATE TABLE keyless (x, y);
CREATE TABLE strict_one (i INTEGER PRIMARY KEY, a ANY, b BLOB, t TEXT, r REAL) STRICT;
CREATE TABLE generated (
    a INTEGER PRIMARY KEY, b INT, v INT GENERATED ALWAYS AS (b * 2) VIRTUAL, s TEXT AS (b || 'x') STORED, tail TEXT
);
CREATE TABLE node (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node(id), CHECK (id > 0));
CREATE TABLE egg (id INTEGER PRIMARY KEY, chicken INTEGER REFERENCES chicken(id));
CREATE TABLE chicken (id INTEGER PRIMARY KEY, egg INTEGER REFERENCES egg(id));
CREATE TABLE taken (rowid TEXT, _rowid_ TEXT, x);
CREATE TABLE nullable (code TEXT PRIMARY KEY, v);
CREATE TABLE blob_key (k PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE empty_one (x INTEGER PRIMARY KEY, y TEXT UNIQUE);
CREATE TABLE audit (at TEXT, what TEXT);
CREATE UNIQUE INDEX "node pair" ON node (parent, id) WHERE parent IS NOT NULL;
CREATE INDEX upper_code ON nullable (upper(code), v COLLATE NOCASE DESC);
CREATE VIEW "View of nodes" AS SELECT n.id, p.id AS up FROM node AS n LEFT JOIN node AS p ON p.id = n.parent;
CREATE VIEW second_view AS SELECT up FROM "View of nodes";
CREATE TRIGGER log_node AFTER INSERT ON node BEGIN INSERT INTO audit VALUES ('then', 'node ' || new.id); END;
CREATE TRIGGER into_view INSTEAD OF INSERT ON second_view BEGIN INSERT INTO keyless VALUES (new.up, 'view'); END;
"""
unhurried = settings(deadline=None)
"""For properties: the machine may be busy with other things."""

VALUES = [
    None, "", "plain", "naïve 表 😀", "a\0b", b"", b"\x00\xff", 0, -1, 2**63 - 1, -(2**63), 1.5, -0.0, float("inf"),
    1e-300, "12", "1e3",
]  # fmt: skip


def make(path, script, rows=()):
    """A database from a script and (table, rows) pairs."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(script)
        for table, values in rows:
            db.executemany(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(values[0]))})', values)
    return path


def make_nasty(path):
    """All that an SQLite database may hold and a migration can carry; about 400 rows."""
    make(path, NASTY)
    with closing(sqlite3.connect(path)) as db, db:
        mixed = '"Mixed ""quoted"" [Name]"'
        for value in VALUES:
            text = str(value) if value is not None else ""
            db.execute(f"INSERT INTO {mixed} VALUES (NULL, ?, ?, ?, ?)", (text, value, value, value))
            db.execute("INSERT INTO keyless VALUES (?, ?)", (value, value))
            db.execute("INSERT INTO strict_one (a, b, t, r) VALUES (?, ?, ?, ?)", (value, b"b", text, 1.0))
            db.execute("INSERT INTO nullable VALUES (?, ?)", (value, value))
            if value is not None:
                db.execute("INSERT OR IGNORE INTO blob_key VALUES (?, ?)", (value, value))
        db.execute("INSERT INTO nullable VALUES (NULL, 'again')")
        db.execute("INSERT INTO keyless VALUES (CAST(x'c328ff' AS TEXT), 'not UTF-8')")
        db.execute("INSERT INTO blob_key VALUES (CAST(x'ff41' AS TEXT), 'not UTF-8')")
        db.execute("INSERT INTO keyless (rowid, x, y) VALUES (-5, 1, 2), (9000000000, 3, 4)")
        db.execute(f"DELETE FROM {mixed} WHERE Id > 15")
        db.executemany(
            "INSERT INTO composite VALUES (?, ?, ?)",
            [(letter, number, f"{letter}{number}") for letter in ("a", "A", "b", "ä", "") for number in range(12)],
        )
        db.executemany("INSERT INTO generated (a, b, tail) VALUES (?, ?, ?)", [(it, it * 3, "t") for it in range(40)])
        db.executemany("INSERT INTO node VALUES (?, ?)", [(it, it - 1 or None) for it in range(1, 120)])
        db.execute("INSERT INTO egg VALUES (1, 1), (2, NULL)")
        db.execute("INSERT INTO chicken VALUES (1, 2), (2, 1)")
        db.execute("INSERT INTO taken VALUES ('r', '_r', 1), ('s', '_s', 2)")
    return path


def url(path):
    return {"system": "sqlite", "url": f"sqlite:///{path}"}


def request_for(source, target, **more):
    return msgspec.convert({"source": url(source), "target": url(target), **more}, Request)


def context(run="run-1", key="key-1", fence=1):
    return jivsd.StepContext(run_id=run, workflow_id="w", path="p", attempt=1, idempotency_key=key, fence=fence)


class Load:
    """A migration up to its first chunk, by its steps' own functions; `chunk` gives each next one."""

    def __init__(self, source, target, *, run="run-1", **more):
        self.request = request_for(source, target, **more)
        self.survey = inspect(self.request)
        self.job = self.survey.job
        rows = self.request.load.chunk_rows
        self.measured = [measure(self.job.source, pair.source, 1, rows) for pair in self.survey.pairs]
        parts = [part for measured in self.measured for part in measured.parts]
        self.claimed = claim(context(run, f"{run}/claim"), self.job, parts)
        self.epoch = self.claimed.epoch

    def chunks(self):
        """Every chunk in order; send back what copying it returned."""
        pairs = {pair.source.name: pair for pair in self.survey.pairs}
        for state in self.claimed.parts:
            copied, number = Copied(0, 0, state.after, state.done), state.chunks
            while not copied.done:
                number += 1
                copied = yield Chunk(
                    table=pairs[state.part.table].source,
                    part=state.part.number,
                    number=number,
                    rows=self.request.load.chunk_rows,
                    after=copied.after,
                    until=state.part.until,
                    conflict=pairs[state.part.table].target.primary if self.job.upsert else [],
                )

    def copy(self, chunk):
        return copy_chunk(context(), self.job, self.epoch, chunk)

    def run(self, copy=None):
        """Load all that is left, by `copy(chunk)`; the number of chunks."""
        chunks, copied, count = self.chunks(), None, 0
        while True:
            try:
                chunk = chunks.send(copied)
            except StopIteration:
                return count
            copied = (copy or self.copy)(chunk)
            count += 1


def dump(path):
    """Every table's rows with their rowids, as raw values, and the schema."""
    with closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        tables = [
            name.decode()
            for (name,) in db.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%'"
                " AND name <> '_jivsd_fence'"
            )
        ]
        found = {}
        for table in tables:
            quoted = '"' + table.replace('"', '""') + '"'
            columns = [row[1].decode() for row in db.execute(f"PRAGMA table_xinfo({quoted})")]
            hidden = next((it for it in ("rowid", "_rowid_", "oid") if it not in columns), None)
            try:
                rows = db.execute(f"SELECT {hidden}, * FROM {quoted}").fetchall()
            except sqlite3.OperationalError:  # it has no rowid
                rows = db.execute(f"SELECT * FROM {quoted}").fetchall()
            found[table] = sorted(rows, key=repr)
        schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
        return found, sorted(it for it in schema if b"_jivsd" not in it[1] and it[2] != b"_jivsd_fence")


def query(path, sql, *parameters):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, parameters).fetchall()


def change(path, script):
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(script)
