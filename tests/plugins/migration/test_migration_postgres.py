"""Migrations into PostgreSQL, from SQLite and from PostgreSQL: every row and every definition, exactly once."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest
from databases import NEWEST
from migration_cases import Load, context, make, url

import plugins.migration
from jivsd import asyncio_calls, connections
from jivsd.records import Status
from jivsd.testing import Env
from plugins.migration.errors import Fenced, MigrationError, PlanRefused, Unavailable
from plugins.migration.postgresql import target as target_module
from plugins.migration.request import Endpoint, Request
from plugins.migration.steps import (
    build_index,
    check_schema,
    claim,
    complete_schema,
    copy_chunk,
    finish,
    inspect,
    measure,
)

SQLITE = """
CREATE TABLE "Mixed ""x"" Name" (
    "Id" INTEGER PRIMARY KEY AUTOINCREMENT, "select" NVARCHAR(20) NOT NULL DEFAULT '', real REAL DEFAULT 1.5,
    price NUMERIC(10, 2), blob BLOB, day DATE, at DATETIME DEFAULT CURRENT_TIMESTAMP, yes BOOLEAN DEFAULT 1
);
CREATE TABLE "of all kinds" (n INTEGER, d DATETIME, x, r REAL);
CREATE TABLE pair (a TEXT, b INTEGER, c BIGINT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE node (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node, name TEXT UNIQUE, CHECK (id > 0));
CREATE TABLE egg (id INTEGER PRIMARY KEY, chicken INTEGER REFERENCES chicken (id) ON DELETE CASCADE);
CREATE TABLE chicken (id INTEGER PRIMARY KEY, egg INTEGER REFERENCES egg (id));
CREATE TABLE leaf (a TEXT, b INTEGER, FOREIGN KEY (a, b) REFERENCES pair (a, b));
CREATE INDEX "node names" ON node (name, parent);
CREATE INDEX upper_name ON node (upper(name));
CREATE VIEW nodes AS SELECT id FROM node;
"""
MIXED = '"Mixed ""x"" Name"'
TEXTS = ["", "plain", "naïve 表 😀", "a\tb\nc\\d\re", "\\N", "it's", "12"]
REALS = [0.0, -0.0, 1.5, 1e15, 1e-7, 123456789.125, -math.inf, 1e300, None]

POSTGRES = """
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN positive AS integer DEFAULT 1 NOT NULL CONSTRAINT above CHECK (VALUE > 0);
CREATE SEQUENCE tickets START 100 INCREMENT 5;
SELECT nextval('tickets'), nextval('tickets');
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(t) || '!' $$;
CREATE TABLE "Every Thing" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    serial serial, mood mood DEFAULT 'happy', positive positive, tags text[] DEFAULT '{}', grid integer[][],
    doc json, docb jsonb, raw bytea, words tsvector, price numeric(12, 3), big numeric, at timestamptz, local timestamp,
    day date, span interval, uid uuid, flag boolean, "char" char(5), r real, d double precision, net inet,
    range int4range, ticket bigint DEFAULT nextval('tickets'), loud text GENERATED ALWAYS AS (shout("Text")) STORED,
    "Text" text COLLATE "C", CONSTRAINT sane CHECK (price IS NULL OR price > -1000)
);
CREATE UNIQUE INDEX every_day ON "Every Thing" (day, id) WHERE flag;
CREATE TABLE branch (a text, b integer, parent_a text, parent_b integer, PRIMARY KEY (a, b),
    CONSTRAINT up FOREIGN KEY (parent_a, parent_b) REFERENCES branch DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE keyless (x integer, y text);
CREATE TABLE seen (n integer, EXCLUDE USING gist (int4range(n, n + 1) WITH &&));
CREATE VIEW happy AS SELECT id, "Text" FROM "Every Thing" WHERE mood = 'happy';
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM happy;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN INSERT INTO keyless VALUES (1, 't'); RETURN new; END $$;
CREATE TRIGGER noted AFTER INSERT ON branch FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO "Every Thing" (mood, positive, tags, grid, doc, docb, raw, words, price, big, at, local, day, span, uid,
    flag, "char", r, d, net, range, "Text")
SELECT 'it''s ok', n, ARRAY['a,b', NULL, '"q"', ''], '{{1,2},{3,4}}', '{"a":  1}', '{"b": null}',
    decode('00ff5c', 'hex'), to_tsvector('fat cats'), n / 3.0, 10::numeric ^ 30 + n, now(),
    '2024-02-29 12:00:00.123456', 'infinity', '1 year 2 mons -3 days 04:05:06.789', gen_random_uuid(), n % 2 = 0,
    'ab', 1.1, 'NaN', '10.0.0.0/8', '[1,5)',
    E'tab\\there\\nand \\\\N 表' FROM generate_series(1, 130) AS n;
INSERT INTO "Every Thing" ("Text") VALUES (NULL), ('');
INSERT INTO branch VALUES ('x', 1, 'y', 2), ('y', 2, NULL, NULL), ('ä', 3, 'x', 1);
INSERT INTO keyless SELECT n, NULL FROM generate_series(1, 50) AS n;
"""


@pytest.fixture
def databases(postgres):
    return postgres(NEWEST)


@pytest.fixture
def empty(databases):
    """The URL of a new database with nothing in it."""
    databases.sql("DROP DATABASE IF EXISTS migrated", "CREATE DATABASE migrated", "SELECT 1")
    return databases.server.url("migrated")


@pytest.fixture
def everything(databases):
    """The URL of a database with all that PostgreSQL may hold, nearly."""
    databases.sql("DROP DATABASE IF EXISTS source", "CREATE DATABASE source", "SELECT 1")
    databases.sql(POSTGRES, "SELECT 1", database="source")
    return databases.server.url("source")


@pytest.fixture(autouse=True)
def _no_connections():
    yield
    connections.configure({})


def in_postgres(address):
    return {"system": "postgresql", "url": address}


def file_with_all(path):
    make(path, SQLITE)
    with closing(sqlite3.connect(path)) as db, db:
        for place, text in enumerate(TEXTS):
            real = REALS[place]
            row = (text, real, place * 1.25, text.encode(), "2024-02-29", "2024-02-29 23:59:59", place % 2)
            db.execute(f"INSERT INTO {MIXED} VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("INSERT INTO pair VALUES (?, ?, ?)", (text, place, 2**63 - 1))
            db.execute("INSERT INTO leaf VALUES (?, ?)", (text, place))
        db.executemany('INSERT INTO "of all kinds" VALUES (?, ?, ?, ?)', [(1, 0, 1.5, r) for r in REALS])
        db.execute('INSERT INTO "of all kinds" VALUES (?, ?, ?, ?)', ("eleven", "soon", "z", None))
        db.executemany("INSERT INTO node VALUES (?, ?, ?)", [(n, n - 1 or None, f"node {n}") for n in range(1, 120)])
        db.execute("DELETE FROM node WHERE id > 115")
        db.execute("INSERT INTO egg VALUES (1, 1), (2, NULL)")
        db.execute("INSERT INTO chicken VALUES (1, 2), (2, 1)")
        db.execute(f"DELETE FROM {MIXED} WHERE Id = 7")
    return path


class Loaded(Load):
    """As `Load`, between any two databases."""

    def __init__(self, source, target, *, run="run-1", **more):
        self.request = msgspec.convert({"source": source, "target": target, **more}, Request)
        self.survey = inspect(self.request)
        self.job = self.survey.job
        rows = self.request.load.chunk_rows
        measured = [measure(self.job.source, pair.source, 1, rows) for pair in self.survey.pairs]
        parts = [part for one in measured for part in one.parts]
        self.claimed = claim(context(run, f"{run}/claim"), self.job, parts)
        self.epoch = self.claimed.epoch

    def end(self):
        for name in self.survey.indexes:
            build_index(context(), self.job, self.epoch, name)
        left_out = complete_schema(context(), self.job, self.epoch, [pair.source.name for pair in self.survey.pairs])
        assert check_schema(self.survey, left_out) == []
        finish(context(), self.job, self.epoch)


async def migrate(source, target, **more):
    async with Env(plugins.migration) as env:
        run = await env.start("migration", {"source": source, "target": target, **more})
        return await env.ended(run), await env.events(run)


def rows_of(databases, sql):
    return sorted((tuple(row) for row in databases.sql(sql, database="migrated")), key=repr)


def dump(databases, name):
    program = databases.server._programs / "pg_dump"
    done = subprocess.run(
        [program, databases.server.url(name), "--inserts", "--rows-per-insert=1"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(line for line in done.stdout.splitlines() if line and not line.startswith(("--", "\\")))


# ---- whole migrations


async def test_sqlite_comes_over_with_every_row_and_definition(tmp_path, databases, empty):
    path = file_with_all(tmp_path / "source.db")
    load = {"strategy": "PARALLEL", "chunk_rows": 5}
    row, _ = await migrate(url(path), in_postgres(empty), load=load)
    assert row.status is Status.COMPLETED, row.error
    summary = msgspec.json.decode(row.output)
    assert all(table["equal"] for table in summary["tables"])
    for said in (
        "column 'n' of table 'of all kinds' becomes text: it has other values too",
        "column 'd' of table 'of all kinds' becomes text",
        "index 'upper_name' is left out",
        "view 'nodes' is written for SQLite",
        "the checks of table 'node' are left out",
    ):
        assert any(said in warning for warning in summary["warnings"]), said
    with closing(sqlite3.connect(path)) as db:
        for table in ("pair", "node", "egg", "chicken", "leaf"):
            expected = sorted(db.execute(f"SELECT * FROM {table}"), key=repr)
            assert rows_of(databases, f"SELECT * FROM {table}") == expected, table
        mixed = db.execute(f'SELECT Id, "select", real, price, blob, day, at, yes FROM {MIXED}').fetchall()
        odd = db.execute('SELECT n, d, x, r FROM "of all kinds"').fetchall()
    found = rows_of(
        databases, f'SELECT "Id", "select", real, price::float8, blob, day::text, at::text, yes::int FROM {MIXED}'
    )
    assert found == sorted(mixed, key=repr)
    expected = [(str(n), str(d), str(x), r) for n, d, x, r in odd]
    assert rows_of(databases, 'SELECT n, d, x, r FROM "of all kinds"') == sorted(expected, key=repr)
    assert {type(it[0]).__name__ for it in rows_of(databases, f"SELECT price FROM {MIXED}")} == {"Decimal"}
    databases.sql(f"INSERT INTO {MIXED} (\"select\") VALUES ('next')", "SELECT 1", database="migrated")
    assert rows_of(databases, f'SELECT "Id", yes FROM {MIXED} WHERE "select" = \'next\'') == [(8, True)]
    assert rows_of(databases, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == [(4,)]


async def test_postgresql_comes_over_as_pg_dump_sees_it(databases, everything, empty):
    load = {"strategy": "PARALLEL", "chunk_rows": 8}
    row, _ = await migrate(in_postgres(everything), in_postgres(empty), load=load)
    assert row.status is Status.COMPLETED, row.error
    assert dump(databases, "migrated") == dump(databases, "source")
    assert msgspec.json.decode(row.output)["warnings"] == []


async def test_connections_are_named_and_passwords_stand_nowhere(databases, everything, empty):
    secret = everything.replace("jivsd@", "jivsd:s3cr3t@")
    connections.configure({"crm": secret, "new": empty.replace("jivsd@", "jivsd:s3cr3t@")})
    row, events = await migrate("crm", "new", tables=["branch"])
    assert row.status is Status.COMPLETED, row.error
    assert rows_of(databases, "SELECT count(*) FROM branch") == [(3,)]
    assert not any(b"s3cr3t" in event.payload for event in events)
    assert b"s3cr3t" not in bytes(row.input) + bytes(row.output)
    row, events = await migrate("crm", "gone")
    assert "the configuration has no connection 'gone' ([connections.gone]); there are: crm, new" in row.error.message
    connections.configure({"crm": secret.replace(":" + str(databases.server.port), ":1")})
    with pytest.raises(Unavailable) as caught:
        inspect(msgspec.convert({"source": "crm", "target": in_postgres(empty)}, Request))
    assert "s3cr3t" not in str(caught.value)


# ---- chunks and their fence


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_killed_at_every_chunk_it_goes_on_exactly_once(databases, everything, empty, monkeypatch, when):
    load = Loaded(in_postgres(everything), in_postgres(empty), load={"chunk_rows": 40})
    advance, within = target_module.fence.advance, target_module.within

    async def dying(session, chunk, copied):
        await advance(session, chunk, copied)
        raise Killed

    def dying_later(*arguments, **options):
        within(*arguments, **options)
        raise Killed

    def sums():
        return rows_of(databases, "SELECT sum(rows), sum(chunks) FROM _jivsd_fence")

    def copy(chunk):
        before = sums()
        with monkeypatch.context() as patch:
            if when == "before the commit":
                patch.setattr(target_module.fence, "advance", dying)
            else:
                patch.setattr(target_module, "within", dying_later)
            with pytest.raises(Killed):
                load.copy(chunk)
        assert (sums() == before) == (when == "before the commit")
        copied = load.copy(chunk)
        after = sums()
        assert load.copy(chunk) == copied, "a further attempt finds what is committed"
        assert sums() == after
        return copied

    load.run(copy)
    load.end()
    assert dump(databases, "migrated") == dump(databases, "source")


def test_a_session_that_is_ended_in_the_middle_of_a_chunk_leaves_nothing_of_it(databases, everything, empty):
    load = Loaded(in_postgres(everything), in_postgres(empty), tables=["Every Thing"], load={"chunk_rows": 50})
    end = "BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END"
    databases.sql(
        f"CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$ {end} $$",
        'CREATE TRIGGER dies BEFORE INSERT ON "Every Thing" FOR EACH ROW WHEN (new.id = 70) EXECUTE FUNCTION dies()',
        "SELECT 1",
        database="migrated",
    )
    chunks = load.chunks()
    second = chunks.send(load.copy(next(chunks)))
    with pytest.raises(Unavailable):
        load.copy(second)
    assert rows_of(databases, 'SELECT count(*), max(id) FROM "Every Thing"') == [(50, 50)]
    databases.sql("DROP FUNCTION dies CASCADE", "SELECT 1", database="migrated")
    load.copy(second)
    assert rows_of(databases, 'SELECT count(*), max(id) FROM "Every Thing"') == [(100, 100)]


def test_a_stale_owner_writes_nothing_and_a_later_run_goes_on(databases, everything, empty):
    old = Loaded(in_postgres(everything), in_postgres(empty), load={"chunk_rows": 40}, run="old")
    chunk = next(old.chunks())
    old.copy(chunk)
    new = Loaded(in_postgres(everything), in_postgres(empty), load={"chunk_rows": 30}, run="new")
    assert (old.epoch, new.epoch, new.survey.taken_over) == (1, 2, True)
    assert sum(state.rows for state in new.claimed.parts) > 0
    before = dump(databases, "migrated")
    for stale in (
        lambda: old.copy(chunk),
        lambda: build_index(context(), old.job, old.epoch, "every_day"),
        lambda: complete_schema(context(), old.job, old.epoch, ["branch"]),
        lambda: finish(context(), old.job, old.epoch),
    ):
        with pytest.raises(Fenced, match=r"run new has taken over the target \(epoch 2\)"):
            stale()
    assert dump(databases, "migrated") == before
    new.run()
    new.end()
    assert dump(databases, "migrated") == dump(databases, "source")


def test_a_node_that_the_run_has_left_writes_nothing(databases, everything, empty):
    load = Loaded(in_postgres(everything), in_postgres(empty), load={"chunk_rows": 10})
    job, epoch = load.job, load.epoch
    chunks = load.chunks()
    second = chunks.send(load.copy(next(chunks)))
    third = chunks.send(copy_chunk(context(fence=3), job, epoch, second))  # the run goes on elsewhere
    before = dump(databases, "migrated"), rows_of(databases, "SELECT * FROM _jivsd_fence")
    for stale in (
        lambda: copy_chunk(context(fence=2), job, epoch, third),
        lambda: build_index(context(fence=2), job, epoch, "every_day"),
        lambda: complete_schema(context(fence=2), job, epoch, ["branch"]),
        lambda: finish(context(fence=2), job, epoch),
        lambda: claim(context("run-1", "run-1/claim", fence=2), job, []),
    ):
        with pytest.raises(Unavailable, match=r"the run has gone on elsewhere \(fence 3\); this attempt, of fence 2"):
            stale()
    assert (dump(databases, "migrated"), rows_of(databases, "SELECT * FROM _jivsd_fence")) == before
    assert claim(context("run-1", "run-1/claim", fence=4), job, []).epoch == epoch
    with pytest.raises(Unavailable, match="fence 4"):
        copy_chunk(context(fence=3), job, epoch, third)


def test_a_node_that_stands_still_in_the_middle_of_a_chunk_is_not_waited_for(databases, everything, empty, monkeypatch):
    load = Loaded(in_postgres(everything), in_postgres(empty), tables=["keyless"], load={"chunk_rows": 20})
    chunk = next(load.chunks())
    advance, elsewhere = target_module.fence.advance, []

    async def late(session, chunk, copied):
        with monkeypatch.context() as patch:
            patch.setattr(target_module.fence, "advance", advance)
            with ThreadPoolExecutor(1) as other:
                attempt = other.submit(copy_chunk, context(fence=2), load.job, load.epoch, chunk)
                elsewhere.append(await asyncio.wrap_future(attempt))
        await advance(session, chunk, copied)

    monkeypatch.setattr(target_module.fence, "advance", late)
    with pytest.raises(Unavailable):
        load.copy(chunk)
    (copied,) = elsewhere
    assert copied.rows == 20
    assert rows_of(databases, "SELECT count(*) FROM keyless") == [(20,)]
    assert rows_of(databases, "SELECT chunks, fence FROM _jivsd_fence") == [(1, 2)]


def test_a_node_that_stands_still_while_it_makes_the_tables_is_not_waited_for(
    databases, everything, empty, monkeypatch
):
    source, target = in_postgres(everything), in_postgres(empty)
    survey = inspect(msgspec.convert({"source": source, "target": target, "tables": ["keyless"]}, Request))
    parts = measure(survey.job.source, survey.pairs[0].source, 1, 100).parts
    make, elsewhere = target_module.fence.make, []

    async def late(session, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(target_module.fence, "make", make)
            with ThreadPoolExecutor(1) as other:
                attempt = other.submit(claim, context("run", "run/claim", fence=2), survey.job, parts)
                elsewhere.append(await asyncio.wrap_future(attempt))
        await make(session, *arguments)

    monkeypatch.setattr(target_module.fence, "make", late)
    with pytest.raises(Unavailable):
        claim(context("run", "run/claim", fence=1), survey.job, parts)
    assert elsewhere[0].epoch == 1
    assert rows_of(databases, "SELECT run, epoch, fence FROM _jivsd_fence") == [("run", 1, 2)]


def test_what_another_node_has_finished_meanwhile_is_finished(databases, everything, empty, monkeypatch):
    load = Loaded(in_postgres(everything), in_postgres(empty), tables=["keyless"])
    load.run()
    look = target_module.fence._look

    async def late(session, right):
        await look(session, right)
        await session.execute("COMMIT")  # nothing keeps others away just yet
        await session.execute("DROP TABLE _jivsd_fence")
        await session.execute("BEGIN")

    monkeypatch.setattr(target_module.fence, "_look", late)
    finish(context(), load.job, load.epoch)
    monkeypatch.undo()
    finish(context(fence=2), load.job, load.epoch)
    with pytest.raises(Fenced, match="has no fence any more: it was finished"):
        complete_schema(context(fence=2), load.job, load.epoch, ["keyless"])


# ---- what cannot be done


def refused(source, target, **more):
    with pytest.raises((MigrationError, PlanRefused)) as caught:
        Loaded(source, target, **more).run()
    return str(caught.value)


def test_refusals_say_what_would_be_right(tmp_path, databases, everything, empty):
    path = make(tmp_path / "a.db", "CREATE TABLE t (a TEXT)", [("t", [("a\0b",)])])
    file, there, target = url(path), in_postgres(everything), in_postgres(empty)
    assert "from postgresql only a postgresql target" in refused(there, file)
    assert "type DATA_ONLY is for sqlite targets" in refused(file, target, type="DATA_ONLY")
    assert "is not empty: it has type 'mood'; give a database or a schema with nothing in it" in refused(file, there)
    assert 'database "nowhere" does not exist' in refused(in_postgres(databases.server.url("nowhere")), target)
    assert "a text with a NUL character, which PostgreSQL cannot hold" in refused(file, target)
    databases.sql("CREATE TABLE p (a int) PARTITION BY RANGE (a)", "SELECT 1", database="source")
    assert "table 'p' is partitioned, or inherits; these are not supported; leave it out" in refused(there, target)


def test_a_password_in_an_input_is_refused():
    for address in ("postgresql://ann:pw@host/db", "postgresql://ann@host/db?password=pw"):
        with pytest.raises(ValueError, match=r"put it into the configuration, under \[connections.NAME\]") as caught:
            Endpoint("postgresql", address)
        assert "pw" not in str(caught.value).replace("password", "")


def test_calls_for_drivers_of_asyncio_end_in_time():
    async def forever():
        await asyncio_calls.asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio_calls.run(forever, timeout=0.01)
    assert asyncio_calls.run(lambda: asyncio_calls.asyncio.sleep(0, "done"), timeout=5) == "done"
