"""What goes wrong with databases, and what people are told: one clear sentence each."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest
from migration_cases import Load, context, make, query, request_for

from plugins.migration.errors import MigrationError, PlanRefused, Unavailable
from plugins.migration.model import Survey
from plugins.migration.sqlite import connect
from plugins.migration.steps import build_index, hash_source, inspect

SIMPLE = "CREATE TABLE t (i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'a'), (2, 'b')"


@pytest.fixture
def simple(tmp_path):
    return make(tmp_path / "simple.db", SIMPLE)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(connect, "_busy_seconds", 0.0)


def refused(source, target, **more):
    with pytest.raises(PlanRefused) as caught:
        inspect(request_for(source, target, **more))
    return caught.value.data["problems"]


def test_a_source_that_is_not_there(tmp_path, target):
    with pytest.raises(MigrationError, match=r"^there is no source database at .*nothing\.db$"):
        inspect(request_for(tmp_path / "nothing.db", target))
    assert not target.exists()


def test_a_source_that_is_a_folder(tmp_path, target):
    with pytest.raises(MigrationError, match=r"the source .* is a folder; it must be a database file"):
        inspect(request_for(tmp_path, target))


def test_a_target_that_is_a_folder(simple, tmp_path):
    assert refused(simple, tmp_path) == [f"the target {tmp_path} is a folder; it must be a database file"]


def test_a_source_that_is_no_database(tmp_path, target):
    (tmp_path / "text.db").write_text("dear diary, " * 1000)
    with pytest.raises(MigrationError, match="is not an SQLite database, or it is encrypted"):
        inspect(request_for(tmp_path / "text.db", target))


def test_a_damaged_source_is_named_with_the_table(tmp_path, target):
    path = make(tmp_path / "s.db", SIMPLE, [("t", [(it, "x" * 500) for it in range(3, 200)])])
    data = bytearray(path.read_bytes())
    data[4096 + 8192 : 4096 + 8192 + 4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(MigrationError, match=r"the source .*s\.db is damaged: .*; try sqlite3's \.recover on a copy"):
        Load(path, target).run()


def test_a_locked_source_is_worth_another_attempt(simple, target):
    with closing(sqlite3.connect(simple)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match=r"the source .* is locked by another program"):
            inspect(request_for(simple, target))
    assert isinstance(inspect(request_for(simple, target)), Survey)


def test_a_locked_target_is_worth_another_attempt(simple, target):
    load = Load(simple, target)
    chunk = next(load.chunks())
    with closing(sqlite3.connect(target)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=r"the target .* is locked by another program while loading table 't'"):
            load.copy(chunk)
    assert load.copy(chunk).rows == 2


def test_a_source_left_in_a_transaction_is_explained(tmp_path, target):
    path = make(tmp_path / "s.db", SIMPLE)
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_spill = 1")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t (x) VALUES (?)", [("x" * 2000,) for _ in range(50)])
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.db-journal").write_bytes(path.with_name("s.db-journal").read_bytes())
    with pytest.raises(MigrationError, match="was left in the middle of a transaction by a program that crashed"):
        inspect(request_for(copy, target))


def test_a_target_that_is_not_empty(simple, target):
    make(target, "CREATE TABLE old (x)")
    assert refused(simple, target) == [
        f"the target {target} is not empty: it has table 'old'; give a new file, or type DATA_ONLY to fill tables that"
        " are there"
    ]


def test_an_empty_file_and_an_empty_database_are_fine_targets(simple, target):
    target.touch()
    assert not inspect(request_for(simple, target)).taken_over
    make(target, "CREATE TABLE x (y); DROP TABLE x")
    Load(simple, target).run()
    assert query(target, "SELECT * FROM t") == [(1, "a"), (2, "b")]


def test_a_target_that_is_no_database(simple, target):
    target.write_text("precious notes " * 500)
    with pytest.raises(MigrationError, match=r"the target .* is not an SQLite database"):
        inspect(request_for(simple, target))
    assert target.read_text() == "precious notes " * 500


def test_a_target_in_a_folder_that_is_not_there(simple, tmp_path):
    assert refused(simple, tmp_path / "no" / "t.db") == [f"the target's folder {tmp_path / 'no'} does not exist"]


def test_a_folder_that_is_not_writable(simple, target, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert refused(simple, target) == [f"the target's folder {target.parent} is not writable for the daemon's user"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_target_that_is_read_only(simple, target):
    make(target, "CREATE TABLE t (i INTEGER PRIMARY KEY, x)").chmod(0o400)
    assert refused(simple, target) == [f"the target {target} cannot be written: it is read-only"]
    target.chmod(0o600)
    load = Load(simple, target, type="DATA_ONLY")
    target.chmod(0o400)
    with pytest.raises(MigrationError, match=r"the target .* cannot be written: it is read-only"):
        load.run()


def test_a_read_only_database_is_explained(simple):
    with (
        pytest.raises(MigrationError, match="the target /x cannot be written: it is read-only"),
        closing(sqlite3.connect(f"file:{simple}?mode=ro", uri=True)) as db,
        connect.explained("/x", "target"),
    ):
        db.execute("DELETE FROM t")


@pytest.mark.parametrize("make_link", [os.symlink, os.link])
def test_one_database_under_two_names(simple, target, make_link):
    make_link(simple, target)
    with pytest.raises(MigrationError, match="source and target are the same database"):
        inspect(request_for(simple, target))
    assert query(simple, "SELECT count(*) FROM t") == [(2,)]


def test_virtual_tables_are_refused_by_name_and_can_be_left_out(tmp_path, target):
    path = make(tmp_path / "s.db", SIMPLE + "; CREATE VIRTUAL TABLE docs USING fts5(body)")
    assert refused(path, target) == [
        "table 'docs' is a virtual table; these are not supported; leave it out with exclude"
    ]
    load = Load(path, target, exclude=["docs"])
    load.run()
    assert [pair.source.name for pair in load.survey.pairs] == ["t"]


def test_a_half_loaded_database_is_no_source(simple, target, tmp_path):
    Load(simple, target)
    assert f"the source {target} is itself the target of an unfinished migration" in refused(target, tmp_path / "x.db")


def test_all_problems_are_told_at_once(simple, tmp_path):
    problems = refused(simple, tmp_path / "no" / "t.db", tables=["u"], exclude=["v"])
    assert len(problems) == 3
    with pytest.raises(PlanRefused, match=r"^this migration cannot be done: tables names 'u'.*; exclude names 'v'"):
        inspect(request_for(simple, tmp_path / "no" / "t.db", tables=["u"], exclude=["v"]))


def test_tables_that_data_cannot_go_into(simple, tmp_path, target):
    assert refused(simple, target, type="DATA_ONLY") == [
        "the target has no database yet, and DATA_ONLY fills tables that are there"
    ]
    make(target, "CREATE TABLE other (x)")
    assert refused(simple, target, type="DATA_ONLY") == [
        "the target has no table 't', and DATA_ONLY fills tables that are there"
    ]
    narrow = make(tmp_path / "narrow.db", "CREATE TABLE t (i INTEGER PRIMARY KEY, must TEXT NOT NULL, x AS (i + 1))")
    assert refused(simple, narrow, type="DATA_ONLY") == [
        "table 't' of the target has no column 'x' that a value could be stored in",
        "column 'must' of table 't' must have a value in the target, but the source has no such column",
    ]
    keyless = make(tmp_path / "keyless.db", "CREATE TABLE t (i, x)")
    assert refused(simple, keyless, type="DATA_ONLY", load={"strategy": "UPSERT"}) == [
        "strategy UPSERT needs a primary key, and table 't' of the target has none"
    ]
    odd = make(tmp_path / "odd.db", "CREATE TABLE t (i, x, k INTEGER PRIMARY KEY)")
    assert refused(simple, odd, type="DATA_ONLY", load={"strategy": "UPSERT"}) == [
        "strategy UPSERT needs the primary key of table 't' among the source's columns"
    ]
    full = make(tmp_path / "full.db", SIMPLE)
    with pytest.raises(MigrationError, match="table 't' of the target has rows; use strategy UPSERT to update them"):
        Load(simple, full, type="DATA_ONLY")


def test_a_row_that_the_target_refuses(simple, target):
    make(target, "CREATE TABLE t (i INTEGER PRIMARY KEY, x TEXT CHECK (x <> 'b'))")
    load = Load(simple, target, type="DATA_ONLY")
    with pytest.raises(
        MigrationError, match="refuses a row while loading table 't': CHECK constraint failed: x <> 'b'"
    ):
        load.run()


def test_a_function_that_only_the_sources_programs_have(tmp_path, target):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.create_function("own", 1, lambda value: value, deterministic=True)
        db.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, x)")
        db.execute("CREATE INDEX by_own ON t (own(x))")
        db.execute("INSERT INTO t VALUES (1, 'a')")
    load = Load(path, target)
    load.run()
    with pytest.raises(MigrationError, match="while making index 'by_own': no such function: own"):
        build_index(context(), load.job, load.epoch, "by_own")


def test_a_table_that_vanishes_meanwhile(simple, target):
    load = Load(simple, target)
    with closing(sqlite3.connect(simple)) as db, db:
        db.execute("DROP TABLE t")
    with pytest.raises(MigrationError, match=r"the source .* reports an error: no such table: t"):
        hash_source(load.job, load.survey.pairs[0].source, None)
