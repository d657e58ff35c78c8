"""What is done meanwhile: the daemon is killed, stopped and continued; and what can be done to its store."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from jivsd.places import socket_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from jivsd.proof.daemons import Daemon
    from jivsd.proof.torture.account import Account
    from jivsd.proof.torture.fleet import Node
    from jivsd.proof.torture.grounds import Ground
    from jivsd.proof.torture.recovery import Recovery

ON_DAEMON: Final = ("kill", "stop")
TAKE_OVER: Final = "takeover"
"""A second daemon takes over from one that is stopped, and that goes on for a while: for a bug that is built in."""
EVERY: Final = (1.0, 5.0)
TAKE_OVER_EVERY: Final = (0.3, 1.0)
STORE_EVERY: Final = (1.0, 10.0)
"""Seconds between two faults of the daemon, between two times that it is taken over, and between two faults of its
store: from, to.
"""
PATIENT: Final = 0.8
"""How often work is left to go on first, for WORK seconds, before the next fault."""
WORK: Final = (0.2, 1.5)
NOT_FOR_EVER: Final = 20.0
"""Seconds for which that is waited for."""
STOPPED_FOR: Final = (0.1, 2.0)
STALE_FOR: Final = 4.0
"""Seconds for which one that was taken over goes on."""


class Pace:
    """Says when the next fault comes, until a moment of trio's clock, and which: the seed decides."""

    def __init__(self, recovery: Recovery, seed: int, until: float) -> None:
        self._recovery = recovery
        self._seed = seed
        self._until = until

    async def go_on(
        self, kinds: Sequence[str], every: tuple[float, float], commit: Callable[[str, Random], Awaitable[None]]
    ) -> None:
        """Have faults of some kinds committed, one after the other, with pauses of so many seconds in between."""
        rng = Random(f"{self._seed}/{'/'.join(kinds)}")
        while True:
            pause = rng.uniform(*every)
            if not kinds or trio.current_time() + pause > self._until:
                return
            await trio.sleep(pause)
            if rng.random() < PATIENT:
                with trio.move_on_after(NOT_FOR_EVER):
                    await self._recovery.calm()
                    await trio.sleep(rng.uniform(*WORK))
            await commit(rng.choice(kinds), rng)


class Faults:
    """Chooses faults and their moments from a seed, and carries them out. `node` is the daemon that serves."""

    def __init__(
        self,
        node: Node,
        ground: Ground,
        account: Account,
        recovery: Recovery,
        seed: int,
        successor: Callable[[], Daemon],
    ) -> None:
        """Prepare.

        Args:
            node: which is running.
            ground: what it keeps its journal in.
            account: where it is noted what was done.
            recovery: told what is broken.
            seed: decides what is done and when.
            successor: makes the daemon that takes over.
        """
        self._node = node
        self._ground = ground
        self._account = account
        self._recovery = recovery
        self._seed = seed
        self._successor = successor
        self._began = trio.current_time()
        node.on_up = lambda: recovery.mended("kill")
        node.on_died = lambda why: account.complain("died", "", why)
        node.on_launch = lambda: recovery.broke("kill")

    async def run(self, kinds: Sequence[str], until: float) -> None:
        """Commit faults of these kinds until a moment of trio's clock; keep a daemon running until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._node.keep_running)
            own = [kind for kind in kinds if kind not in self._ground.faults]
            others = [kind for kind in kinds if kind in self._ground.faults]
            every = TAKE_OVER_EVERY if TAKE_OVER in own else EVERY
            pace = Pace(self._recovery, self._seed, until)
            nursery.start_soon(pace.go_on, own, every, self._commit)
            nursery.start_soon(pace.go_on, others, STORE_EVERY, self._commit_in_store)

    def _note(self, kind: str) -> None:
        self._account.fault(kind, trio.current_time() - self._began)

    async def _commit_in_store(self, kind: str, rng: Random) -> None:
        if await self._ground.commit(kind, rng, self._recovery):
            self._note(kind)

    async def _commit(self, kind: str, rng: Random) -> None:
        node, daemon = self._node, self._node.daemon
        if not daemon.running:
            return  # it is being started again
        self._note(kind)
        match kind:
            case "kill":
                node.hands_off = True
                await daemon.kill()
                await node.launch()
                node.hands_off = False
            case "stop":
                with self._recovery.breaking(kind):
                    daemon.send(signal.SIGSTOP)
                    await trio.sleep(rng.uniform(*STOPPED_FOR))
                    daemon.send(signal.SIGCONT)
            case _:
                node.hands_off = True
                await self._take_over(daemon)
                node.hands_off = False

    async def _take_over(self, old: Daemon) -> None:
        """Let a second daemon take over while the first one is stopped, and let the first one go on for a while."""
        await self._stop_between_commits(old)
        try:
            socket_path(old.data_dir).unlink(missing_ok=True)
            self._node.daemon = self._successor()
            await self._node.daemon.start()
            old.send(signal.SIGCONT)
            await trio.sleep(STALE_FOR)
        finally:
            await old.aclose()

    async def _stop_between_commits(self, daemon: Daemon) -> None:
        """Stop a daemon while it does not hold the embedded store's lock, for which others would wait."""
        while True:
            daemon.send(signal.SIGSTOP)
            await trio.sleep(0.01)
            if self._ground.faults or is_free(daemon.data_dir / "jivsd.db"):
                return
            daemon.send(signal.SIGCONT)
            await trio.sleep(0.01)


def is_free(database: Path) -> bool:
    """Whether nobody is just writing into a SQLite database."""
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True
