"""What a parked run costs: memory, and idle time of a core.

A real daemon parks them, and its process is what is looked at. It has had all the runs in memory before: what they
leave behind there counts too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from jivsd.client import Client
from jivsd.engine.housekeeping import QUIET, WAVE
from jivsd.proof.daemons import Daemon, emptied, loaded_daemon, start_runs

WARM_UP: Final = 500
"""How many runs are parked before the first look at the memory."""
WAIT: Final = "500ms"
"""How long a run waits in memory."""
LOOKS: Final = 4
"""How often the memory is looked at, while more and more are parked."""
IDLE: Final = 5.0
"""Seconds in which nothing happens."""


class Memory(msgspec.Struct, frozen=True):
    """The memory of the daemon with so many runs parked."""

    runs: int
    rss_bytes: int


class Parked(msgspec.Struct, frozen=True):
    """What parked runs cost. `memory`: with more and more of them; the growth is from the first to the last."""

    runs: int
    rss_bytes_per_run: float
    rss_growth_bytes: int
    idle_cpu_percent: float
    memory: list[Memory]


def measure(runs: int, *, store: str | None = None, idle: float = IDLE) -> Parked:
    """Park so many runs in a daemon.

    Args:
        runs: how many.
        store: the URL of the daemon's store; None: a file that is removed afterwards.
        idle: for how many seconds it is looked what the daemon takes of a core while nothing happens.

    Raises:
        DaemonFailed: the daemon did not start, or refused a run.
    """
    return trio.run(_measure, runs, store, idle)


async def _measure(runs: int, store: str | None, idle: float) -> Parked:
    async with loaded_daemon(store, {"JIVSD_LIMITS__PASSIVATE_AFTER": WAIT}) as daemon:
        async with Client.connect(daemon.data_dir, by="bench") as client:
            await start_runs(client, "parked", None, WARM_UP)
            memory = [await _memory(client, daemon, 0, WARM_UP)]
            parked = 0
            for look in range(1, LOOKS + 1):
                more = runs * look // LOOKS - parked
                parked += more
                await start_runs(client, "parked", None, more)
                memory.append(await _memory(client, daemon, parked, more))
        used = daemon.cpu_seconds()
        await trio.sleep(idle)
        percent = (daemon.cpu_seconds() - used) / idle * 100
    growth = memory[-1].rss_bytes - memory[0].rss_bytes
    return Parked(runs, round(growth / runs, 1), growth, round(percent, 3), memory)


async def _memory(client: Client, daemon: Daemon, parked: int, wave: int) -> Memory:
    """The memory of the daemon, once all runs have left it; and after so many, once it has been tidied up."""
    await emptied(client)
    if wave >= WAVE:
        await trio.sleep(3 * QUIET)
    return Memory(parked, resident(daemon))


def resident(daemon: Daemon) -> int:
    """Bytes of the process that are in memory."""
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(measure(int(sys.argv[1]))).decode())
