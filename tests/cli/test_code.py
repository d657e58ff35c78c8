"""Code that changes under a running daemon, from the command line."""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest
import trio
from conftest import COMMAND, Daemon

from jivsd.client import Client
from jivsd.engine.api import StartOptions

WAITING = """
    from jivsd import Context, workflow

    @workflow("{name}")
    async def waiting(ctx: Context) -> str:
        await ctx.wait_signal("go")
        return "{word}"
"""


@pytest.fixture
def plugin(daemon, jivsd):
    """Writes a plugin into the daemon's folder, and takes it away afterwards."""
    file = daemon.data_dir / "plugins" / "changing.py"

    def write(word: str | None) -> None:
        file.write_text("def" if word is None else dedent(WAITING).format(name="changing", word=word))

    yield write
    file.unlink()
    jivsd("plugins", "reload")


def change(reloaded):
    return {one["name"]: one["change"] for one in reloaded.json["plugins"]}["changing"]


@pytest.mark.slow
def test_plugins_are_loaded_again_by_command_and_by_sighup(plugin, daemon, jivsd):
    plugin("old")
    assert change(jivsd("plugins", "reload", "--json")) == "added"
    run = jivsd("start", "changing").out.strip()
    plugin("new")
    reloaded = jivsd("plugins", "reload")
    assert reloaded.code == 0
    assert [line.split()[:2] for line in reloaded.out.splitlines() if "changing" in line] == [["changing", "changed"]]
    assert "jivsd plugins adopt changing --dry-run" in reloaded.err
    shown = jivsd("plugins", "adopt", "changing", "--dry-run")
    assert (shown.code, shown.out.split(" code ")[0]) == (0, "1 run can be moved to")
    assert jivsd("plugins", "adopt", "changing", "--runs", "workflow=other,status=running").code == 0
    refused = jivsd("plugins", "adopt", "changing", "--runs", "colour=red")
    assert refused.code == 2
    assert "--runs: 'colour=red' is not a RUN, or workflow=W" in refused.err
    assert "there is no plugin 'nope'" in jivsd("plugins", "adopt", "nope").err
    plugin(None)
    refused = jivsd("plugins", "reload")
    assert refused.code == 1
    assert "changing.py, line 1): it is not valid Python" in refused.out
    assert change(jivsd("plugins", "reload", "--json")) == "kept"
    plugin("newest")
    daemon.hang_up()
    for started, word in ((run, "old"), (jivsd("start", "changing").out.strip(), "newest")):
        jivsd("signal", started, "go")
        assert jivsd("wait", started, "--json").json["output"] == word


ORDERS = """
    from jivsd import Context, step, workflow

    @step
    async def reserve(amount: int) -> int:
        return amount

    @step
    async def bill(amount: int) -> int:
        return amount

    @workflow("purchase")
    async def purchase(ctx: Context, number: int) -> str:
        await ctx.step(reserve, number if number % 2 else {reserved})
        paid = await ctx.wait_signal("paid", int)
        await ctx.step(bill, {billed})
        return "{word}"
"""
"""Orders with an odd number can be moved from one version to the other, those with an even number cannot."""
NUMBERS = range(100)


async def at_once(client, act, things):
    limiter = trio.CapacityLimiter(20)

    async def one(thing):
        async with limiter:
            await act(client, thing)

    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(one, thing)


async def start(client, number):
    await client.start("purchase", number, StartOptions(id=str(number)))


async def pay(client, number):
    await client.signal(f"purchase:{number}", "paid", number, message_id=f"paid-{number}")


def ask(folder, sql):
    """Ask the daemon's database, which can be read while it runs, and while it does not."""
    with closing(sqlite3.connect(folder / "jivsd.db")) as db:
        return db.execute(sql).fetchall()


def until(folder, sql, answer):
    deadline = time.monotonic() + 60
    while ask(folder, sql) != [(answer,)]:
        assert time.monotonic() < deadline, f"{sql}: {ask(folder, sql)}"
        time.sleep(0.02)


def talk(folder, act):
    async def connected():
        async with Client.connect(folder) as client:
            return await act(client)

    return trio.run(connected)


@pytest.mark.slow
def test_a_daemon_is_killed_while_it_moves_runs_and_all_of_them_end_well():
    """Each ends once, on the one code or the other: moved runs on the new, the others on their own."""
    with tempfile.TemporaryDirectory(prefix="jivsd-cli-") as name:
        folder = Path(name)
        daemon = Daemon(folder)
        try:
            file = folder / "plugins" / "orders.py"
            file.write_text(dedent(ORDERS).format(reserved=0, billed="paid", word="old"))
            jivsd = partial(_jivsd, folder)
            assert jivsd("plugins", "reload")[0] == 0
            talk(folder, lambda client: at_once(client, start, NUMBERS))
            file.write_text(dedent(ORDERS).format(reserved=1, billed="paid + 1", word="new"))
            assert jivsd("plugins", "reload")[0] == 0

            adopting = subprocess.Popen(
                [*COMMAND, "plugins", "adopt", "orders", "--data-dir", name], stdout=subprocess.DEVNULL, stderr=-3
            )
            until(folder, "SELECT count(*) > 5 FROM event WHERE kind = 'CodeChanged'", 1)
            daemon.end(kill=True)
            assert adopting.wait(30) in (1, 3)  # it had its answer, or not
            daemon = Daemon(folder)

            code, found = jivsd("plugins", "adopt", "orders")
            assert code == 1
            stays = [move for move in found["items"] if move["state"] == "stays"]
            assert (len(stays), stays[0]["path"]) == (50, "reserve")
            assert stays[0]["why"] == "the journal has StepDone for reserve, but the code does something else there"
            assert ask(folder, "SELECT count(*), count(DISTINCT run_id) FROM event WHERE kind = 'CodeChanged'") == [
                (50, 50)
            ]
            talk(folder, lambda client: at_once(client, pay, NUMBERS))
            daemon.end(kill=True)
            daemon = Daemon(folder)
            until(folder, "SELECT count(*) FROM run WHERE status = 'COMPLETED'", len(NUMBERS))
            found = Counter(ask(folder, "SELECT workflow_id % 2, output ->> '$' FROM run"))
            assert found == {(0, "old"): 50, (1, "new"): 50}
        finally:
            daemon.end()


def _jivsd(folder, *arguments):
    done = subprocess.run(
        [*COMMAND, *arguments, "--data-dir", str(folder), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, msgspec.json.decode(done.stdout or done.stderr)
