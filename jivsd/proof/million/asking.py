"""Asking a daemon: one request after the other on one connection, each timed, by the clock and by processors."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.proof.daemons import READY_WITHIN, DaemonFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NANOSECONDS: Final = 1_000_000


class Question(msgspec.Struct, frozen=True):
    """A request. `page`: the page of the dashboard that makes it; or none: somebody's list."""

    what: str
    path: str
    body: Any = None
    page: str = ""


class Look(msgspec.Struct, frozen=True):
    """What an answer took: milliseconds, the median and the longest; how long processors worked for it, on average;
    and its bytes."""

    what: str
    page: str
    ms: float
    worst_ms: float
    cpu_ms: float
    bytes: int


class Asker(HTTPConnection):
    """A connection to the socket of a daemon. It waits for its answers, and so does everything else here meanwhile."""

    def __init__(self, path: Path, processes: Callable[[], Iterable[int]]) -> None:
        """Prepare.

        Args:
            path: of the socket.
            processes: those of the daemon and of its database.
        """
        super().__init__("jivsd", timeout=READY_WITHIN)
        self._path = path
        self._processes = processes

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def ask(self, path: str, body: Any = None) -> bytes:
        """Get a path, or post JSON to it.

        Raises:
            DaemonFailed: it refuses.
        """
        sent = None if body is None else msgspec.json.encode(body)
        self.request("GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        if answer.status not in (200, 202):
            raise DaemonFailed(f"{path} was answered with {answer.status}: {text[:500].decode()}")
        return text

    def json(self, path: str, body: Any = None) -> Any:
        """The same, read."""
        return msgspec.json.decode(self.ask(path, body))

    def look(self, question: Question, times: int) -> Look:
        """Ask so many times, after a first time that does not count."""
        size = len(self.ask(question.path, question.body))
        took: list[float] = []
        worked = worked_ms(self._processes())
        for _ in range(times):
            began = time.perf_counter()
            self.ask(question.path, question.body)
            took.append((time.perf_counter() - began) * 1000)
        worked = (worked_ms(self._processes()) - worked) / times
        figures = round(median(took), 2), round(max(took), 2), round(worked, 2)
        return Look(question.what, question.page, *figures, size)


def worked_ms(processes: Iterable[int]) -> float:
    """How many milliseconds processors have worked for some processes, all their threads together."""
    total = 0
    for process in processes:
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{process}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / NANOSECONDS


def rss_mb(process: int) -> float:
    """How much memory a process has, in megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1000, 1)
    return 0.0
