"""What is done to a PostgreSQL server, and to the way to it, while a daemon works."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd.proof.pgwire import Losses, PostgresTap
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from jivsd.proof.pgserver import Server
    from jivsd.proof.proxy import Proxy
    from jivsd.proof.torture.recovery import Recovery

ON_ANY: Final = ("pg-terminate", "cut", "lose")
"""The faults that need no server of the torture's own."""
ON_OWN: Final = ("pg-restart", "pg-terminate", "pg-stop", "cut", "lose", "disk-full")
DOWN_FOR: Final = (0.0, 0.0, 0.5, 2.0)
"""Seconds between the end of a server and its start."""
STANDS_FOR: Final = (0.1, 0.1, 0.5, 1.0, 3.0, 12.0)
"""Seconds for which a session, or the server, stands still: also for longer than anybody waits for a commit."""
HELD_FOR: Final = (0.1, 0.5, 2.0, 12.0)
"""Seconds for which nothing comes through."""
REFUSED_FOR: Final = (0.0, 0.0, 0.2, 1.5)
FULL_FOR: Final = (0.5, 1.0, 4.0)
STREAM: Final = 40_000
"""After how many bytes at most a connection is cut."""
HAPPENS_WITHIN: Final = 3.0
"""Seconds in which what has been laid must have come to pass."""
AGAIN: Final = (1, 1, 1, 2, 3)
"""How many answers in a row are lost."""

_SESSIONS: Final = """
SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'jivsd % of ' || $1::text || '%'
ORDER BY application_name NOT LIKE 'jivsd journal %', random()
"""


class ServerFaults:
    """Commits faults, one at a time. `proxies`: in between, by node, if there are any."""

    def __init__(self, ask: Callable[..., Awaitable[list[Any]]], node: str, server: Server | None) -> None:
        """Prepare.

        Args:
            ask: asks PostgreSQL directly.
            node: with what the names of those begin whose sessions are meant.
            server: which can be restarted and stopped; None: none can.
        """
        self.kinds = ON_ANY if server is None else ON_OWN
        self.proxies: dict[str, Proxy] = {}
        self._ask = ask
        self._node = node
        self._server = server
        self._losses = Losses()

    def tap(self) -> PostgresTap:
        """The tap of a new connection through the proxy."""
        return PostgresTap(self._losses)

    async def commit(self, kind: str, rng: Random, recovery: Recovery) -> bool:
        """Do something, and mend it. False: it could not be done just now.

        Raises:
            ServerFailed: the server does not come up again.
        """
        faults = {
            "pg-restart": self._restart,
            "pg-terminate": self._terminate,
            "pg-stop": self._stop,
            "cut": self._cut,
            "lose": self._lose,
            "disk-full": self._fill,
        }
        with recovery.breaking(kind):
            try:
                return await faults[kind](rng)
            except StoreError:
                return False

    async def _restart(self, rng: Random) -> bool:
        """In haste (fast), or as if the machine had failed (immediate)."""
        server = self._own()
        try:
            await trio.to_thread.run_sync(partial(server.stop, immediate=rng.random() < 0.5))
            await trio.sleep(rng.choice(DOWN_FOR))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.start)
        return True

    async def _terminate(self, rng: Random) -> bool:
        """End a session, or all, once or several times in a row."""
        ended = 0
        most = rng.choice((1, 1, 10))
        for number in range(rng.choice((1, 1, 4))):
            if number:
                await trio.sleep(rng.uniform(0, 0.3))
            pids = await self._sessions()
            ended += len(await self._ask("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids[:most]))
        return ended > 0

    async def _stop(self, rng: Random) -> bool:
        """Let one session, or the whole server, stand still for a while."""
        whole = rng.random() < 0.5
        pids = await trio.to_thread.run_sync(self._own().processes) if whole else (await self._sessions())[:1]
        _signal(pids, signal.SIGSTOP)
        try:
            await trio.sleep(rng.choice(STANDS_FOR))
        finally:
            _signal(pids, signal.SIGCONT)
        return bool(pids)

    async def _cut(self, rng: Random) -> bool:
        """Cut connections, now or in the middle of what comes; or hold everything; then let nobody in for a while."""
        proxy = rng.choice(list(self.proxies.values()))
        links = proxy.links
        try:
            match rng.choice(("now", "after", "after", "hold")):
                case "now":
                    proxy.cut()
                case "after":
                    for link in links:
                        link.cut_after(rng.randint(1, STREAM))
                    await _until(lambda: not set(links) & set(proxy.links))
                    proxy.cut()
                case _:
                    proxy.hold()
                    await trio.sleep(rng.choice(HELD_FOR))
                    if rng.random() < 0.5:
                        proxy.cut()
            proxy.refusing = True
            await trio.sleep(rng.choice(REFUSED_FOR))
        finally:
            proxy.refusing = False
            proxy.release()
        return bool(links)

    async def _lose(self, rng: Random) -> bool:
        """Lose the answer to a batch; then perhaps also what comes of the attempts to find out about it."""
        losses = self._losses
        losses.begin(rng.choice(AGAIN), "jivsd journal ")
        try:
            await _until(lambda: losses.left == 0)
        finally:
            lost = losses.end()
        return lost > 0

    async def _fill(self, rng: Random) -> bool:
        """Let the disk be full for a while on which the journal's tables are."""
        room = self._own().room
        assert room is not None
        await trio.to_thread.run_sync(room.fill)
        try:
            await trio.sleep(rng.choice(FULL_FOR))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(room.empty)
        return True

    async def _sessions(self) -> list[int]:
        """The processes of the daemons' sessions, those that write batches first."""
        return [pid for (pid,) in await self._ask(_SESSIONS, self._node)]

    def _own(self) -> Server:
        assert self._server is not None
        return self._server


async def _until(happened: Callable[[], bool]) -> None:
    with trio.move_on_after(HAPPENS_WITHIN):
        while not happened():  # noqa: ASYNC110 -- it happens in a tap, which knows nothing of trio
            await trio.sleep(0.01)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
