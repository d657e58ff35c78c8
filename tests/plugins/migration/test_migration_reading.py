"""Reading SQLite: the catalogue, keys, and rows chunk by chunk."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migration_cases import make, query

from plugins.migration.errors import MigrationError
from plugins.migration.model import KeyColumn
from plugins.migration.rows import CHUNK_BYTES
from plugins.migration.sqlite.source import SqliteDatabase
from plugins.migration.sqlite.sql import reads


def source(path):
    return SqliteDatabase(str(path), "source")


def read_all(database, table, limit):
    rows, after, done = [], None, False
    while not done:
        chunk = database.read(table, after, None, limit)
        assert len(chunk.values) <= limit
        rows += chunk.values
        after, done = chunk.after, chunk.done
    return rows


def test_the_catalogue_of_all_kinds_of_tables(nasty):
    catalogue = source(nasty).catalogue()
    tables = catalogue.tables
    assert catalogue.unsupported == {}
    mixed = tables['Mixed "quoted" [Name]']
    assert mixed.columns == ["Id", "select", "br acket", "tick", "ünï 表"]
    assert (mixed.key, mixed.hidden, mixed.primary) == ([KeyColumn("Id")], [], ["Id"])
    composite = tables["composite"]
    assert composite.key == [KeyColumn("a", "BINARY", descending=True), KeyColumn("b", "BINARY")]
    assert composite.primary == ["a", "b"]
    assert tables["keyless"].hidden == ["rowid"]
    assert tables["taken"].hidden == ["oid"]
    assert tables["nullable"].hidden == ["rowid"], "a primary key that may be NULL is no key to read by"
    assert tables["generated"].columns == ["a", "b", "tail"]
    assert tables["egg"].refers_to == ["chicken"]
    assert tables["node"].refers_to == ["node"]
    assert catalogue.sequences['Mixed "quoted" [Name]'] == 17
    assert (catalogue.settings["user_version"], catalogue.settings["application_id"]) == (7, 1234)


def test_integer_primary_key_desc_is_no_rowid(tmp_path):
    make(tmp_path / "x.db", "CREATE TABLE t (i INTEGER PRIMARY KEY DESC, x); CREATE TABLE u (i INT PRIMARY KEY)")
    tables = source(tmp_path / "x.db").catalogue().tables
    assert tables["t"].hidden == ["rowid"]
    assert tables["u"].hidden == ["rowid"]


def test_what_cannot_be_migrated_is_named(tmp_path):
    path = make(
        tmp_path / "x.db",
        "CREATE VIRTUAL TABLE docs USING fts5(body); CREATE TABLE hides (rowid, _ROWID_, oid);"
        "INSERT INTO docs VALUES ('x')",
    )
    catalogue = source(path).catalogue()
    assert catalogue.unsupported == {
        "docs": "table 'docs' is a virtual table; these are not supported",
        "hides": "table 'hides' has columns named rowid, _rowid_, oid, which hide the key to its rows",
    }
    assert catalogue.names == ["docs", "hides"], "the tables behind a virtual table are not offered"
    assert [it.name for it in catalogue.definitions] == ["docs", "hides"]


@pytest.mark.parametrize("limit", [2, 7, 1000])
def test_chunks_together_are_the_table(nasty, limit):
    database = source(nasty)
    for table in database.catalogue().tables.values():
        rows = read_all(database, table, limit)
        quoted = '"' + table.name.replace('"', '""') + '"'
        assert len(rows) == query(nasty, f"SELECT count(*) FROM {quoted}")[0][0]
        assert len(set(map(_key, rows))) == len(rows) or not table.hidden, "no row comes twice"


def _key(row):
    return repr(row[-1])


def test_each_chunk_is_found_by_the_index(nasty):
    database = source(nasty)
    with closing(sqlite3.connect(nasty)) as db:
        for table in database.catalogue().tables.values():
            after = database.read(table, None, None, 1).after
            for sql, parameters in [*reads(table, None, None, 5), *reads(table, after, None, 5)]:
                plan = " | ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, parameters))
                assert "TEMP B-TREE" not in plan, (sql, plan)
                assert plan.startswith("SEARCH t") or "WHERE" not in sql, (sql, plan)


keys = st.one_of(
    st.integers(-3, 3), st.sampled_from([-1.5, 0.5, float("inf")]), st.text("aAbä", max_size=2), st.binary(max_size=2)
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(keys, keys, st.integers()), max_size=25),
    declared=st.sampled_from(["", "TEXT", "INTEGER", "REAL", "NUMERIC", "BLOB"]),
    collations=st.tuples(st.sampled_from(["BINARY", "NOCASE", "RTRIM"]), st.sampled_from(["BINARY", "NOCASE"])),
    orders=st.tuples(st.sampled_from(["ASC", "DESC"]), st.sampled_from(["ASC", "DESC"])),
    limit=st.integers(1, 5),
)
def test_any_composite_key_reads_every_row_once(tmp_path_factory, rows, declared, collations, orders, limit):
    path = tmp_path_factory.mktemp("keys") / "x.db"
    (first, second), (up, down) = collations, orders
    make(
        path,
        f"CREATE TABLE t (a {declared} COLLATE NOCASE, b, c,"
        f" PRIMARY KEY (a COLLATE {first} {up}, b COLLATE {second} {down})) WITHOUT ROWID",
    )
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", [(a, b, c % 1000) for a, b, c in rows])
    database = source(path)
    found = read_all(database, database.catalogue().tables["t"], limit)
    assert sorted(map(repr, found)) == sorted(map(repr, query(path, "SELECT a, b, c FROM t")))


def test_a_chunk_is_bounded_in_bytes(tmp_path):
    path = make(tmp_path / "x.db", "CREATE TABLE t (i INTEGER PRIMARY KEY, b BLOB)")
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO t VALUES (?, zeroblob(1000000))", [(it,) for it in range(30)])
    database = source(path)
    table = database.catalogue().tables["t"]
    chunk = database.read(table, None, None, 1000)
    assert not chunk.done
    assert CHUNK_BYTES <= chunk.bytes <= CHUNK_BYTES + 2_000_000
    assert [row[0] for row in read_all(database, table, 1000)] == list(range(30))


def test_content_is_the_same_in_one_stretch_and_in_many(nasty, monkeypatch):
    database = source(nasty)
    table = database.catalogue().tables["node"]
    whole = database.content(table, None)
    assert (whole.rows, whole.done) == (119, True)
    monkeypatch.setattr("plugins.migration.sqlite.source._hashed_rows", 50)
    first = database.content(table, None)
    assert (first.rows, first.done, first.after) == (50, False, [50])


def test_measuring(nasty):
    database = source(nasty)
    tables = database.catalogue().tables
    node = database.measure(tables["node"], ranges=4, chunk_rows=10)
    assert node.rows == 119
    assert 200 < node.bytes < 1000
    assert [(part.after, part.until) for part in node.parts] == [(None, 59), ([59], None)]
    composite = database.measure(tables["composite"], ranges=4, chunk_rows=1)
    assert (composite.rows, len(composite.parts)) == (60, 1)
    empty = database.measure(tables["empty_one"], ranges=4, chunk_rows=1)
    assert (empty.rows, empty.bytes, len(empty.parts)) == (0, 0, 1)


def test_text_that_is_not_utf8_is_read_as_its_bytes(nasty):
    database = source(nasty)
    chunk = database.read(database.catalogue().tables["blob_key"], None, None, 1000)
    assert chunk.raw
    assert [row[0].data for row in chunk.values if type(row[0]).__name__ == "RawText"] == [b"\xffA"]


def test_a_python_with_an_old_sqlite_is_told(nasty, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(MigrationError, match=r"migrations need 3\.37 or later"):
        source(nasty).catalogue()


def test_a_sealed_wal_database_is_read(tmp_path, monkeypatch):
    path = make(tmp_path / "x.db", "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert list(source(path).catalogue().tables) == ["t"]
    assert sorted(it.name for it in tmp_path.iterdir()) == ["x.db"], "nothing was written beside it"
