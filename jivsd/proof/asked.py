"""How long one request takes a program: a run of one step is started through the socket of a real daemon, and its
result comes back in the same answer.

The program is Python's own HTTP client: it is the daemon that is measured, and not a client library.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final

import trio

from jivsd.places import socket_path
from jivsd.proof.daemons import READY_WITHIN, DaemonFailed, loaded_daemon
from jivsd.proof.drive import drive

if TYPE_CHECKING:
    from pathlib import Path

WARM_UP: Final = 50
"""Requests before those that count."""
REQUESTS: Final = 300
"""Requests that count."""
ONE_STEP: Final = json.dumps({"workflow": "bench", "input": 1})


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
    async with loaded_daemon(store) as daemon:
        with closing(_Program(socket_path(daemon.data_dir))) as program:
            took = await drive(range(WARM_UP + requests), lambda _: program.one_run(), 1)
    return took[WARM_UP:]


class _Program(HTTPConnection):
    """A connection to a Unix socket. It waits for its answer, and so does everything else here meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__("jivsd", timeout=READY_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    async def one_run(self) -> None:
        """Raises DaemonFailed when the run does not end well."""
        await trio.lowlevel.checkpoint()
        self.request("POST", "/api/v1/runs?wait=60s", ONE_STEP, {"Content-Type": "application/json"})
        answer = self.getresponse()
        body = answer.read()
        if answer.status != 200 or b'"COMPLETED"' not in body:
            raise DaemonFailed(f"a run of one step was answered with {answer.status}: {body[:500].decode()}")
