"""What is done to the daemon meanwhile: killed, stopped and continued."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Final, Literal

import trio

from jivsd.places import socket_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jivsd.proof.daemons import Daemon
    from jivsd.proof.torture.account import Account

Fault = Literal["kill", "stop"]
FAULTS: Final[tuple[Fault, ...]] = ("kill", "stop")
LATER: Final = {"flush": "Redis", "pg-restart": "PostgreSQL", "cut": "several nodes"}
"""Faults of what else there is to be: what they come with."""
EVERY: Final = (1.0, 5.0)
"""Seconds between two faults: from, to."""
PATIENT: Final = 0.8
"""How often a daemon that is still starting then is left to work first, for WORK seconds."""
WORK: Final = (0.2, 1.5)
STOPPED_FOR: Final = (0.1, 2.0)
STALE_FOR: Final = 1.5
"""Seconds for which one that was taken over goes on."""


class Faults:
    """Chooses faults and their moments from a seed, and carries them out. `daemon` is the one that serves."""

    def __init__(
        self,
        daemon: Daemon,
        account: Account,
        seed: int,
        kinds: Sequence[Fault | Literal["takeover"]],
        successor: Callable[[], Daemon] | None = None,
    ) -> None:
        """Prepare; `successor` makes the daemon that takes over, for the fault "takeover"."""
        self.daemon = daemon
        self._account = account
        self._kinds = kinds
        self._successor = successor
        self._rng = Random(f"{seed}/faults")
        self._began = trio.current_time()

    async def run(self, until: float) -> None:
        """Go on until a moment of trio's clock; leave a daemon that runs."""
        while True:
            pause = self._rng.uniform(*EVERY)
            if not self._kinds or trio.current_time() + pause > until:
                return
            await trio.sleep(pause)
            if self._rng.random() < PATIENT:
                await self._let_work(self._rng.uniform(*WORK))
            await self._commit(self._rng.choice(self._kinds))

    async def _let_work(self, seconds: float) -> None:
        """Let a daemon that is still starting, on a slow machine, come to work first."""
        if self.daemon.running and not self.daemon.answers():
            await self.daemon.ready()
            await trio.sleep(seconds)

    async def _commit(self, kind: str) -> None:
        daemon = self.daemon
        if not daemon.running:
            self._account.complain("died", "", f"the daemon ended by itself: {daemon.last_words()}")
            await daemon.launch()
            return
        self._account.fault(kind, trio.current_time() - self._began)
        match kind:
            case "kill":
                await daemon.kill()
                await daemon.launch()
            case "stop":
                daemon.send(signal.SIGSTOP)
                await trio.sleep(self._rng.uniform(*STOPPED_FOR))
                daemon.send(signal.SIGCONT)
            case _:
                await self._take_over(daemon)

    async def _take_over(self, old: Daemon) -> None:
        """Let a second daemon take over while the first one is stopped, and let the first one go on for a while."""
        assert self._successor is not None
        await self._stop_between_commits(old)
        try:
            socket_path(old.data_dir).unlink(missing_ok=True)
            self.daemon = self._successor()
            await self.daemon.start()
            old.send(signal.SIGCONT)
            await trio.sleep(STALE_FOR)
        finally:
            await old.aclose()

    async def _stop_between_commits(self, daemon: Daemon) -> None:
        """Stop a daemon at a moment at which it does not hold the database's lock, for which others would wait."""
        while True:
            daemon.send(signal.SIGSTOP)
            await trio.sleep(0.01)
            if _is_free(daemon.data_dir / "jivsd.db"):
                return
            daemon.send(signal.SIGCONT)
            await trio.sleep(0.01)


def _is_free(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True
