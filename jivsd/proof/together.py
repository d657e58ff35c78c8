"""What a host does with all its cores: several workers on one PostgreSQL database, as `jivsd run --workers` has them.

They are real daemons, asked through their sockets in bulk: what a client does for each run is not what is measured.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.client import Client
from jivsd.engine.api import Act
from jivsd.proof.daemons import ASK_AGAIN, DaemonFailed, emptied, insist, loaded_daemon, start_runs
from jivsd.workers import folders_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.proof.daemons import Daemon

TURNS: Final = 3
"""How often each is measured."""
WARM_UP: Final = 200
"""Runs that each worker has done before."""
WAIT: Final = "1ms"
"""How long a run waits in memory."""
_GO: Final = Act("signal", signal="go", payload=msgspec.Raw(b'"go"'))


class Together(msgspec.Struct, frozen=True):
    """What so many workers do together; `concurrency` is that of all, and so is `cpu_us_per_step`."""

    workers: int
    runs: int
    steps: int
    concurrency: int
    steps_per_s: float
    cpu_us_per_step: float
    signals_per_s: float


class _Turn(msgspec.Struct, frozen=True):
    seconds: float
    cpu: float


def measure(store: str, workers: int, *, runs: int, steps: int, concurrency: int, parked: int) -> Together:
    """Measure on an empty database; all are medians over the turns.

    Args:
        store: the URL of the PostgreSQL database.
        workers: how many processes there are: two or more.
        runs: how many runs each turn has, spread evenly over the workers.
        steps: how many steps each of them has.
        concurrency: how many are open at once, in all.
        parked: how many runs wait for a signal, which they all get at once; timed until all have ended.

    Raises:
        DaemonFailed: a worker did not start, or refused something.
    """
    return trio.run(_measure, store, workers, runs, steps, concurrency, parked)


async def _measure(store: str, workers: int, runs: int, steps: int, concurrency: int, parked: int) -> Together:
    each, waiting, at_once = (max(1, count // workers) for count in (runs, parked, concurrency))
    settings = {"JIVSD_LIMITS__ACTIVE_RUNS": str(at_once), "JIVSD_LIMITS__PASSIVATE_AFTER": WAIT}
    async with loaded_daemon(store, settings, workers=workers) as daemon, AsyncExitStack() as stack:
        folders = folders_of(daemon.data_dir, workers)
        clients = [await stack.enter_async_context(Client.connect(folder, by="bench")) for folder in folders]
        await until_shared(clients[0], workers)
        await _stepped(daemon, clients, WARM_UP, steps)
        stepped = [await _stepped(daemon, clients, each, steps) for _ in range(TURNS)]
        signalled = [await _signalled(clients, waiting) for _ in range(TURNS)]
    done = each * workers * steps
    return Together(
        workers=workers,
        runs=each * workers * TURNS,
        steps=steps,
        concurrency=at_once * workers,
        steps_per_s=round(median(done / turn.seconds for turn in stepped), 1),
        cpu_us_per_step=round(median(turn.cpu / done * 1e6 for turn in stepped), 1),
        signals_per_s=round(median(waiting * workers / seconds for seconds in signalled), 1),
    )


async def _stepped(daemon: Daemon, clients: Sequence[Client], each: int, steps: int) -> _Turn:
    """Have each worker start so many runs, and wait until all have ended."""
    before = await completed(clients[0])
    cpu, began = daemon.cpu_seconds(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(start_runs, client, "bench", steps, each)
    await until_completed(clients[0], before + each * len(clients))
    return _Turn(time.perf_counter() - began, daemon.cpu_seconds() - cpu)


async def _signalled(clients: Sequence[Client], each: int) -> float:
    """Have each worker park so many runs; return the seconds from the first signal to the end of the last run."""
    before = await completed(clients[0])
    parked = [await start_runs(client, "parked", None, each) for client in clients]
    for client in clients:
        await emptied(client)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for client, runs in zip(clients, parked, strict=True):
            nursery.start_soon(_signal, client, runs)
    await until_completed(clients[0], before + each * len(clients))
    return time.perf_counter() - began


async def _signal(client: Client, runs: Sequence[str]) -> None:
    refused = [one for one in await client.act_on(_GO, runs) if one.result != "done"]
    if refused:
        raise DaemonFailed(f"{len(refused)} of {len(runs)} signals were refused: {refused[0].why}")


async def completed(client: Client) -> int:
    """How many runs have been completed in the whole database."""
    return (await insist(client.status)).runs.get("COMPLETED", 0)


async def until_completed(client: Client, runs: int) -> None:
    """Return when so many runs have been completed."""
    while await completed(client) < runs:  # noqa: ASYNC110 -- another process tells nobody
        await trio.sleep(ASK_AGAIN)


async def until_shared(client: Client, nodes: int) -> None:
    """Return when so many nodes have shards, and each about as many as the others."""
    while True:
        owned = [len(one.owned) for one in await insist(client.nodes) if one.owned]
        if len(owned) == nodes and max(owned) - min(owned) <= 1:
            return
        await trio.sleep(ASK_AGAIN)
