"""Whole migrations on the engine: what comes over, what is compared, pause and resume, a stop in the middle."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import trio
from migration_cases import change, dump, make, query, url

import plugins.migration
from jivsd.records import Status
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env
from plugins.migration.errors import MigrationError, Unavailable
from plugins.migration.sqlite.target import SqliteTarget

pytestmark = [pytest.mark.jump, pytest.mark.slow]

NUMBERS = """
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner, name TEXT);
CREATE INDEX item_owner ON item (owner);
"""


@pytest.fixture
def numbers(tmp_path):
    owners = [(it, f"owner {it}") for it in range(1, 11)]
    items = [(it, 1 + it % 10, f"item {it}") for it in range(1, 201)]
    return make(tmp_path / "numbers.db", NUMBERS, [("owner", owners), ("item", items)])


def wanted(source, target, **more):
    return {"source": url(source), "target": url(target), **more}


async def migrate(source, target, **more):
    """The output of a whole migration."""
    async with Env(plugins.migration) as env:
        return await env.result(await env.start("migration", wanted(source, target, **more)))


async def failed(source, target, **more):
    """The error that ends a migration, and its progress then."""
    async with Env(plugins.migration) as env:
        run = await env.start("migration", wanted(source, target, **more))
        row = await env.ended(run)
        assert row.status is Status.FAILED
        progress = await env.query(run, "progress")
        assert (progress["phase"], progress["status"]) == ("FAILED", "FAILED")
        return row.error


@pytest.mark.parametrize("strategy", ["BATCH", "PARALLEL"])
async def test_everything_comes_over_and_is_equal(nasty, target, strategy):
    summary = await migrate(
        nasty, target, name="nasty", load={"strategy": strategy, "chunk_rows": 13, "parallelism": 3}
    )
    assert dump(target) == dump(nasty)
    assert query(target, "PRAGMA integrity_check") == [("ok",)]
    assert query(target, "PRAGMA foreign_key_check") == []
    assert summary["name"] == "nasty"
    assert all(table["equal"] for table in summary["tables"])
    counts = {table["table"]: table["rows"] for table in summary["tables"]}
    assert counts["node"] == 119
    assert summary["rows"] == sum(counts.values()) > 300
    assert summary["bytes"] == sum(table["bytes"] for table in summary["tables"])
    assert summary["warnings"] == []
    assert [it["phase"] for it in summary["phases"]] == [
        "PLANNING",
        "EXTRACTION",
        "TRANSFORMATION",
        "VALIDATION",
        "LOADING",
        "VERIFICATION",
        "CLEANUP",
    ]


async def test_settings_and_statistics_come_along(tmp_path, target):
    source = make(
        tmp_path / "s.db",
        "PRAGMA page_size = 8192; PRAGMA encoding = 'UTF-16be'; PRAGMA auto_vacuum = INCREMENTAL;"
        + NUMBERS
        + "INSERT INTO owner VALUES (1, 'ü😀'), (2, NULL); ANALYZE",
    )
    await migrate(source, target)
    for setting in ("page_size", "encoding", "auto_vacuum"):
        assert query(target, f"PRAGMA {setting}") == query(source, f"PRAGMA {setting}")
    assert query(target, "SELECT * FROM sqlite_stat1") == query(source, "SELECT * FROM sqlite_stat1")
    assert dump(target)[0]["owner"] == dump(source)[0]["owner"]


async def test_a_narrowed_migration_takes_what_belongs_to_its_tables(nasty, target):
    summary = await migrate(nasty, target, tables=["egg", "NODE", "keyless", "composite"], exclude=["composite"])
    rows, schema = dump(target)
    wanted = dump(nasty)[0]
    assert rows == {name: wanted[name] for name in ("egg", "node", "keyless", "sqlite_sequence") if name in rows}
    assert sorted(name for _, name, _, _ in schema) == [
        b"View of nodes",
        b"egg",
        b"into_view",
        b"keyless",
        b"node",
        b"node pair",
        b"second_view",
    ]
    assert summary["warnings"] == [
        "table 'egg' refers to 'chicken', which is not migrated",
        "trigger 'log_node' is left out: it needs what is not migrated",
    ]
    change(target, "INSERT INTO node VALUES (5000, 1); INSERT INTO second_view VALUES (6); DELETE FROM node")
    assert query(target, "SELECT y FROM keyless WHERE x = 6") == [("view",)]


async def test_what_needs_tables_that_are_left_out_is_left_out(nasty, target):
    summary = await migrate(nasty, target, exclude=["node"])
    assert sorted(summary["warnings"]) == [
        "trigger 'into_view' is left out: it needs what is not migrated",
        "view 'View of nodes' is left out: it needs what is not migrated",
        "view 'second_view' is left out: it needs what is not migrated",
    ]
    assert query(target, "SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')") == [(0,)]


async def test_rows_only_go_into_tables_that_are_there(numbers, target):
    make(
        target,
        "CREATE TABLE owner (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'new', NAME TEXT);"
        "CREATE TABLE item (id INTEGER PRIMARY KEY, owner, name);"
        "CREATE TABLE other (x); INSERT INTO other VALUES ('kept'); CREATE TABLE log (x);"
        "CREATE TRIGGER on_item AFTER INSERT ON item BEGIN INSERT INTO log VALUES (new.id); END",
    )
    before = query(target, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    summary = await migrate(numbers, target, type="DATA_ONLY")
    assert query(target, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before
    assert query(target, "SELECT * FROM owner LIMIT 1") == [(1, "new", "owner 1")]
    assert query(target, "SELECT * FROM item") == query(numbers, "SELECT * FROM item")
    assert query(target, "SELECT * FROM log") == [], "triggers do not fire for rows that are moved"
    assert query(target, "SELECT * FROM other") == [("kept",)]
    assert all(table["equal"] for table in summary["tables"])


async def test_upsert_updates_what_is_there_and_keeps_the_rest(numbers, target):
    make(target, NUMBERS + "INSERT INTO owner VALUES (3, 'outdated'), (77, 'only here')")
    summary = await migrate(numbers, target, type="DATA_ONLY", load={"strategy": "UPSERT", "chunk_rows": 4})
    assert query(target, "SELECT * FROM owner WHERE id < 77") == query(numbers, "SELECT * FROM owner")
    assert query(target, "SELECT * FROM owner WHERE id = 77") == [(77, "only here")]
    assert [(it["table"], it["rows"], it["equal"]) for it in summary["tables"]] == [
        ("owner", 10, True),
        ("item", 200, True),
    ]
    change(numbers, "UPDATE owner SET name = name || '!'")
    await migrate(numbers, target, type="DATA_ONLY", load={"strategy": "UPSERT"})
    assert query(target, "SELECT name FROM owner WHERE id = 10") == [("owner 10!",)]


async def test_sequences_never_go_backwards(tmp_path, target):
    tables = (
        "CREATE TABLE a (i INTEGER PRIMARY KEY AUTOINCREMENT, x); CREATE TABLE b (i INTEGER PRIMARY KEY AUTOINCREMENT);"
    )
    source = make(tmp_path / "s.db", tables + "INSERT INTO a VALUES (5, 'x'), (90, 'y'); DELETE FROM a WHERE i = 90")
    await migrate(source, target)
    assert query(target, "SELECT * FROM sqlite_sequence") == [("a", 90)]
    used = make(tmp_path / "used.db", tables + "INSERT INTO a VALUES (200, 'z'); INSERT INTO b VALUES (1)")
    await migrate(source, used, type="DATA_ONLY", tables=["a"], load={"strategy": "UPSERT"})
    assert query(used, "SELECT * FROM sqlite_sequence ORDER BY name") == [("a", 200), ("b", 1)]


async def test_references_that_are_broken_in_the_source_are_a_warning(numbers, target):
    change(numbers, "INSERT INTO item VALUES (999, 555, 'orphan')")
    summary = await migrate(numbers, target)
    assert summary["warnings"] == [
        "1 rows of table 'item' refer to rows of 'owner' that are not there, in the source neither"
    ]


class Interference:
    """Does something once, just before the n-th chunk is loaded."""

    def __init__(self, monkeypatch, number, act):
        self.loaded = 0
        load = SqliteTarget.load

        def counting(*arguments):
            self.loaded += 1
            if self.loaded == number:
                act()
            return load(*arguments)

        monkeypatch.setattr(SqliteTarget, "load", counting)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("INSERT INTO item VALUES (-1, 1, 'late')", "table 'item' has 201 rows in the source and 200 in the target"),
        ("DELETE FROM item WHERE id < 3", "table 'item' has 198 rows in the source and 200 in the target"),
        ("UPDATE item SET name = 'changed' WHERE id = 1", "table 'item' has other values in the source"),
        ("ALTER TABLE item ADD COLUMN extra", "table 'item' is defined otherwise in the target"),
    ],
)
async def test_a_source_that_changes_meanwhile_fails_verification(numbers, target, monkeypatch, script, said):
    Interference(monkeypatch, 12, lambda: change(numbers, script))
    error = await failed(numbers, target, load={"chunk_rows": 10, "parallelism": 1})
    assert error.type == "NotEqual"
    assert error.message.startswith("source and target are not equal: ")
    assert said in error.message
    assert error.data["differences"]


async def test_a_failed_migration_says_why_without_a_traceback(numbers, target):
    make(target, "CREATE TABLE old (x)")
    error = await failed(numbers, target)
    assert error.type == "PlanRefused"
    assert error.message.startswith(f"this migration cannot be done: the target {target} is not empty")
    assert error.causes == []


async def test_an_error_in_a_chunk_comes_out_of_the_nurseries_alone(numbers, target, monkeypatch):
    Interference(monkeypatch, 3, lambda: target.write_bytes(b"rubbish " * 2000))
    error = await failed(numbers, target, load={"chunk_rows": 10})
    assert error.type == "MigrationError"
    assert "is not an SQLite database" in error.message


async def test_transient_trouble_is_retried(numbers, target, monkeypatch):
    def trouble():
        raise Unavailable("the disk is full")

    Interference(monkeypatch, 5, trouble)
    async with Env(plugins.migration) as env:
        run = await env.start("migration", wanted(numbers, target, load={"chunk_rows": 10}))
        await env.result(run)
        kinds = [event.kind for event in await env.events(run)]
    assert kinds.count("AttemptFailed") == 1
    assert dump(target) == dump(numbers)


async def test_pause_holds_at_a_chunk_and_resume_goes_on(numbers, target, monkeypatch):
    reached = trio.Event()
    chunks = Interference(monkeypatch, 6, reached.set)
    async with Env(plugins.migration) as env:
        run = await env.start("migration", wanted(numbers, target, load={"chunk_rows": 10, "parallelism": 1}))
        await reached.wait()
        await env.engine.pause(run, by="test")
        await trio.sleep(3600)
        held = chunks.loaded
        assert held < 20
        progress = await env.query(run, "progress")
        assert (progress["phase"], progress["unit"], progress["total"]) == ("LOADING", "rows", 210)
        assert 0 < progress["done"] == progress["rows"] < 210
        assert 0 < progress["percent"] < 70
        rows = query(target, "SELECT (SELECT count(*) FROM owner) + (SELECT count(*) FROM item)")[0][0]
        assert rows >= progress["rows"]
        await trio.sleep(3600)
        assert chunks.loaded == held
        await env.engine.resume(run, by="test")
        await env.result(run)
        progress = await env.query(run, "progress")
    assert (progress["percent"], progress["status"], progress["remaining_s"]) == (100.0, "COMPLETED", 0.0)
    assert dump(target) == dump(numbers)
    assert chunks.loaded == 2 + 21, "nothing was loaded twice"


async def test_an_engine_that_stops_in_the_middle_goes_on_later(numbers, target, tmp_path, monkeypatch):
    reached = trio.Event()
    request = wanted(numbers, target, load={"chunk_rows": 10, "parallelism": 2})
    Interference(monkeypatch, 7, reached.set)
    async with Env(plugins.migration, store=SqliteStore(str(tmp_path / "journal.db"), threaded=False)) as env:
        run = await env.start("migration", request)
        await reached.wait()
    assert 0 < query(target, "SELECT sum(rows) FROM _jivsd_fence")[0][0] < 210
    async with Env(plugins.migration, store=SqliteStore(str(tmp_path / "journal.db"), threaded=False)) as env:
        summary = await env.result(run)
    assert summary["rows"] == 210
    assert dump(target) == dump(numbers)


async def test_cancelled_and_started_again_it_goes_on(numbers, target, monkeypatch):
    reached = trio.Event()
    chunks = Interference(monkeypatch, 9, reached.set)
    async with Env(plugins.migration) as env:
        request = wanted(numbers, target, load={"chunk_rows": 10})
        run = await env.start("migration", request)
        await reached.wait()
        await env.engine.cancel(run, by="test")
        assert (await env.ended(run)).status is Status.CANCELLED
        assert (await env.query(run, "progress"))["status"] == "CANCELLED"
        before = chunks.loaded
        summary = await env.result(await env.start("migration", request))
    assert summary["rows"] == 210
    assert before < 20
    assert dump(target) == dump(numbers)


async def test_a_failed_migration_is_retried_from_its_last_chunk(numbers, target, monkeypatch):
    def trouble():
        raise MigrationError("no")

    chunks = Interference(monkeypatch, 8, trouble)
    async with Env(plugins.migration) as env:
        run = await env.start("migration", wanted(numbers, target, load={"chunk_rows": 10, "parallelism": 1}))
        assert (await env.ended(run)).error.message == "no"
        again = await env.engine.retry(run, by="test")
        assert again.run_id != run
        summary = await env.result(again.run_id)
    assert summary["rows"] == 210
    assert chunks.loaded == 2 + 21 + 1, "only the chunk that failed was tried again"
    assert dump(target) == dump(numbers)


async def test_two_migrations_into_one_target_exclude_each_other(numbers, target):
    async with Env(plugins.migration) as env:
        first = await env.start("migration", wanted(numbers, target))
        second = await env.start("migration", wanted(numbers, target))
        await env.result(first)
        row = await env.ended(second)
    assert row.status is Status.FAILED
    assert "is not empty" in row.error.message


async def test_the_plan_is_told_before_loading(numbers, target, monkeypatch):
    reached = trio.Event()
    Interference(monkeypatch, 1, reached.set)
    async with Env(plugins.migration) as env:
        run = await env.start("migration", wanted(numbers, target, load={"chunk_rows": 10}))
        await reached.wait()
        plan = await env.query(run, "plan")
        await env.result(run)
    assert plan["tables"] == [{"table": "owner", "rows": 10}, {"table": "item", "rows": 200}]
    assert plan["rows"] == 210
    assert plan["deferred"] == []
    assert plan["bytes"] > 1000


async def test_too_little_space_is_said_before_anything_is_written(numbers, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    error = await failed(numbers, target)
    assert "the target's disk has 100 bytes free, but the rows alone take about" in error.message
    assert not target.exists()
