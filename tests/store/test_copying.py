"""Moving house: a store full of everything is copied to another one and back, or stays as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from functools import partial
from uuid import uuid4

import asyncpg
import msgspec
import pytest
import trio
from databases import NEWEST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jivsd.records import SHARDS, Decision, Incident, Progress, Publication, Status
from jivsd.store.api import Duplicate, Existing, OutcomeUnknown, Plugin, RunFilter, StoreError, Wake, Written
from jivsd.store.copying import copy
from jivsd.store.copying.postgres import PostgresEnd
from jivsd.store.copying.sqlite import SqliteEnd
from jivsd.store.plugin_tables import Migration
from jivsd.store.postgres import PostgresStore, exclusion
from jivsd.store.sqlite import SqliteStore
from jivsd.store.tickets import Ticket, Tickets
from store.builders import AT, Journal, append, end, event, new_run, post, request, start

LARGE = b'"' + b"x" * 70_000 + b'"'
SHELF = {
    "sqlite": [
        Migration(1, "shelf", "CREATE TABLE shelf (item TEXT PRIMARY KEY, price REAL, sold INTEGER, label BLOB)"),
        Migration(2, "book", "INSERT INTO shelf VALUES ('book', 1.5, 0, x'00ff')"),
    ],
    "postgres": [
        Migration(1, "shelf", "CREATE TABLE shelf (item text PRIMARY KEY, price float8, sold boolean, label bytea)"),
        Migration(2, "book", "INSERT INTO shelf VALUES ('book', 1.5, false, '\\x00ff')"),
    ],
}
SHOP = Plugin("c0de", "shop", {"__init__.py": "…", "readme.txt": "NUL is \\u0000"}, AT)


@asynccontextmanager
async def opened(url):
    store = PostgresStore(url) if url.startswith("postgresql") else SqliteStore(url)
    async with store:
        yield Journal(store, await store.open("node"))


async def move(source, target, plugins=None, **options):
    """Copy with plugins that have these migrations."""
    told = []
    options.setdefault("tell", lambda *said: told.append(said))
    copied = await copy(source, target, migrations_of=lambda name, _: (plugins or {"shop": SHELF})[name], **options)
    assert {what for what, _, _ in told} <= {"checking", "copying", "verifying"}
    return copied


def publication(run):
    names = {"workflow": run.workflow, "workflow_id": run.workflow_id}
    return Publication(run_id=run.run_id, path="e", topic="t", payload=msgspec.Raw(b"[1]"), at=AT, **names)


async def fill(j, migrations=SHELF):
    """Runs open, parked, waiting for a lock, continued, ended, with all that runs can have."""
    store = j.store
    await store.put_plugin(SHOP)
    await store.migrate_plugin("shop", migrations)
    first, second, done = new_run("nap", "a", lock_key="k"), new_run("nap", "b", lock_key="k"), new_run("order", "o")
    first.attributes = {"region": "eu", "n": 7, "text": 'it\'s "quoted"\n\\. ü 🧡'}
    first.input = msgspec.Raw(b'{"nul":"\\u0000","n":12345678901234567890}')
    for run, key in ((first, "key-1"), (second, "key-2"), (done, None)):
        entry = start(run, key)
        entry.tickets = Tickets(draws=Ticket("k", "", AT)) if run is not done else None
        await j.write(entry)
    await j.one(append(first, 2, progress=[Progress("nap#9", 2, AT, msgspec.Raw(b'{"at":1}'), 1.5, 1e300)]))
    large = append(first)
    large.events = [event(first, 3, LARGE), event(first, 4, LARGE), event(first, 5, by="ann", attempt=3)]
    await j.one(large)
    await j.write(post(first, "m-1"), post(first, "m-2", payload=LARGE), post(second, "m-3"))
    await j.one(append(first, 6, consumed=["m-1"]))
    incident = Incident("i-1", "step", "a\tb", AT, first.run_id, "nap", "nap#1", {"x": [None]}, fingerprint="f")
    incident.history.append(Decision("acknowledge", "ann", "seen", AT + 1))
    await j.one(append(done, 2, incidents=[incident], publishes=[publication(done)]))
    await store.put_incident(Incident("i-2", "plugin", "gone", AT))
    await request(store, ("start", "o-1", '{"n": 1}'), ("signal", "o-1", '"ü"'))
    asked = await store.sql_requests.waiting(None, 0, 2)
    await store.sql_requests.settle([], {asked[0].id: done.run_id})
    await j.one(end(done, 3, Status.FAILED))
    child = new_run("nap", "c", status=Status.WAITING, parent=first.run_id, correlation_id="corr")
    child.parked, child.wake_at = True, AT + 5
    await j.one(start(child))
    return first, second, done


def rows_of(path):
    """All rows of a SQLite database, by table; the owners of shards left out, and the feed, which begins anew."""
    with closing(sqlite3.connect(path)) as db:
        for name in ("run_count", "run_hour"):
            db.execute(f"DELETE FROM {name} WHERE runs = 0")
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {name: sorted(map(repr, db.execute(f'SELECT * FROM "{name}"'))) for name in names}
    return {name: rows for name, rows in found.items() if name not in ("meta", "shard", "feed")}


def file_url(path):
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A SQLite database full of everything. It stays as it is."""
    path = tmp_path_factory.mktemp("house") / "jivsd.db"

    async def make():
        async with opened(file_url(path)) as j:
            await fill(j)
            more = "INSERT INTO shelf VALUES ('a,\"b\"\n\\.\n', NULL, 1, NULL), ('', -2.5, NULL, x'')"
            await j.store._write(lambda db: db.execute(more))

    trio.run(make)
    return path


@pytest.fixture
def full(house, tmp_path):
    """The URL of a copy of that house, to be changed."""
    shutil.copy(house, tmp_path / "full.db")
    return file_url(tmp_path / "full.db")


@pytest.fixture(scope="module")
def ask(postgres):
    """Ask a PostgreSQL database of these tests' own."""
    databases = postgres(NEWEST)
    databases.sql("CREATE DATABASE house")
    yield partial(databases.sql, database="house")
    databases.sql("DROP DATABASE house WITH (FORCE)")


@pytest.fixture
def empty(postgres, ask):
    """The URL of that database, in which nothing is."""
    ask(*CLEAR, "SELECT 1")
    return postgres(NEWEST).server.url("house")


CLEAR = ["DROP SCHEMA IF EXISTS jivsd CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]


TABLES_THERE = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN ('jivsd', 'public') ORDER BY relname
"""


async def problems(url):
    store = PostgresStore(url, read_only=True) if url.startswith("postgresql") else SqliteStore(url, read_only=True)
    async with store:
        await store.open("looker")
        return await store.check()


async def test_there_and_back_nothing_has_changed(house, empty, tmp_path):
    there = await move(file_url(house), empty)
    assert await problems(empty) == []
    back = await move(empty, file_url(tmp_path / "back.db"))
    assert await problems(file_url(tmp_path / "back.db")) == []
    assert rows_of(tmp_path / "back.db") == rows_of(house)
    assert there.tables == back.tables
    assert all(there.tables.values())
    assert there.rows == sum(there.tables.values())
    assert there.tables["event"] == 11
    assert there.tables["shelf"] == 3


async def test_from_like_to_like(house, empty, postgres, tmp_path):
    await move(file_url(house), file_url(tmp_path / "second.db"))
    assert rows_of(tmp_path / "second.db") == rows_of(house)
    databases = postgres(NEWEST)
    databases.sql("CREATE DATABASE second_house")
    try:
        await move(file_url(house), empty)
        await move(empty, databases.server.url("second_house"))
        await move(databases.server.url("second_house"), file_url(tmp_path / "third.db"))
    finally:
        databases.sql("DROP DATABASE second_house WITH (FORCE)")
    assert rows_of(tmp_path / "third.db") == rows_of(house)


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
async def test_the_new_house_goes_on_where_the_old_one_stood(full, empty, tmp_path, to):
    target = empty if to == "postgresql" else file_url(tmp_path / "new.db")
    async with opened(full) as j:
        (before, *_), former = (await j.store.runs(RunFilter(workflow_id="a"), 1)).items, j.epoch
        await j.store.clear_outbox(AT + 10, 10)
        queue, recorded = await j.store.lock_queue(), await j.store.recorded([before.run_id])
        wakes, opens = await j.store.wakes(Wake(0, ""), 10), await j.store.open_runs(None, 10)
    await move(full, target)
    async with opened(target) as j:
        assert j.epoch > former
        assert await j.store.recorded([before.run_id]) == recorded
        assert (await j.store.lock_queue(), await j.store.wakes(Wake(0, ""), 10)) == (queue, wakes)
        assert await j.store.open_runs(None, 10) == opens
        again = start(new_run("nap", "a"), "key-1")
        twice, repeated, unread = await j.write(again, post(before, "m-1"), post(before, "m-2"))
        assert isinstance(twice, Existing)
        assert twice.run.run_id == before.run_id
        assert isinstance(repeated, Duplicate)
        assert (repeated.unread, unread.unread) == (None, AT)
        stale = append(before, 7)
        stale.epoch = former
        assert [one.why for one in await j.store.commit([stale])] == ["fenced"]
        assert await j.one(append(before, 7, publishes=[publication(before)])) == Written()
        assert [one.number for one in await j.store.outbox(0, 10)] == [2]  # 1 was there, and is never used again
        newest = await j.start("order")
        assert [run.run_id for run in (await j.store.runs(RunFilter(), 1)).items] == [newest.run_id]
        assert await j.store.check() == []


async def test_a_target_with_something_in_it_stays_as_it_is(house, empty, tmp_path):
    other = tmp_path / "other.db"
    for url in (empty, file_url(other)):
        async with opened(url) as j:
            await j.start()
        with pytest.raises(StoreError, match=r"is not empty, and stays as it is \(rows of run: 1, event: 1\)"):
            await move(file_url(house), url)
        async with opened(url) as j:
            assert len((await j.store.runs(RunFilter(), 10)).items) == 1


async def test_a_target_where_a_daemon_did_nothing_is_empty(house, empty, tmp_path):
    for url in (empty, file_url(tmp_path / "other.db")):
        async with opened(url) as j:
            for _ in range(3):
                former = await j.store.raise_epoch("node", dict.fromkeys(range(SHARDS), j.epoch))
                j.epoch = former[0]
            await j.store.put_plugin(Plugin("other", "idle", {}, AT))
        await move(file_url(house), url)
        async with opened(url) as j:
            assert j.epoch > former[0]
            assert await j.store.check() == []
        assert await j_count(url) == 4


async def j_count(url):
    async with opened(url) as j:
        return len((await j.store.runs(RunFilter(), 10)).items)


async def test_a_daemon_on_either_side_refuses_it(full, empty, tmp_path, monkeypatch):
    monkeypatch.setattr(exclusion, "PATIENCE", 0.1)
    target = file_url(tmp_path / "new.db")
    for busy, source, to in ((full, full, target), (target, full, target), (empty, full, empty)):
        async with opened(busy):
            with pytest.raises(
                StoreError, match=rf"in use by another jivsd(, process {os.getpid()}| \(jivsd lease of node)"
            ):
                await move(source, to)
    await move(full, empty)
    async with opened(empty):
        with pytest.raises(StoreError, match=r"in use by another jivsd \(jivsd lease of node"):
            await move(empty, file_url(tmp_path / "third.db"))
    assert not (tmp_path / "third.db").exists()


async def test_a_daemon_that_starts_meanwhile_is_refused(full, empty, monkeypatch):
    monkeypatch.setattr(exclusion, "PATIENCE", 0.1)
    refused = []

    async def settle(self, *arguments):
        for url in (full, empty):
            with pytest.raises(StoreError, match="in use by another jivsd"):
                async with opened(url):
                    pass
            refused.append(url)
        await PLAIN_SETTLE(self, *arguments)

    monkeypatch.setattr(PostgresEnd, "settle", settle)
    await move(full, empty)
    assert refused == [full, empty]


PLAIN_SETTLE = PostgresEnd.settle


@pytest.mark.parametrize("moment", ["checking", "copying", "verifying"])
async def test_interrupted_it_leaves_nothing(house, empty, ask, tmp_path, moment):
    for url in (empty, file_url(tmp_path / "new.db")):
        with trio.CancelScope() as scope:
            await move(file_url(house), url, tell=lambda what, *_, scope=scope: what == moment and scope.cancel())
        assert scope.cancelled_caught
    assert ask(TABLES_THERE) == []
    assert [path.name for path in tmp_path.iterdir()] == ["new.db.lock"]
    await move(file_url(house), empty)
    assert await problems(empty) == []


@pytest.mark.parametrize("end", [PostgresEnd, SqliteEnd])
async def test_what_the_target_has_not_kept_is_noticed(house, empty, ask, tmp_path, monkeypatch, end):
    plain = end.write

    async def write(self, table, rows):
        if table.name == "inbox":
            rows = [(*rows[0][:-1], b"[]"), *rows[1:]]
        await plain(self, table, rows)

    monkeypatch.setattr(end, "write", write)
    with pytest.raises(StoreError, match="did not keep what was written: the table inbox was given 3 rows, and has 3"):
        await move(file_url(house), empty if end is PostgresEnd else file_url(tmp_path / "new.db"))
    assert ask(TABLES_THERE) == []
    assert not list(tmp_path.glob("new.db*y*"))


async def test_a_server_that_does_not_say_whether_it_has_committed(house, empty, ask, monkeypatch):
    async def problems_found(_):
        ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jivsd copy'")
        return []

    monkeypatch.setattr(PostgresEnd, "problems", problems_found)
    with pytest.raises(OutcomeUnknown, match=r"did not say whether it has committed: .*; copy again: if all is there"):
        await move(file_url(house), empty)
    monkeypatch.undo()
    await move(file_url(house), empty)
    assert await problems(empty) == []


async def test_a_damaged_source_is_refused(full, empty, ask):
    with closing(sqlite3.connect(full.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE event SET path = 'x' WHERE seq = 2")
    with pytest.raises(
        StoreError, match=r"full.db is damaged: event 2 of run \S+ is damaged.*and 1 more; see: jivsd db check"
    ):
        await move(full, empty)
    assert ask(TABLES_THERE) == []


async def test_what_is_no_house_of_ours(house, full, empty, tmp_path):
    source = file_url(house)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as db, db:
        db.execute("CREATE TABLE t (a)")
    (tmp_path / "new.db-wal").write_bytes(b"left over")
    with closing(sqlite3.connect(full.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE meta SET value = '1' WHERE name = 'schema'")
    foreign, left = file_url(tmp_path / "foreign.db"), file_url(tmp_path / "new.db")
    for one, other, why in (
        (file_url(tmp_path / "none.db"), empty, "there is no database .*none.db"),
        (foreign, empty, "foreign.db is not a database of jivsd"),
        (source, foreign, "foreign.db is the database of another program"),
        (source, left, "there is a file .*new.db-wal of a database that is gone: remove it first"),
        (full, empty, "full.db has schema version 1, and only version 3 is copied: .*jivsd db upgrade"),
        (source, full, "full.db has schema version 1, and only version 3 is copied: .*jivsd db upgrade"),
        (empty, left, "has no journal in the schema jivsd"),
        (source, source, "cannot be copied to itself"),
        (source, f"{empty}?pgbouncer=true", "leads to a pooler: to copy, name the server itself"),
        (source, "mysql://x/y", "the URL of a store must be sqlite:////absolute/path.*or postgresql://"),
        (source, "sqlite:////nowhere/at/all.db", "cannot open the database /nowhere/at/all.db"),
    ):
        with pytest.raises(StoreError, match=why):
            await move(one, other)
    assert not (tmp_path / "none.db.lock").exists()


async def test_an_interrupted_copy_is_in_nobodys_way(house, tmp_path):
    (tmp_path / "new.db.copying").write_bytes(b"half of it")
    await move(file_url(house), file_url(tmp_path / "new.db"))
    assert {path.name for path in tmp_path.iterdir()} == {"new.db", "new.db.lock"}
    assert await problems(file_url(tmp_path / "new.db")) == []


# ---- the tables of plugins


def plugin(sqlite=None, postgres=None):
    """Migrations of the plugin shop, one for each dialect."""
    given = {"sqlite": sqlite, "postgres": postgres}
    return {dialect: [Migration(1, "shelf", sql)] for dialect, sql in given.items() if sql is not None}


async def build(url, migrations, *statements):
    """A database in which the shop has its tables, and something in them."""
    async with opened(url) as j:
        await j.store.put_plugin(SHOP)
        await j.store.migrate_plugin("shop", migrations)
        for sql, *values in statements:
            await j.store._write(lambda db, sql=sql, values=values: db.execute(sql, values))


TABLE = "CREATE TABLE shelf (item text, n integer)"


@pytest.mark.parametrize(
    ("theirs", "row", "why"),
    [
        (None, ("a", 1), "the rows of the plugin table shelf have no place in the target: .*--leave-out shelf"),
        ("CREATE TABLE other (a text)", ("a", 1), "table shelf have no place"),
        (
            "CREATE TABLE shelf (item text)",
            ("a", 1),
            "table shelf has other columns in the target: n is not in the target",
        ),
        ("CREATE TABLE shelf (item text, n int, x int)", ("a", 1), "in the target: x is not in the source"),
        (TABLE, ("a\0b", 1), "PostgreSQL cannot take a row of the table shelf: invalid byte sequence .*0x00"),
        (TABLE, ("a", 1 << 40), 'a row of the table shelf: value "1099511627776" is out of range for type integer'),
        (TABLE, ("a", "many"), "the plugin table shelf has a row whose n is 'many', which does not fit that column"),
        (
            TABLE.replace("text", "date"),
            ("soon", 1),
            'a row of the table shelf: invalid input syntax for type date: "soon"',
        ),
        (f"{TABLE.replace('n integer', 'n integer CHECK (n > 9)')}", ("a", 1), "shelf: .* violates check constraint"),
        ("CREATE NONSENSE", ("a", 1), "migration 0001_shelf of plugin 'shop' failed: syntax error"),
    ],
)
async def test_rows_of_a_plugin_that_do_not_fit_are_left_where_they_are(empty, ask, tmp_path, theirs, row, why):
    source = file_url(tmp_path / "old.db")
    shop = plugin(TABLE, theirs)
    await build(source, shop, ("INSERT INTO shelf VALUES (?, ?)", *row))
    with pytest.raises(StoreError, match=f"(?s){why}"):
        await move(source, empty, {"shop": shop})
    assert ask(TABLES_THERE) == []


async def test_rows_of_a_plugin_can_be_left_behind(empty, tmp_path):
    source = file_url(tmp_path / "old.db")
    await build(source, plugin(TABLE), ("INSERT INTO shelf VALUES ('a', 1)",))
    with pytest.raises(StoreError, match=r"there is no plugin table shell in .*old\.db that could be left out"):
        await move(source, empty, {"shop": plugin(TABLE)}, leave_out=["shell"])
    copied = await move(source, empty, {"shop": plugin(TABLE)}, leave_out=["shelf"])
    assert (copied.left_out, "shelf" in copied.tables) == (["shelf"], False)


async def test_a_table_of_a_plugin_without_rows_needs_no_place(empty, tmp_path):
    await build(file_url(tmp_path / "old.db"), plugin(TABLE))
    await move(file_url(tmp_path / "old.db"), empty, {"shop": plugin(TABLE)})


async def test_a_table_of_a_plugin_that_has_rows_already(empty, ask, tmp_path):
    source, shop = file_url(tmp_path / "old.db"), plugin(TABLE, TABLE)
    await build(source, shop, ("INSERT INTO shelf VALUES ('new', 1)",))
    await build(empty, shop)
    ask("INSERT INTO shelf VALUES ('old', 7)", "SELECT 1")
    with pytest.raises(StoreError, match="the target's table shelf is not empty: it has 1 rows"):
        await move(source, empty, {"shop": shop})
    ask("DELETE FROM shelf", "SELECT 1")
    await move(source, empty, {"shop": shop})
    assert [tuple(row) for row in ask("SELECT * FROM shelf")] == [("new", 1)]


async def test_what_a_migration_put_there_is_not_there_twice_nor_when_it_was_taken_away(empty, ask, tmp_path):
    source = file_url(tmp_path / "old.db")
    shop = plugin(*2 * [f"{TABLE}; INSERT INTO shelf VALUES ('book', 1)"])
    await build(source, shop, ("DELETE FROM shelf",))
    await move(source, empty, {"shop": shop})
    assert ask("SELECT * FROM shelf") == []


async def test_keys_triggers_and_sequences_of_a_plugin_do_not_disturb_and_hold_afterwards(empty, ask, tmp_path):
    source, back = file_url(tmp_path / "old.db"), file_url(tmp_path / "back.db")
    tables = """
        CREATE TABLE leaf (id {key}, tree {int} NOT NULL REFERENCES tree (id), next {int} REFERENCES leaf (id));
        CREATE TABLE tree (id {key}, leaves {int} NOT NULL DEFAULT 0, twice {int} AS (leaves * 2) STORED);
    """
    ours = (
        tables.format(key="INTEGER PRIMARY KEY", int="INTEGER")
        + """
        CREATE TRIGGER grown AFTER INSERT ON leaf BEGIN
            UPDATE tree SET leaves = leaves + 1 WHERE id = new.tree;
        END
    """
    )
    tables = tables.replace(" AS (", " GENERATED ALWAYS AS (")
    leaf, tree = tables.format(key="bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY", int="bigint").split(";")[:2]
    theirs = f"""
        {tree}; {leaf};
        CREATE FUNCTION grown() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE tree SET leaves = leaves + 1 WHERE id = new.tree; RETURN new;
        END $$;
        CREATE TRIGGER grown AFTER INSERT ON leaf FOR EACH ROW EXECUTE FUNCTION grown();
    """
    grow = "INSERT INTO leaf (tree, next) VALUES (1, 2), (1, 1), (1, 2)"
    shop = {"shop": plugin(ours, theirs)}
    await build(source, shop["shop"], ("INSERT INTO tree (id) VALUES (1)",), ("PRAGMA foreign_keys = OFF",), (grow,))
    await move(source, empty, shop)
    grown = ask(
        "INSERT INTO leaf (tree) VALUES (1) RETURNING id",
        "SELECT leaves, twice, max(leaf.id) FROM tree, leaf GROUP BY 1, 2",
    )
    assert tuple(grown[0]) == (4, 8, 4)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        ask("INSERT INTO leaf (tree) VALUES (2)", "SELECT 1")
    await move(empty, back, shop)
    with closing(sqlite3.connect(tmp_path / "back.db")) as db:
        db.execute("INSERT INTO leaf (tree) VALUES (1)")
        assert db.execute("SELECT leaves, twice, max(leaf.id) FROM tree, leaf").fetchall() == [(5, 10, 5)]
    assert await problems(back) == []


async def test_a_broken_reference_of_a_plugin_is_no_house_to_move_into(tmp_path):
    source, back = file_url(tmp_path / "old.db"), file_url(tmp_path / "back.db")
    shop = plugin("CREATE TABLE tree (id INTEGER PRIMARY KEY, up INTEGER REFERENCES tree (id))")
    await build(source, shop, ("PRAGMA foreign_keys = OFF",), ("INSERT INTO tree VALUES (1, 7)",))
    with pytest.raises(StoreError, match="a row of the table tree refers to one of tree that is not there"):
        await move(source, back, {"shop": shop})


async def test_the_newest_code_whose_migrations_these_are_makes_the_tables(empty, ask, tmp_path):
    source = file_url(tmp_path / "old.db")
    await build(source, plugin(TABLE), ("INSERT INTO shelf VALUES ('a', 1)",))
    async with opened(source) as j:
        for number in (3, 1, 2):
            await j.store.put_plugin(Plugin(f"c{number}", "shop", {"version": str(number)}, AT + number))
    versions = {
        "1": plugin(TABLE, "CREATE NONSENSE"),
        "2": plugin(TABLE, TABLE),
        "3": plugin("CREATE TABLE somethingelse (a)", "CREATE NONSENSE"),
    }
    versions[None] = versions["1"]
    await copy(source, empty, migrations_of=lambda _, files: versions[files.get("version")], tell=lambda *_: None)
    assert len(ask("SELECT * FROM shelf")) == 1


async def test_types_that_only_postgresql_has(empty, ask, tmp_path):
    source, back = file_url(tmp_path / "old.db"), file_url(tmp_path / "back.db")
    columns = "(t {0}, n {1}, j {2}, u {3})"
    shop = plugin(
        "CREATE TABLE shelf " + columns.format(*4 * ["TEXT"]),
        "CREATE TABLE shelf " + columns.format("timestamptz", "numeric(9, 2)", "jsonb", "uuid"),
    )
    row = ("2026-11-21T12:00:00Z", "1.5", '{"b":1,"a":[]}', "0198C0DE-0000-7000-8000-000000000000")
    await build(source, shop, ("INSERT INTO shelf VALUES (?, ?, ?, ?)", *row))
    await move(source, empty, {"shop": shop})
    await move(empty, back, {"shop": shop})
    with closing(sqlite3.connect(tmp_path / "back.db")) as db:
        assert db.execute("SELECT * FROM shelf").fetchall() == [
            ("2026-11-21 12:00:00+00", "1.50", '{"a": [], "b": 1}', "0198c0de-0000-7000-8000-000000000000")
        ]


# ---- values

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.tuples(
    st.none() | TEXT | st.sampled_from(["", "\\N", "\\.", '"', "a,b", "\n\\.\n", "\r\n", " ", "\ufeff", "NULL"]),
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.binary() | st.sampled_from([b"", b"\0", b"\\x00"]),
    st.none() | st.booleans(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(values=st.lists(VALUES, max_size=30), said=st.lists(st.tuples(TEXT, JSON), max_size=10))
def test_every_value_comes_back_as_it_was(empty, ask, tmp_path, values, said):
    kinds = {
        "sqlite": ("TEXT", "INTEGER", "REAL", "BLOB", "INTEGER"),
        "postgres": ("text", "int8", "float8", "bytea", "boolean"),
    }
    shop = plugin(*(f"CREATE TABLE shelf (a {a}, b {b}, c {c}, d {d}, e {e})" for a, b, c, d, e in kinds.values()))
    ask(*CLEAR, "SELECT 1")
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    old, new = folder / "old.db", folder / "new.db"

    async def there_and_back():
        rows = [("INSERT INTO shelf VALUES (?, ?, ?, ?, ?)", *row) for row in values]
        await build(file_url(old), shop, *rows)
        async with opened(file_url(old)) as j:
            for number, (text, value) in enumerate(said):
                run = new_run(workflow_id=f"{number}{text}", correlation_id=text)
                run.input = msgspec.Raw(msgspec.json.encode(value))
                await j.write(start(run, f"{number}{text}"), post(run, f"{number}{text}", payload=bytes(run.input)))
                await j.one(append(run, 2, progress=[Progress(text, number, AT, run.input)]))
        await move(file_url(old), empty, {"shop": shop})
        await move(empty, file_url(new), {"shop": shop})

    trio.run(there_and_back)
    assert rows_of(new) == rows_of(old)
