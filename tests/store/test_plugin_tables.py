"""A plugin's own tables."""

import pytest
import trio
from databases import NEWEST

from jivsd.store.api import StoreError
from jivsd.store.plugin_tables import Migration
from jivsd.store.postgres import PostgresStore
from jivsd.store.sqlite import SqliteStore

FIRST = Migration(1, "shelf", "CREATE TABLE shelf (item TEXT); INSERT INTO shelf VALUES ('book');")
SECOND = Migration(2, "count", "ALTER TABLE shelf ADD COLUMN count INTEGER NOT NULL DEFAULT 1;")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jivsd.db"


async def migrate(path, *migrations, plugin="shop"):
    async with SqliteStore(path) as store:
        await store.open("node")
        await store.migrate_plugin(plugin, {"sqlite": list(migrations), "postgres": [Migration(1, "no", "nonsense")]})
        return await store._read(lambda db: db.execute("SELECT * FROM shelf").fetchall())


async def test_each_migration_is_applied_once(path):
    assert await migrate(path, FIRST) == [("book",)]
    assert await migrate(path, FIRST, SECOND) == [("book", 1)]
    assert await migrate(path, FIRST, SECOND) == [("book", 1)]


async def test_a_changed_text_is_refused(path):
    await migrate(path, FIRST)
    with pytest.raises(StoreError, match="0001_shelf of plugin 'shop' was applied with another text"):
        await migrate(path, FIRST._replace(sql="CREATE TABLE shelf (other TEXT)"))


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE box (a); CREATE NONSENSE", "near .*NONSENSE.*: syntax error"),
        ("CREATE TABLE box (a); DROP TABLE event", "may not touch jivsd's own 'event'"),
        ("CREATE TABLE box (a); COMMIT", "may not use BEGIN, COMMIT or ROLLBACK"),
    ],
)
async def test_one_that_fails_leaves_nothing_behind(path, sql, why):
    await migrate(path, FIRST)
    with pytest.raises(StoreError, match=f"0002_bad of plugin 'shop' failed: .*{why}"):
        await migrate(path, FIRST, Migration(2, "bad", sql))
    async with SqliteStore(path) as store:
        await store.open("node")
        assert (
            await store._read(lambda db: db.execute("SELECT name FROM sqlite_schema WHERE name = 'box'").fetchall())
            == []
        )
    assert await migrate(path, FIRST, SECOND) == [("book", 1)]


async def test_nodes_that_start_together_apply_each_migration_once(postgres):
    url = postgres(NEWEST).clean()
    slow = [
        Migration(1, "shelf", "SELECT pg_sleep(0.1); CREATE TABLE public.shelf (item text)"),
        Migration(2, "book", "INSERT INTO public.shelf VALUES ('book')"),
    ]
    found = []

    async def start(number):
        async with PostgresStore(url) as store:
            await store.open(f"node-{number}", share=True)
            await store.migrate_plugin("shop", {"postgres": slow})
            found.append(await store._read(lambda db: db.fetch("SELECT item FROM public.shelf")))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(start, number)
    assert [[item for (item,) in rows] for rows in found] == [["book"]] * 4


async def test_two_nodes_with_different_texts(postgres):
    url = postgres(NEWEST).clean()
    refused = []

    async def start(number):
        async with PostgresStore(url) as store:
            await store.open(f"node-{number}", share=True)
            text = f"SELECT pg_sleep(0.1); CREATE TABLE public.shelf{number} (item text)"
            try:
                await store.migrate_plugin("shop", {"postgres": [Migration(1, "shelf", text)]})
            except StoreError as error:
                refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(start, number)
    (said,) = refused
    assert "applied with another text" in said
