"""How long one request takes a program: a run of one step is started through the socket of a real daemon, and its
result comes back in the same answer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import trio

from jivsd.client import Client
from jivsd.proof import load
from jivsd.proof.daemons import Daemon, DaemonFailed
from jivsd.proof.drive import drive
from jivsd.records import Status

WARM_UP: Final = 50
"""Requests before those that count."""
REQUESTS: Final = 300
"""Requests that count."""
PATIENCE: Final = "60s"
"""How long the daemon may take for one answer."""


def measure(requests: int = REQUESTS, *, store: str | None = None) -> list[float]:
    """Ask a daemon again and again, one request at a time; return how many milliseconds each answer took.

    Args:
        requests: how many.
        store: the URL of the daemon's store; None: a file that is removed afterwards.

    Raises:
        DaemonFailed: the daemon did not start, or a run did not end well.
    """
    return trio.run(_measure, requests, store)


async def _measure(requests: int, store: str | None) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="jivsd-asked-") as name:
        folder = Path(name)
        arguments = ["--plugins", load.__file__, "--log-level", "warning"]
        daemon = Daemon(
            folder / "state", folder / "daemon.log", arguments, {"JIVSD_STORE": store} if store is not None else {}
        )
        try:
            await daemon.start()
            async with Client.connect(daemon.data_dir, by="bench") as client:
                took = await drive(range(WARM_UP + requests), lambda _: _one_run(client), 1)
        finally:
            await daemon.aclose()
    return took[WARM_UP:]


async def _one_run(client: Client) -> None:
    run = (await client.start("bench", 1, wait=PATIENCE)).run
    if run.status is not Status.COMPLETED:
        raise DaemonFailed(f"run {run.run_id} of the bench is {run.status}")
