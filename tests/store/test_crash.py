"""Kill -9 at any moment: what was acknowledged is there, whole, and nothing else is by halves."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from jivsd.store.sqlite import SqliteStore

WRITER = """
import sys, trio
from functools import partial
sys.path.insert(0, sys.argv[2])
from store.builders import append, end, new_run, start
from jivsd.journal import Committer
from jivsd.store.api import Written
from jivsd.store.sqlite import SqliteStore

async def live(committer, life):
    while True:
        run = new_run(lock_key=f"k{life}")
        seq = 1
        entries = [start(run), *(append(run, seq, seq + 1) for seq in range(2, 12, 2)), end(run, 12)]
        for entry in entries:
            assert await committer.submit_and_wait(entry) == Written()
            print(run.run_id, entry.events[-1].seq, flush=True)

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        committer = Committer(store, node="node-a", epoch=await store.open("node-a"), cap=lambda: 7)
        async with trio.open_nursery() as nursery:
            await nursery.start(committer.run)
            for life in range(20):
                nursery.start_soon(live, committer, life)

trio.run(main)
"""


@pytest.mark.slow
def test_every_acknowledged_event_survives_kills(tmp_path):
    path = tmp_path / "jivsd.db"
    chance = random.Random(7)
    acknowledged: dict[str, int] = {}
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
            first = writer.stdout.readline()
            assert first, writer.stderr.read()
            time.sleep(chance.random() * 0.3)  # the moment of the kill, not a wait for anything
            writer.kill()
            lines = [first, *writer.stdout]
        for line in lines:
            if line.endswith("\n"):
                run_id, seq = line.split()
                acknowledged[run_id] = max(int(seq), acknowledged.get(run_id, 0))
        trio.run(check, path, acknowledged)
    assert len(acknowledged) > 20 * 6


async def check(path, acknowledged):
    async with SqliteStore(path, read_only=True) as store:
        await store.open("node-b")
        assert await store.check() == []
        for run_id, seq in acknowledged.items():
            events = await store.events(run_id)
            assert len(events) >= seq
            assert len(events) in (1, 3, 5, 7, 9, 11, 12), "an entry of two events is there whole or not at all"
            run = await store.run(run_id)
            assert (run.ended_at is not None) == (len(events) == 12), "the row and the events of an end go together"
        holders = {holder.run_id for holder in await store.lock_queue()}
        opened = {run.run_id for run in await store.open_runs(None, 10_000)}
        assert holders == opened
