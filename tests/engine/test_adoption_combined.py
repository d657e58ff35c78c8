"""Runs that are moved to new code while something else goes on that people think of apart: quarantine, updates."""

from __future__ import annotations

import msgspec
import pytest

from engine.test_adoption import NEW, OLD, Plugin, settled, started
from jivsd.engine.api import Conflict
from jivsd.records import Status
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env

pytestmark = pytest.mark.jump

TALK = """
from jivsd import update

@step
async def fetch(what: str) -> str:
    await trio.sleep(10)
    return what

@workflow("talk")
class Talk:
    def __init__(self) -> None:
        self.open = False
        self.said: list[str] = []

    @signal
    def unlock(self) -> None:
        self.open = True

    @update
    async def ask(self, ctx: Context, what: str) -> str:
        found = await ctx.step(fetch, what)
        await ctx.wait_until(lambda: self.open)
        self.said.append(found)
        return f"{found} old"

    async def run(self, ctx: Context) -> list:
        await ctx.wait_until(lambda: len(self.said) == 2)
        return self.said
"""


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    return Plugin(folder)


async def sent(env, run):
    updated = await env.engine.update(run, "ask", msgspec.json.encode("x"), message_id="x", wait=0, by="ann")
    assert not updated.answered


@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_a_run_at_rest_in_quarantine_is_moved_and_stays_at_rest_until_that_is_lifted(plugin, tmp_path, after):
    plugin.write(OLD)
    journal = str(tmp_path / "journal.db")
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False), passivate_after=after) as env:
        run = await started(env)
        held = await env.engine.quarantine_workflow("flow", by="ann", why="it charges twice")
        await env.sleep("1m")
        new = await plugin.change(env, NEW)
        assert {move.state for move in (await env.adopt("p", dry_run=True)).values()} == {"fits"}
        assert {move.state for move in (await env.adopt("p")).values()} == {"moved"}
        assert (await env.engine.incident(held.incident_id)).state == "OPEN"
        with pytest.raises(Conflict, match="is quarantined: it charges twice"):
            await env.start("flow")
        row = await env.show(run)
        assert row.code_hash == new
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        await env.sleep("1m")
        assert (await env.show(run)).status in (Status.BLOCKED, Status.WAITING)
        await env.signal(run, "go", "!")
        await env.sleep("1m")
        assert (await env.show(run)).status is Status.BLOCKED
        await env.engine.lift_quarantine("flow", by="ann", why="mended")
        assert await env.result(run) == [1, "!", 2, "new"]


async def test_a_quarantine_while_a_step_runs_lets_the_run_be_moved_once_that_has_ended(plugin):
    plugin.write(TALK)
    async with Env(plugin.folder) as env:
        run = await started(env, workflow="talk")
        await sent(env, run)
        await env.sleep("3s")
        await env.engine.quarantine_workflow("talk", by="ann")
        await plugin.change(env, TALK.replace("old", "new"))
        assert [move.state for move in (await env.adopt("p")).values()] in (["moved"], ["busy"])
        await env.sleep("1m")
        await env.adopt("p")
        await env.engine.lift_quarantine("talk", by="ann", why="mended")
        await env.signal(run, "unlock")
        assert await env.update(run, "ask", "x", message_id="x") == "x new"
        assert await env.update(run, "ask", "y") == "y new"
        assert await env.result(run) == ["x", "y"]


@pytest.mark.parametrize("seconds", [5, 60])
@pytest.mark.parametrize("after", ["0s", "10h"])
async def test_an_update_at_work_goes_on_with_the_new_code(plugin, seconds, after):
    plugin.write(TALK)
    async with Env(plugin.folder, passivate_after=after) as env:
        run = await started(env, workflow="talk")
        await sent(env, run)
        await env.sleep(seconds)  # its step is under way, or is done
        await plugin.change(env, TALK.replace("old", "new"))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.why) == ("moved", "")
        await env.signal(run, "unlock")
        assert await env.update(run, "ask", "x", message_id="x") == "x new"
        assert await env.update(run, "ask", "y") == "y new"
        assert await env.result(run) == ["x", "y"]


async def test_a_run_stays_whose_update_at_work_does_something_else_in_the_new_code(plugin):
    plugin.write(TALK)
    async with Env(plugin.folder) as env:
        run = await started(env, workflow="talk")
        await sent(env, run)
        await env.sleep("5s")
        await plugin.change(env, TALK.replace("fetch, what", "fetch, what * 2"))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path.rpartition("/")[2]) == ("stays", "fetch")
        await plugin.change(env, TALK.replace("@update\n    async def ask", "async def ask"))
        (move,) = (await env.adopt("p")).values()
        assert move.state == "stays"
        await env.signal(run, "unlock")
        assert await env.update(run, "ask", "x", message_id="x") == "x old"
        await settled()
        await env.terminate(run)
