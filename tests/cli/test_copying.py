"""Moving house with a real daemon: stopped, copied, started on the other database, and back."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from itertools import count
from types import SimpleNamespace
from uuid import uuid4

import asyncpg
import pytest
from conftest import COMMAND, Daemon
from databases import NEWEST

from jivsd.cli import database

PATIENCE = 30.0

SHOP = '''"""A plugin with a table of its own."""
from jivsd import Context, workflow

NAME = "shop"

@workflow("sell")
async def sell(ctx: Context) -> None:
    pass
'''
SHELF = "CREATE TABLE shelf (item text PRIMARY KEY, label {0})"


@pytest.fixture
def url(postgres):
    """The URL of a PostgreSQL database in which nothing is."""
    databases = postgres(NEWEST)
    name = f"house_{uuid4().hex}"
    databases.sql(f"CREATE DATABASE {name}")
    yield databases.server.url(name)
    databases.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def folder(tmp_path):
    """The data folder of a daemon, with a plugin that has a table."""
    shop = tmp_path / "d" / "plugins" / "shop"
    for dialect, kind in (("sqlite", "blob"), ("postgres", "bytea")):
        migrations = shop / "migrations" / dialect
        migrations.mkdir(parents=True)
        (migrations / "0001_shelf.sql").write_text(SHELF.format(kind))
    (shop / "__init__.py").write_text(SHOP)
    return tmp_path / "d"


@contextmanager
def running(folder, *arguments, kill=False):
    daemon = Daemon(folder, *arguments)
    try:
        yield
    finally:
        daemon.end(kill=kill)


@pytest.mark.slow
def test_a_daemon_that_was_killed_moves_into_postgresql_and_back(url, folder, tmp_path, run):
    place = ["--data-dir", folder]
    old, third = f"sqlite:///{folder}/jivsd.db", f"sqlite:///{tmp_path}/third.db"
    with running(folder, kill=True):
        run("start", "gate", "--id", "first", *place)
        run("start", "gate", "--id", "second", *place)
        later = run("start", "add-up", "--input", "3", "--delay", "2s", "--json", *place).json["run_id"]
        keyed = run("start", "add-up", "--input", "2", "--idempotency-key", "k", "--wait", "--json", *place).json
        run("start", "weigh", "--id", "stuck", *place)
        incident = _incident(run, place)
        refused = run("db", "copy", old, url)
        assert (refused.code, "is in use by another jivsd, process" in refused.err) == (5, True)
    with closing(sqlite3.connect(folder / "jivsd.db")) as db, db:
        db.execute("INSERT INTO shelf VALUES ('book', x'00ff')")
    copied = run("db", "copy", old, url, "--json").json
    assert (copied["tables"]["run"], copied["tables"]["shelf"], copied["target"]) == (5, 1, url)
    with running(folder, "--store", url):
        assert (
            run("start", "add-up", "--input", "2", "--idempotency-key", "k", "--json", *place).json["run_id"]
            == (keyed["run_id"])
        )
        run("signal", "gate:first", "approve", '"ann"', *place)
        assert run("wait", "gate:first", *place).code == 0
        assert run("wait", later, "--json", *place).json["output"] == 3
        assert _incident(run, place)["incident_id"] == incident["incident_id"]
    assert run("db", "copy", old, url).code == 5  # it is not empty any more
    back = run("db", "copy", url, third)
    assert (back.code, "and compared them" in back.out, "on the new database only" in back.err) == (0, True, True)
    with running(folder, "--store", third):
        run("signal", "gate:second", "approve", '"bob"', *place)
        assert run("wait", "gate:second", *place).code == 0
    assert "Nothing is wrong" in run("db", "check", "--store", third).out
    with closing(sqlite3.connect(tmp_path / "third.db")) as db:
        assert db.execute("SELECT * FROM shelf").fetchall() == [("book", b"\0\xff")]


def _incident(run, place):
    deadline = time.monotonic() + PATIENCE
    while not (found := run("incidents", "list", "--json", *place).json["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


@pytest.fixture
def house(tmp_path):
    """The URL of a database with something in each of some tables."""
    from jivsd.proof.fill import fill

    fill(tmp_path / "house.db", 50)
    with closing(sqlite3.connect(tmp_path / "house.db")) as db, db:
        columns = "number, incident_id, kind, message, at, path, details, state, history, acknowledged, fingerprint"
        db.execute(
            f"INSERT INTO incident ({columns}) VALUES (1, 'i', 'plugin', 'x', 1, '', '{{}}', 'OPEN', '[]', 0, '')"
        )
    return f"sqlite:///{tmp_path}/house.db"


def test_on_a_terminal_it_says_how_far_it_is_once_a_second(house, tmp_path, run, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=count(step=1).__next__))
    said = run("db", "copy", house, f"sqlite:///{tmp_path}/new.db").err.splitlines()
    assert said[0] == "checking"
    assert re.fullmatch(r"copying [\d,]+ of 6[\d,]+ rows", said[1])
    assert re.fullmatch(r"verifying (6\d\d) of \1 rows", said[-2])


@pytest.mark.slow
def test_killed_in_the_middle_it_has_written_nothing_into_postgresql(house, run, postgres):
    databases = postgres(NEWEST)
    name = databases.clone()
    url = databases.server.url(name)
    _kill_where_it_waits(url, [*COMMAND, "db", "copy", house, url])
    assert databases.sql("SELECT count(*) FROM jivsd.run", database=name)[0][0] == 0
    assert databases.sql("SELECT max(epoch) FROM jivsd.shard", database=name)[0][0] == 1  # of the template
    assert run("db", "copy", house, url).code == 0
    assert "Nothing is wrong" in run("db", "check", "--store", url).out


def _kill_where_it_waits(url, command):
    """Kill a copy when it cannot add its incidents, because somebody has locked their table."""
    waiting = "SELECT pid FROM pg_locks WHERE relation = 'jivsd.incident'::regclass AND NOT granted"
    alive = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jivsd copy'"
    with asyncio.Runner() as somebody:
        connection = somebody.run(asyncpg.connect(url))
        somebody.run(connection.execute("BEGIN; LOCK TABLE jivsd.incident IN SHARE MODE"))
        copying = subprocess.Popen(command)
        try:
            while somebody.run(connection.fetchval(waiting)) is None:
                assert copying.poll() is None
                time.sleep(0.01)
        finally:
            copying.kill()
            copying.wait(PATIENCE)
            somebody.run(connection.execute("ROLLBACK"))
        while somebody.run(connection.fetchval(alive)) is not None:  # PostgreSQL notices, and rolls back
            time.sleep(0.01)
        somebody.run(connection.close())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_it_has_made_no_file(house, tmp_path, run, number):
    target = tmp_path / "new.db"
    partial = tmp_path / "new.db.copying"
    copying = subprocess.Popen([*COMMAND, "db", "copy", house, f"sqlite:///{target}"])
    while not partial.exists():
        assert copying.poll() is None
        time.sleep(0.001)
    copying.send_signal(number)
    assert copying.wait(PATIENCE) == (130 if number is signal.SIGINT else -number)
    assert (target.exists(), partial.exists()) == (False, number is signal.SIGKILL)
    assert run("db", "copy", house, f"sqlite:///{target}").code == 0
    assert not partial.exists()
    assert "Nothing is wrong" in run("db", "check", "--store", f"sqlite:///{target}").out
