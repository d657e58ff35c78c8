"""Plugins that are loaded again: new runs get the new code, open runs stay on theirs, and nothing breaks halfway."""

from __future__ import annotations

from textwrap import dedent

import pytest

from jivsd.engine.api import NotFound
from jivsd.records import Status
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env

pytestmark = pytest.mark.jump

WAITING = """
    from jivsd import Context, workflow

    @workflow("waiting")
    async def waiting(ctx: Context) -> str:
        await ctx.wait_signal("go")
        return "{word}"
"""
FAMILY = """
    from jivsd import Context, workflow

    @workflow("child")
    async def child(ctx: Context) -> str:
        return "{word}"

    @workflow("parent")
    async def parent(ctx: Context) -> str:
        await ctx.wait_signal("go")
        return await ctx.run(child)
"""
PACKAGE = """
    from jivsd import Context, Transaction, step, workflow

    NAME = "shelf"

    @step
    async def put(tx: Transaction, book: str) -> None:
        await tx.execute("INSERT INTO {table} VALUES (?)", (book,))

    @workflow("shelve")
    async def shelve(ctx: Context, book: str) -> str:
        await ctx.step(put, book)
        return "{table}"
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str, **words: str) -> None:
        path = tmp_path / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).format(**words) if words else dedent(text))

    (tmp_path / "plugins").mkdir()
    return write


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plugins"


def changes(reloaded):
    return {one.name: one.change for one in reloaded.plugins}


async def open_incidents(env):
    return [one.message for one in (await env.engine.incidents()).items if one.kind == "plugin"]


async def test_new_runs_get_new_code_and_open_ones_keep_theirs_also_later_and_without_the_file(write, folder, tmp_path):
    write("w.py", WAITING, word="old")
    write("same.py", FAMILY, word="x")
    journal = str(tmp_path / "journal.db")
    async with Env(folder, store=SqliteStore(journal, threaded=False)) as env:
        first = await env.start("waiting", id="first")
        third = await env.start("waiting", id="third")
        write("w.py", WAITING, word="new")
        reloaded = await env.reload()
        assert changes(reloaded) == {"same": "unchanged", "w": "changed"}
        assert reloaded.problems == []
        (changed,) = [one for one in reloaded.plugins if one.change == "changed"]
        assert changed.was == (await env.show(first)).code_hash
        second = await env.start("waiting", id="second")
        assert (await env.show(second)).code_hash == changed.code_hash
        await env.signal(first, "go")
        assert await env.result(first) == "old"
    (folder / "w.py").unlink()
    async with Env(folder, store=SqliteStore(journal, threaded=False)) as env:
        for run in (second, third):
            await env.signal(run, "go")
        assert [await env.result(run) for run in (second, third)] == ["new", "old"]


async def test_code_that_does_not_load_keeps_the_old_until_it_does(write, folder):
    write("w.py", WAITING, word="old")
    async with Env(folder) as env:
        write("w.py", "def")
        reloaded = await env.reload()
        assert changes(reloaded) == {"w": "kept"}
        (problem,) = reloaded.problems
        assert problem == f"plugin 'w' ({folder}/w.py, line 1): it is not valid Python: invalid syntax"
        assert await open_incidents(env) == [problem]
        assert [one.problem for one in (await env.engine.status()).plugins] == [None, problem]
        run = await env.start("waiting")
        await env.signal(run, "go")
        assert await env.result(run) == "old"
        write("w.py", WAITING, word="new")
        assert changes(await env.reload()) == {"w": "changed"}
        assert await open_incidents(env) == []
        run = await env.start("waiting")
        await env.signal(run, "go")
        assert await env.result(run) == "new"


async def test_a_module_of_a_package_that_does_not_load_and_a_folder_that_cannot_be_read_keep_what_was_there(
    write, folder, monkeypatch
):
    write("p/__init__.py", "from .inner import waiting")
    write("p/inner.py", WAITING, word="old")
    async with Env(folder) as env:
        write("p/inner.py", WAITING + "\n    1 / 0\n", word="new")
        reloaded = await env.reload()
        assert changes(reloaded) == {"p": "kept"}
        assert "inner.py, line 9): ZeroDivisionError when it was imported: division by zero" in reloaded.problems[0]
        with monkeypatch.context() as patched:
            patched.setattr("pathlib.Path.iterdir", _unreadable)
            reloaded = await env.reload()
        assert changes(reloaded) == {"p": "kept"}
        assert reloaded.problems == [f"plugins in {folder}: cannot be read: Input/output error"]
        await env.start("waiting")


def _unreadable(path):
    raise OSError(5, "Input/output error")


async def test_a_plugin_that_is_gone_starts_nothing_new_and_its_open_runs_go_on(write, folder):
    write("f.py", FAMILY, word="old")
    write("w.py", WAITING, word="x")
    async with Env(folder) as env:
        run = await env.start("parent")
        (folder / "f.py").unlink()
        assert changes(await env.reload()) == {"f": "removed", "w": "unchanged"}
        with pytest.raises(NotFound) as refused:
            await env.start("parent")
        assert str(refused.value) == (
            f"there is no workflow 'parent' any more: plugin 'f' ({folder}/f.py) no longer has it; its open runs go on"
        )
        await env.signal(run, "go")
        assert await env.result(run) == "old"
        assert await open_incidents(env) == []
        write("f.py", FAMILY, word="back")
        assert changes(await env.reload()) == {"f": "added", "w": "unchanged"}
        await env.start("parent")


async def test_a_child_is_of_its_parents_version(write, folder):
    write("f.py", FAMILY, word="old")
    async with Env(folder) as env:
        run = await env.start("parent")
        write("f.py", FAMILY, word="new")
        await env.reload()
        await env.signal(run, "go")
        assert await env.result(run) == "old"


@pytest.mark.embedded
async def test_new_migrations_are_applied_and_one_that_fails_keeps_the_version_before(write, folder):
    write("shelf/__init__.py", PACKAGE, table="shelf_books")
    write("shelf/migrations/sqlite/0001_first.sql", "CREATE TABLE shelf_books (title TEXT);")
    async with Env(folder) as env:
        write("shelf/__init__.py", PACKAGE, table="shelf_more")
        write("shelf/migrations/sqlite/0002_more.sql", "CREATE TABLE shelf_books (title TEXT);")
        reloaded = await env.reload()
        assert changes(reloaded) == {"shelf": "kept"}
        assert "0002_more" in reloaded.problems[0]
        assert await open_incidents(env) == reloaded.problems
        assert await env.result(await env.start("shelve", "Emma")) == "shelf_books"
        write("shelf/migrations/sqlite/0002_more.sql", "CREATE TABLE shelf_more (title TEXT);")
        assert changes(await env.reload()) == {"shelf": "changed"}
        assert await env.result(await env.start("shelve", "Emma")) == "shelf_more"
        assert await open_incidents(env) == []


async def test_a_run_in_its_compensation_goes_on_with_its_own_code(write, folder):
    text = """
        from jivsd import NO_RETRY, Context, step, workflow

        @step
        async def do(what: str) -> str:
            return "{word}"

        @do.compensate(retry=NO_RETRY)
        async def undo(did: str | None, what: str) -> None:
            if "{word}" == "old":
                raise ValueError(did)

        @workflow("undoing")
        async def undoing(ctx: Context) -> None:
            await ctx.step(do, "this")
            await ctx.wait_signal("go")
            raise ValueError("{word}")
    """
    write("u.py", text, word="old")
    async with Env(folder) as env:
        run = await env.start("undoing")
        write("u.py", text, word="new")
        await env.reload()
        await env.signal(run, "go")
        await env.sleep("1m")
        assert (await env.show(run)).status is Status.COMPENSATION_BLOCKED
