"""The schema and the statements, as files that people read."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import apsw.ext
import pytest

import jivsd
from jivsd import resources
from jivsd.resources import bundled
from jivsd.store.sqlite.database import MEMORY
from jivsd.store.statements import Statements, migrations, read_migrations, statements

SQL = statements("sqlite")


@pytest.fixture
def database():
    connection = apsw.Connection(MEMORY)
    for migration in migrations("sqlite"):
        connection.execute(migration.sql)
    return connection


def schema_of(connection):
    """Everything in a schema by name, as SQL without layout and comments."""
    found = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_schema").fetchall()
    return {name: " ".join(re.sub(r"--.*", "", sql or "").split()) for name, sql in found}


def test_the_full_picture_is_the_sum_of_the_migrations(database):
    picture = apsw.Connection(MEMORY)
    picture.execute((bundled("schema") / "sqlite" / "schema.sql").read_text())
    assert schema_of(picture) == schema_of(database)
    assert len(schema_of(database)) > 20


def test_the_event_table_has_its_primary_key_and_no_other_index(database):
    assert database.execute("SELECT name FROM pragma_index_list('event')").fetchall() == [("sqlite_autoindex_event_1",)]
    assert "WITHOUT ROWID" in schema_of(database)["table event"]


@pytest.mark.parametrize("name", list(SQL.descriptions))
def test_every_statement_is_described_used_and_fits_the_schema(database, name):
    store = Path(jivsd.__file__).parent / "store"
    code = "\n".join(
        path.read_text() for path in [*store.glob("*.py"), *store.glob("copying/*.py"), *store.glob("sqlite/*.py")]
    )
    assert SQL.descriptions[name].endswith(".")
    assert f'"{name}"' in code
    apsw.ext.query_info(database, SQL[name])


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("open_runs", ""),
        ("open_run", ""),
        ("newest_run", ""),
        ("messages", ""),
        ("list_incidents", "state = :s AND number < :n"),
        ("list_incidents", "run_id = :r"),
        ("list_incidents", "fingerprint = :f AND state = :s AND number < :n"),
        ("events", ""),
        ("event", ""),
        ("check_events", ""),
        ("lock_queue", ""),
        ("wakes", ""),
    ],
)
def test_what_is_looked_up_stands_in_order_in_an_index(database, name, conditions):
    sql = SQL[name].replace("true", conditions) if conditions else SQL[name]
    parameters = [None] * apsw.ext.query_info(database, sql).bindings_count
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("-- name: a\nSELECT 1\n", "'a'"),
        ("-- name: a\n-- Says nothing.\n", "'a'"),
        ("-- name: a\n-- One.\nSELECT 1\n-- name: a\n-- Two.\nSELECT 2\n", "'a'"),
    ],
)
def test_a_statement_without_description_sql_or_own_name(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        Statements(text, "test.sql")


def test_a_statement_that_is_not_there():
    with pytest.raises(KeyError, match="no statement 'nothing'"):
        SQL["nothing"]


def test_migrations_are_numbered_without_gaps(tmp_path):
    (tmp_path / "0001_first.sql").write_text("SELECT 1")
    (tmp_path / "statements.sql").write_text("")
    assert [migration.name for migration in read_migrations(tmp_path)] == ["0001_first"]
    (tmp_path / "0003_third.sql").write_text("SELECT 3")
    with pytest.raises(ValueError, match="expected migration 0002 where 0003_third is"):
        read_migrations(tmp_path)


def test_bundled_files_are_found_in_an_installed_package_and_in_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "jivsd" / "resources.py"))
    with pytest.raises(FileNotFoundError, match="'schema' is missing"):
        bundled("schema")
    (tmp_path / "schema").mkdir()
    assert bundled("schema") == tmp_path / "schema"
    (tmp_path / "jivsd" / "_bundled" / "schema").mkdir(parents=True)
    assert bundled("schema") == tmp_path / "jivsd" / "_bundled" / "schema"
