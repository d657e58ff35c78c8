"""Following events with the client, while the daemon is killed and started again."""

from __future__ import annotations

import pytest
import trio

from jivsd.client import Client, ClientError, DaemonNotRunning
from jivsd.engine.api import StartOptions
from jivsd.feedclient import Wanted
from jivsd.proof.daemons import Daemon

PLUGIN = """
from jivsd import Context, StepContext, step, workflow

@step()
async def add(ctx: StepContext, number: int) -> int:
    return number + 1

@workflow("adds")
async def adds(ctx: Context, many: int) -> int:
    total = 0
    for _ in range(many):
        total = await ctx.step(add, total)
    return total
"""


async def test_nothing_is_missed_and_nothing_comes_twice(tmp_path):
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "adds.py").write_text(PLUGIN)
    daemon = Daemon(tmp_path / "data", tmp_path / "log", ["--plugins", str(tmp_path / "plugins")])
    told, seen = [], []

    async def start(numbers):
        async with Client.connect(daemon.data_dir) as client:
            for number in numbers:
                await client.start("adds", 20, StartOptions(id=f"r{number}"))

    async with Client.connect(daemon.data_dir) as client:
        with pytest.raises(DaemonNotRunning, match="start one with"):
            async with client.follow(patience=0) as events:
                assert [event async for event in events] == []
        await daemon.start()
        try:
            async with client.follow("oldest", away=told.append) as events, trio.open_nursery() as nursery:
                await start(range(10))
                await daemon.kill()
                await daemon.start()
                nursery.start_soon(start, range(10, 20))
                with trio.fail_after(30):
                    async for event in events:
                        seen.append(event)
                        if sum(event.kind == "Ended" for event in seen) == 20:
                            break
        finally:
            await daemon.aclose()
    keys = [(event.run_id, event.seq) for event in seen]
    assert len(keys) == len(set(keys))
    for number in range(20):
        seqs = [event.seq for event in seen if event.id == f"r{number}"]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= 22
    assert None in told


async def test_what_the_daemon_refuses(tmp_path):
    daemon = Daemon(tmp_path / "data", tmp_path / "log")
    await daemon.start()
    try:
        async with Client.connect(daemon.data_dir) as client:
            for after, wanted, says in (
                ("x.1", Wanted(), "no cursor"),
                (None, Wanted(kinds=["No"]), "kind"),
            ):
                with pytest.raises(ClientError, match=says):
                    async with client.follow(after, wanted) as events:
                        await anext(events)
    finally:
        await daemon.aclose()
