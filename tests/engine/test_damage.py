"""Runs that cannot be brought back: damaged journals, code that is gone or does not fit."""

from __future__ import annotations

import sys

import pytest
import trio

from engine import commands
from engine.test_supervision import Twice
from jivsd import Context, signal, workflow
from jivsd.engine.api import Conflict
from jivsd.records import IncidentState, Kind, Status
from jivsd.registry.registry import Registry
from jivsd.store.api import DamagedRow
from jivsd.store.postgres import PostgresStore
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@workflow("long")
async def long(ctx: Context, steps: int) -> int:
    for _ in range(steps):
        await ctx.step(commands.measure, "text")
        await ctx.sleep("1m")
    return steps


async def damage(env: Env, run: str, seq: int) -> None:
    if isinstance(env.store, PostgresStore):
        sql = "UPDATE jivsd.event SET payload = payload || '\\x20'::bytea WHERE run_id = $1 AND seq = $2"
        await env.store._write(lambda db: db.execute(sql, run, seq))  # pyright: ignore
        return

    def spoil(db):
        db.execute(
            "UPDATE event SET payload = CAST(CAST(payload AS TEXT) || ' ' AS BLOB) WHERE run_id = ? AND seq = ?",
            (run, seq),
        )

    await env.store._write(spoil)  # pyright: ignore


@pytest.mark.parametrize("seq", [1, 3, 5])
async def test_a_damaged_event_is_found_and_never_replayed(seq):
    commands.fresh_world()
    async with Env(here) as env:
        run = await env.start("long", 5)
        other = await env.start("long", 5)
        await trio.sleep(150)
        assert len(await env.events(run)) == 6
        await damage(env, run, seq)
        executed = commands.world.executed.total()
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(10)
        row = await env.show(run)
        assert row.status is Status.BLOCKED
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "damage"
        assert f"event {seq} of run {run} is damaged" in incident.message
        assert commands.world.executed.total() == executed
        with pytest.raises(DamagedRow, match="its checksum does not match"):
            await env.engine.timeline(run)
        assert (await env.waits(run))[0].kind == "incident"
        await env.engine.retry_incident(incident.incident_id, by="ann", why="hopeful")
        await trio.sleep(1)
        assert (await env.show(run)).status is Status.BLOCKED
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED
        assert await env.result(other) == 5
        states = {one.state for one in (await env.engine.incidents(None, ref=run)).items}
        assert states == {IncidentState.RESOLVED}


async def test_code_that_is_gone_suspends_its_runs_until_it_is_back():
    commands.fresh_world()
    async with Env(here) as env:
        run = await env.start("long", 2)
        await trio.sleep(10)
        code, env.engine.code = env.engine.code, Registry()
        await env.store._write(lambda db: db.execute("DELETE FROM plugin_code"))  # pyright: ignore
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(10)
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "plugin"
        assert "cannot be loaded" in incident.message
        assert incident.details["code_hash"] == (await env.show(run)).code_hash
        with pytest.raises(Conflict, match=r"the code of run .* cannot be loaded"):
            await env.query(run, "x")
        await env.signal(run, "kept", 1)
        env.engine.code = code
        await env.engine.retry_incident(incident.incident_id, by="ann", why="put it back")
        assert await env.result(run) == 2
        kinds = [event.kind for event in await env.events(run)]
        assert kinds.count(Kind.SIGNAL) == 1


async def test_the_code_that_a_run_began_with_is_loaded_from_the_store(tmp_path):
    file = tmp_path / "lines.py"
    file.write_text(CODE.format(word="old"))
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    async with Env(file) as env:
        run = await env.start("lines", 2)
        await trio.sleep(1)
        file.write_text(CODE.format(word="new"))
        registry = Registry()
        registry.load([file], bundled=False, installed=False)
        await env.store.put_plugin(registry.plugins[0].stored)
        env.engine.code = registry
        file.unlink()
        env.engine.actors[run].fail(RuntimeError("planted"))
        newer = await env.start("lines", 1)
        assert await env.result(run) == "old old"
        assert await env.result(newer) == "new"


CODE = """
from jivsd import Context, signal, workflow

@workflow("lines")
async def lines(ctx: Context, count: int) -> str:
    words = []
    for _ in range(count):
        await ctx.sleep("1m")
        words.append("{word}")
    return " ".join(words)
"""


@workflow("fickle")
async def fickle(ctx: Context) -> int:
    """It does something else in a replay."""
    if paths:
        paths.pop()
        await ctx.step(commands.measure.options(name="first"), "text")
    else:
        await ctx.step(commands.measure.options(name="other"), "text")
    await ctx.sleep("1m")
    return 1


paths: list[int] = []


async def test_code_that_does_something_else_blocks_the_run_with_what_was_expected_and_found():
    commands.fresh_world()
    paths[:] = [1]
    async with Env(here) as env:
        run = await env.start("fickle")
        await trio.sleep(1)
        before = await env.events(run)
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(5)
        row = await env.show(run)
        assert row.status is Status.BLOCKED
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert (incident.kind, incident.details["at_path"]) == ("replay", "first")
        assert await env.events(run) == before  # nothing is overwritten, nothing added
        await env.signal(run, "kept", 1)
        await trio.sleep(1)
        paths[:] = [1]
        await env.engine.retry_incident(incident.incident_id, by="ann", why="the old code is back")
        assert await env.result(run) == 1
        assert [event.kind for event in await env.events(run)].count(Kind.SIGNAL) == 1


async def test_a_blocked_run_keeps_one_incident_over_crashes():
    commands.fresh_world()
    paths[:] = [1]
    async with Env(here) as env:
        run = await env.start("fickle")
        await trio.sleep(1)
        for _ in range(4):
            env.engine.actors[run].fail(RuntimeError("planted"))
            await trio.sleep(60)
        (incident,) = (await env.engine.incidents(None, ref=run)).items
        assert incident.kind == "replay"
        await env.cancel(run)  # accepted, and applied once the run can go on
        await trio.sleep(1)
        assert (await env.show(run)).status is Status.BLOCKED
        await env.terminate(run)
        assert (await env.ended(run)).status is Status.TERMINATED


@pytest.mark.embedded
async def test_a_damaged_row_of_a_run_keeps_no_other_from_being_recovered():
    commands.fresh_world()
    async with Twice(here) as env:
        runs = [await env.start("long", 2) for _ in range(3)]
        await trio.sleep(10)
        await env.engine.stop(0)
        await env.store._write(  # pyright: ignore
            lambda db: db.execute("UPDATE run SET status = 'NONSENSE' WHERE run_id = ?", (runs[1],))
        )
        await env.again()
        assert await env.result(runs[0]) == 2
        assert await env.result(runs[2]) == 2
        assert any(runs[1] in line for line in await env.store.check())


@workflow("blocks-beside")
class BlocksBeside:
    def __init__(self) -> None:
        self.mended = not paths

    @signal
    def word(self, text: str) -> None:
        if not self.mended:
            raise ValueError("not yet")

    async def run(self, ctx: Context) -> str:
        async with ctx.nursery() as nursery:
            nursery["nap"].start_soon(nap, ctx)
            nursery["step"].start_soon(commands.book, "room")
        return "both"


async def nap(ctx: Context) -> None:
    await ctx.sleep("10s")
    await ctx.step(commands.measure, "after")


async def test_a_blocked_run_records_what_runs_and_begins_nothing_until_it_is_mended():
    commands.fresh_world()
    paths[:] = [1]
    async with Env(here) as env:
        run = await env.start("blocks-beside")
        await env.signal(run, "word", "now")
        await trio.sleep(60)
        kinds = [event.kind for event in await env.events(run)]
        assert kinds == [Kind.STARTED, Kind.SIGNAL, Kind.STEP_DONE]
        (incident,) = (await env.engine.incidents(ref=run)).items
        paths.clear()
        await env.engine.retry_incident(incident.incident_id, by="ann", why="mended")
        assert await env.result(run) == "both"
        kinds = [event.kind for event in await env.events(run)]
        assert kinds[3:] == [Kind.TIMER_FIRED, Kind.STEP_DONE, Kind.ENDED]
        assert commands.world.executed.total() == 2
