"""The workflows that come with jivsd, crashed behind every append."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import trio

import plugins.migration
import plugins.showcase
from jivsd.records import Status
from jivsd.testing import crash_everywhere

pytestmark = pytest.mark.slow
SHOWCASE = Path(plugins.showcase.__file__).parent
"""By its path, not as a module: it brings tables of its own."""


def undated(text):
    """Without what depends on the disk and the clock, and the hashes of what has that in it."""
    return re.sub(r'"(free_bytes|args_hash|\w*seconds|\w*_at|\w*rate)":[^,}]*', "", text)


def url(path):
    return {"system": "sqlite", "url": f"sqlite:///{path}"}


@pytest.mark.parametrize("card", ["good", "flaky", "declined"])
def test_orders(card):
    async def scenario(env):
        run = await env.start("order", {"order": "A-1", "amount": 1250, "card": card}, id="A-1")
        row = await env.ended(run)
        assert row.status is (Status.COMPENSATED if card == "declined" else Status.COMPLETED)

    assert crash_everywhere([SHOWCASE], scenario) > 5


@pytest.mark.usefixtures("journals_in_postgres")
def test_an_order_with_its_journal_in_postgresql():
    test_orders("declined")


def test_a_campaign():
    async def scenario(env):
        run = await env.start("campaign", {"letters": 4, "at_once": 2}, id="spring")
        await trio.sleep(60)
        assert (await env.query(run, "progress"))["done"] == 4
        await env.signal("campaign:spring", "approve", "ann")
        assert await env.result(run) == "ann"

    assert crash_everywhere([SHOWCASE], scenario) > 10


def test_a_migration(tmp_path):
    source = tmp_path / "source.db"
    with sqlite3.connect(source) as db:
        db.executescript("""
            CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner, name TEXT);
            CREATE INDEX item_owner ON item (owner);
        """)
        db.executemany("INSERT INTO owner VALUES (?, ?)", [(n, f"owner {n}") for n in range(1, 6)])
        db.executemany("INSERT INTO item VALUES (?, ?, ?)", [(n, 1 + n % 5, f"item {n}") for n in range(1, 31)])
    db.close()
    target = tmp_path / "target.db"

    async def scenario(env):
        for old in tmp_path.glob("target.db*"):
            old.unlink()
        request = {"source": url(source), "target": url(target), "load": {"chunk_rows": 10}}
        run = await env.start("migration", request, id="m")
        summary = await env.result(run)
        assert summary["rows"] == 35
        with sqlite3.connect(target) as copy:
            assert copy.execute("SELECT count(*), sum(id) FROM item").fetchone() == (30, 465)
        copy.close()

    assert crash_everywhere([plugins.migration], scenario, normal=undated) > 10
