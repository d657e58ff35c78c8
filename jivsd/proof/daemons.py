"""Daemons as real processes: started, killed, stopped, and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from jivsd.client import ClientError, DaemonNotRunning
from jivsd.engine.api import NewStart
from jivsd.places import socket_path
from jivsd.proof import load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from jivsd.client import Client

T = TypeVar("T")

LOOK_AGAIN: Final = 0.01
"""Seconds between two looks whether a starting daemon answers."""
READY_WITHIN: Final = 60.0
STOPPED_WITHIN: Final = 60.0
"""Seconds that a daemon may take to start and to stop, on the slowest of machines."""
ASK_AGAIN: Final = 0.05
"""Seconds before a daemon that did not answer is asked again."""
BULK: Final = 1000
"""How many runs are started with one call."""
LOOK_AT_MEMORY: Final = 0.1
"""Seconds between two looks whether all runs have left a daemon's memory."""
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds, as Linux counts the time of processes in /proc."""
LAST_LINES: Final = 5
"""How many lines of a failed daemon's log an error repeats."""


class DaemonFailed(Exception):
    """A daemon did not start, did not stop, or did not do what it should; the message has its last words."""


async def start_runs(client: Client, workflow: str, input: object, count: int) -> list[str]:
    """Start so many runs of a workflow, all with one input; return their ids.

    Raises:
        DaemonFailed: one was refused.
    """
    start = NewStart(workflow, msgspec.Raw(msgspec.json.encode(input)))
    started: list[str] = []
    for first in range(0, count, BULK):
        for result in await client.start_many([start] * min(BULK, count - first)):
            if result.run_id is None:
                raise DaemonFailed(f"a run was not started: {result.why}")
            started.append(result.run_id)
    return started


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask a daemon that is killed or stands still meanwhile, or has no room, until there is an answer.

    Raises:
        ClientError: it refuses.
    """
    while True:
        try:
            return await ask()
        except DaemonNotRunning:
            pass
        except ClientError as error:
            if error.status not in (408, 503):
                raise
        await trio.sleep(ASK_AGAIN)


async def emptied(client: Client) -> None:
    """Return when no run is in the daemon's memory.

    Raises:
        ClientError: it does not say.
    """
    while (await client.status()).actors:  # noqa: ASYNC110 -- another process does it
        await trio.sleep(LOOK_AT_MEMORY)


class Daemon:
    """The daemon of a data folder. There is one process at a time; what it says goes to `log`."""

    def __init__(
        self, data_dir: Path, log: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Prepare.

        Args:
            data_dir: where its socket and its journal are.
            log: the file that its output is added to.
            arguments: further ones for `jivsd run`.
            environment: variables for it. Of this process's own, those of jivsd are not handed on.
        """
        self.data_dir = data_dir
        self.log = log
        self._socket = str(socket_path(data_dir))
        self._command = [sys.executable, "-m", "jivsd", "run", "--data-dir", str(data_dir), *arguments]
        own = {name: value for name, value in os.environ.items() if not name.startswith("JIVSD_")}
        self._environment = {**own, **(environment or {})}
        self._process: trio.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process; return when it answers.

        Raises:
            DaemonFailed: it ended, or does not answer in time.
        """
        await self.launch()
        await self.ready()

    async def ready(self) -> None:
        """Return when the process, which was launched, answers.

        Raises:
            DaemonFailed: it ended, or does not answer in time.
        """
        with trio.move_on_after(READY_WITHIN) as patience:
            while not self.answers():
                if not self.running:
                    raise DaemonFailed(f"the daemon ended while it started: {self.last_words()}")
                await trio.sleep(LOOK_AGAIN)
        if patience.cancelled_caught:
            raise DaemonFailed(f"the daemon has not answered within {READY_WITHIN:g} s: {self.last_words()}")

    async def launch(self) -> None:
        """Start the process; whether it comes up is not waited for."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def cpu_seconds(self) -> float:
        """What the process, and its workers if it has any, have had of the cores so far."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(map(_cpu_seconds, [self.pid, *map(int, children)]))

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill it as `kill -9` does: it can do nothing more, not even finish a write."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """Ask it to end (SIGTERM); return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until the process has ended, and return its exit code.

        Raises:
            DaemonFailed: it has not ended in time.
        """
        assert self._process is not None
        with trio.move_on_after(STOPPED_WITHIN):
            return await self._process.wait()
        raise DaemonFailed(f"the daemon has not ended within {STOPPED_WITHIN:g} s: {self.last_words()}")

    async def aclose(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.running:
            with trio.CancelScope(shield=True):
                await self.kill()

    def last_words(self) -> str:
        """The end of its log, on one line."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " / ".join(line.strip() for line in lines[-LAST_LINES:]) or "it said nothing"

    def answers(self) -> bool:
        """Whether somebody listens on its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self._socket)
            except OSError:
                return False
        return True


def _cpu_seconds(pid: int) -> float:
    """The 14th and the 15th field of what Linux says of a process; the 2nd is its name in brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


@asynccontextmanager
async def loaded_daemon(
    store: str | None = None, environment: Mapping[str, str] | None = None, *, workers: int = 1
) -> AsyncGenerator[Daemon]:
    """A started daemon with the workflows of `jivsd.proof.load`, in a folder that is removed afterwards.

    Args:
        store: the URL of its store; None: a file in that folder.
        environment: more variables for it.
        workers: how many processes it is; only the first of several can be asked at once.

    Raises:
        DaemonFailed: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="jivsd-proof-") as name:
        folder = Path(name)
        arguments = ["--plugins", load.__file__, "--log-level", "warning", "--workers", str(workers)]
        settings = {**(environment or {}), **({"JIVSD_STORE": store} if store is not None else {})}
        daemon = Daemon(folder / "state", folder / "daemon.log", arguments, settings)
        try:
            await daemon.start()
            yield daemon
        finally:
            await daemon.aclose()
