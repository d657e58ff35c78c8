"""Whether those who follow the feed get all, once and in order, while the daemon is at work and is killed.

    python -m jivsd.proof.followed [--followers 20] [--runs 3000] [--kills 3] [--store postgresql]

Everything is private: a daemon, its database, and followers in a process of their own. Of each four followers one is
slow, and one goes away after some pages and comes back with its last cursor. In the end each must have seen every event
of the journal, those of each run in order and without a gap. Events per second count while the daemon is up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
import msgspec
import trio

from jivsd.client import Client
from jivsd.proof import load, pgserver
from jivsd.proof.daemons import Daemon, insist, start_runs
from jivsd.records import ENDED, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.admin.feedwire import FeedPage

STEPS: Final = 10
AT_ONCE: Final = 500
"""How many runs are started together."""
OPEN: Final = 1_000
"""More are started when so many are open."""
SLOW: Final = 0.02
"""Seconds that a slow follower rests after a page."""
PATIENCE: Final = 120.0
"""Seconds after the last run has ended until the last follower has seen that."""


class Seen(msgspec.Struct):
    """What one follower has seen: how many events, how often it has come back, what was wrong, and until when."""

    kind: str
    events: int = 0
    returns: int = 0
    wrong: list[str] = []
    until: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `seconds`: from the first start to the end of the last run; `down_s`: of those the ones in which
    the daemon was killed and started again. `events_per_s`: for each follower, in the others.
    """

    runs: int
    events: int
    kills: int
    seconds: float
    down_s: float
    events_per_s: int
    followers: list[Seen]
    good: bool


class _Follower:
    """One of those who follow."""

    def __init__(self, number: int, runs: int) -> None:
        self.seen = Seen(("quick", "slow", "quick", "leaving")[number % 4])
        self._open = runs
        self._chance = random.Random(number)
        self._last: dict[str, int] = {}
        self._after = "oldest"

    async def run(self, client: Client) -> None:
        """Follow until all has been seen."""
        while self._open:
            stay = self._chance.randrange(1, 20) if self.seen.kind == "leaving" else 1 << 60
            async with client.follow_pages(self._after) as pages:
                async for page in pages:
                    self._take(page)
                    stay -= 1
                    if stay == 0 or not self._open:
                        break
                    if self.seen.kind == "slow":
                        await trio.sleep(SLOW)
            self.seen.returns += 1

    def _take(self, page: FeedPage) -> None:
        for event in page.events:
            last = self._last.get(event.run_id, 0)
            if event.seq != last + 1 and len(self.seen.wrong) < 10:
                self.seen.wrong.append(f"run {event.run_id}: event {event.seq} came after {last}")
            self._last[event.run_id] = event.seq
            self._open -= event.kind is Kind.ENDED
        self.seen.events += len(page.events)
        self.seen.until = time.time()
        self._after = page.cursor


async def follow(data_dir: Path, followers: int, runs: int) -> list[Seen]:
    """Have so many follow until each has seen so many runs end, or is given up."""
    all_of_them = [_Follower(number, runs) for number in range(followers)]
    async with Client.connect(data_dir) as client:
        with trio.move_on_after(PATIENCE * 10):
            async with trio.open_nursery() as nursery:
                for one in all_of_them:
                    nursery.start_soon(one.run, client)
    return [one.seen for one in all_of_them]


async def campaign(folder: Path, *, followers: int, runs: int, kills: int, postgres: bool, seed: int) -> Outcome:
    """Have runs done while followers follow, and the daemon is killed so often."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        settings: dict[str, str] = {}
        count = partial(_count_in_file, folder / "data" / "jivsd.db")
        if postgres:
            server = stack.enter_context(pgserver.Server(durable=True))
            settings["JIVSD_STORE"] = server.url()
            count = partial(_count_in_server, server.url())
        options = ["--plugins", load.__file__, "--log-level", "error"]
        daemon = Daemon(folder / "data", folder / "log", options, settings)
        stack.push_async_callback(daemon.aclose)
        await daemon.start()
        command = [sys.executable, "-m", __spec__.name, "--follow", str(daemon.data_dir), str(followers)]
        process = await trio.lowlevel.open_process([*command, str(runs)], stdout=subprocess.PIPE)
        began, down = time.time(), 0.0
        marks = sorted(chance.sample(range(1, max(2, runs // AT_ONCE)), min(kills, max(1, runs // AT_ONCE - 1))))
        async with Client.connect(daemon.data_dir) as client:
            for number in range(0, runs, AT_ONCE):
                await start_runs(client, "bench", STEPS, min(AT_ONCE, runs - number))
                if number // AT_ONCE in marks:
                    killed = time.time()
                    await daemon.kill()
                    await daemon.start()
                    down += time.time() - killed
                while await _open(client) > OPEN:  # noqa: ASYNC110 -- another process
                    await trio.sleep(0.1)
            while await _open(client):  # noqa: ASYNC110 -- another process
                await trio.sleep(0.1)
        seconds = time.time() - began
        assert process.stdout is not None
        seen: list[Seen] = []
        with trio.move_on_after(PATIENCE):
            told = b"".join([bytes(part) async for part in process.stdout])
            seen = msgspec.json.decode(told, type=list[Seen])
        process.kill()
        await process.wait()
        return _outcome(runs, await trio.to_thread.run_sync(count), len(marks), seconds, down, seen)


def _count_in_file(path: Path) -> int:
    """How many events a journal has."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute("SELECT count(*) FROM event").fetchone()[0]


def _count_in_server(url: str) -> int:
    async def count() -> int:
        connection = await cast("Any", asyncpg).connect(url)
        try:
            return await connection.fetchval("SELECT count(*) FROM jivsd.event")
        finally:
            await connection.close()

    return asyncio.run(count())


async def _open(client: Client) -> int:
    """How many runs have not ended."""
    status = await insist(client.status)
    return sum(count for name, count in status.runs.items() if name not in ENDED)


def _outcome(runs: int, total: int, kills: int, seconds: float, down: float, seen: Sequence[Seen]) -> Outcome:
    good = bool(seen) and all(one.events == total and not one.wrong for one in seen)
    return Outcome(
        runs=runs,
        events=total,
        kills=kills,
        seconds=round(seconds, 1),
        down_s=round(down, 1),
        events_per_s=round(total / (seconds - down)),
        followers=list(seen),
        good=good,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if all was well."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.followed", description=__doc__)
    parser.add_argument("--followers", type=int, default=20)
    parser.add_argument("--runs", type=int, default=6_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--follow", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.follow:
        data_dir, followers, total = given.follow
        seen = trio.run(follow, Path(data_dir), int(followers), int(total))
        sys.stdout.write(msgspec.json.encode(seen).decode())
        return 0
    with tempfile.TemporaryDirectory(prefix="jivsd-followed-") as folder:
        work = partial(
            campaign,
            Path(folder),
            followers=given.followers,
            runs=given.runs,
            kills=given.kills,
            postgres=given.store == "postgresql",
            seed=given.seed,
        )
        outcome: Any = trio.run(work)
    text = msgspec.json.format(msgspec.json.encode(outcome), indent=2).decode()
    sys.stdout.write(f"{text}\n" if given.json else _words(outcome))
    return 0 if outcome.good else 1


def _words(outcome: Outcome) -> str:
    rate = f"{outcome.events:,} events, {outcome.events_per_s:,} a second, {outcome.kills} kills"
    lines = [f"{'good' if outcome.good else 'WRONG'}: {rate}, {len(outcome.followers)} followers"]
    lines += (
        f"  {one.kind}: {one.events:,} events, came back {one.returns} times {'; '.join(one.wrong)}".rstrip()
        for one in outcome.followers
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
