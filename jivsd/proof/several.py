"""What sharing costs: how fast two daemons are together beside one, and what a node with nothing to do costs another.

    python -m jivsd.proof.several [--runs 1000] [--rounds 5]

Everything is private: PostgreSQL, Redis, two daemons, on this machine. What is compared is measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import trio

from jivsd.client import Client
from jivsd.proof import load, redisserver
from jivsd.proof.daemons import Daemon, start_runs
from jivsd.proof.pgserver import VERSIONS, Server
from jivsd.proof.together import completed, until_completed, until_shared

STEPS: Final = 10
"""Steps of each run."""
WARM_UP: Final = 200
"""Runs before anything is measured."""


class Measured:
    """Steps per second, by what there was: one node, two that share the work, two of which one has nothing to do."""

    def __init__(self) -> None:
        self.one: list[float] = []
        self.two: list[float] = []
        self.beside_idle: list[float] = []

    def report(self) -> str:
        """What is to be said of it."""
        one = statistics.median(self.one)
        lines = [f"one node                     {one:8,.0f} steps/s"]
        for name, found in (("two nodes", self.two), ("one, beside an idle one", self.beside_idle)):
            median = statistics.median(found)
            lines.append(f"{name:27}  {median:8,.0f} steps/s  {median / one:.0%} of that")
        return "\n".join(lines)


async def measure(runs: int, rounds: int) -> Measured:
    """Measure in turns: one node alone, then two."""
    found = Measured()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jivsd-several-")))
        postgres = stack.enter_context(Server(max(VERSIONS), durable=True))
        redis = stack.enter_context(redisserver.Server())
        settings = {"JIVSD_STORE": postgres.url(), "JIVSD_REDIS": redis.url, "JIVSD_LIMITS__ACTIVE_RUNS": str(2 * runs)}
        nodes = [
            Daemon(
                folder / name,
                folder / f"{name}.log",
                ["--plugins", load.__file__, "--log-level", "warning"],
                {**settings, "JIVSD_NODE": name},
            )
            for name in ("a", "b")
        ]
        for node in nodes:
            stack.push_async_callback(node.aclose)
        a, b = nodes
        await a.start()
        await speed([a], WARM_UP)
        for _ in range(rounds):
            found.one.append(await speed([a], runs))
            await b.start()
            await _until_shared(a, 2)
            await speed([b], WARM_UP)
            found.beside_idle.append(await speed([a], runs))
            found.two.append(await speed([a, b], runs))
            await b.stop()
            await _until_shared(a, 1)
    return found


async def speed(nodes: list[Daemon], runs: int) -> float:
    """Start so many runs, each node its part of them, and return how many steps a second there were."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.connect(node.data_dir, by="bench")) for node in nodes]
        before = await completed(clients[0])
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(start_runs, client, "bench", STEPS, runs // len(clients))
        await until_completed(clients[0], before + runs // len(clients) * len(clients))
        return runs * STEPS / (time.perf_counter() - began)


async def _until_shared(node: Daemon, count: int) -> None:
    async with Client.connect(node.data_dir, by="bench") as client:
        await until_shared(client, count)


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description="What sharing costs: two daemons beside one.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    sys.stdout.write(trio.run(partial(measure, asked.runs, asked.rounds)).report() + "\n")


if __name__ == "__main__":
    main()
