"""The daemons of a torture: one, or several nodes that share a database. Any of them may be asked anything."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Final

import httpx
import trio

from jivsd.admin.wire import API, BY_HEADER
from jivsd.asking import limits
from jivsd.client import Client
from jivsd.places import socket_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from jivsd.proof.daemons import Daemon

BY: Final = "torture"
LOOK_AGAIN: Final = 0.05
"""Seconds between two looks at a daemon."""
START_AGAIN: Final = 0.2
"""Seconds before a daemon is started again that could not use its store: as systemd does it."""


class Node:
    """A daemon that is kept running.

    Args:
        name: of the node.
        daemon: the process.
        may_end: whether it may end by itself, before it has ever answered: its store may be away.
    """

    def __init__(self, name: str, daemon: Daemon, *, may_end: bool) -> None:
        self.name = name
        self.daemon = daemon
        self.up = True
        """Whether it has answered since it was started."""
        self.stopped = False
        """Whether it stands still: then it is asked nothing."""
        self.hands_off = False
        """Whether somebody is just doing something to it, and will start it again."""
        self.on_up: Callable[[], None] = lambda: None
        """Told when it answers after it was started again."""
        self.on_launch: Callable[[], None] = lambda: None
        """Told when it is started again, and has answered before."""
        self.on_died: Callable[[str], None] = lambda why: None
        """Told when it has ended by itself, though it must not."""
        self._may_end = may_end

    async def keep_running(self) -> None:
        """Start it again whenever it has ended."""
        while True:
            await trio.sleep(LOOK_AGAIN)
            if self.hands_off:
                continue
            if self.daemon.running:
                if not self.up and self.daemon.answers():
                    self.up = True
                    self.on_up()
                continue
            if self.up or not self._may_end:
                self.on_died(f"the daemon ended by itself: {self.daemon.last_words()}")
            await trio.sleep(START_AGAIN)
            await self.launch()

    async def launch(self) -> None:
        """Start it again; whether it comes up is seen later."""
        if self.up:
            self.on_launch()
        self.up = False
        await self.daemon.launch()


class Fleet:
    """All of them. `nodes[0]` is the one that is started first."""

    def __init__(self, nodes: Sequence[Node], seed: int) -> None:
        self.nodes = list(nodes)
        self._rng = Random(f"{seed}/asked")

    async def start(self) -> None:
        """Start them; return when all answer.

        Raises:
            DaemonFailed: one ended, or does not answer in time.
        """
        first, *others = self.nodes
        await first.daemon.start()
        async with trio.open_nursery() as nursery:
            for node in others:
                nursery.start_soon(node.daemon.start)

    def pick(self) -> Node:
        """One that may be asked: any that does not stand still."""
        awake = [node for node in self.nodes if not node.stopped]
        return self._rng.choice(awake or self.nodes)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        """A client whose every request goes to one of the nodes, whichever comes up."""
        base = f"http://jivsd{API}"
        headers = {"Content-Type": "application/json", "Accept": "application/json", BY_HEADER: BY}
        async with httpx.AsyncClient(transport=_Anywhere(self), base_url=base, headers=headers) as http:
            yield Client(http, "the nodes of the torture", "they are started again")

    async def stop(self) -> dict[str, int]:
        """Ask all to end (SIGTERM); the exit codes, by node.

        Raises:
            DaemonFailed: one has not ended in time.
        """
        codes: dict[str, int] = {}

        async def end(node: Node) -> None:
            codes[node.name] = await node.daemon.stop()

        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(end, node)
        return codes

    async def aclose(self) -> None:
        """Leave nothing running, whatever happened."""
        for node in self.nodes:
            await node.daemon.aclose()


class _Anywhere(httpx.AsyncBaseTransport):
    """Carries each request to a node."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ways: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = str(socket_path(self._fleet.pick().daemon.data_dir))
        if path not in self._ways:
            self._ways[path] = httpx.AsyncHTTPTransport(uds=path, verify=False, limits=limits())
        return await self._ways[path].handle_async_request(request)

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()


def let_go_on(node: Node) -> None:
    """Continue one that stands still."""
    node.daemon.send(signal.SIGCONT)
    node.stopped = False
