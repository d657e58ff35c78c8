"""Recovery: runs that have something to do come back to memory, so many at once as may be read together.

They enter by the ordinary door. A run that was parked stays so until it is called or its time comes: however many there
are, a start of the daemon does not look at them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from jivsd import logs, memory
from jivsd.engine.life import Life
from jivsd.records import ENDED, IncidentState
from jivsd.store.api import StoreAway

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from jivsd.engine.host import Host
    from jivsd.store.api import Wake

log = logs.get(__name__)

T = TypeVar("T")


class Recovery:
    """Brings runs back on a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.under_way = trio.Event()
        """Set when every run that has something to do is in memory, or about to be."""

    async def run(self) -> None:
        """Bring every open run back that has something to do, oldest first, and then those that were called."""
        await self._shards(self._host.holding.wanted)

    def later(self, shards: frozenset[int]) -> None:
        """The same for shards that have come to this node, as soon as it serves."""
        if self._host.serving:
            self._host.nursery.start_soon(self._shards, shards)

    async def _shards(self, shards: frozenset[int] | None) -> None:
        host = self._host
        await self._find_trouble()
        with memory.growing():
            async for found in self._open(shards):
                log.info("recovering", runs=found, node=host.node)
        self.under_way.set()
        for run_id in await self.patiently(partial(host.store.called_runs, shards)):
            await self.bring(run_id)
        host.waker.look()

    async def sweep(self) -> None:
        """Bring back whoever should live here and does not: written by another node, whose call was lost."""
        async for _ in self._open(self._host.holding.wanted):
            pass

    async def _open(self, shards: frozenset[int] | None) -> AsyncGenerator[int]:
        """Bring open runs back that have something to do, page by page; how many have been looked at so far."""
        host = self._host
        found = 0
        after: str | None = None
        while not host.stopping and (page := await self.patiently(partial(host.store.open_runs, after, 1000, shards))):
            starting = host.committer.starting()  # these are brought to life by their starts
            for run in page:
                if run.run_id not in starting:
                    host.bring(Life(host, run.run_id, run))
            await self._room()
            found += len(page)
            after = page[-1].run_id
            yield found

    async def wakes(self, after: Wake, limit: int) -> list[Wake]:
        """See `Store.wakes`; while the store is away, it is asked again."""
        return await self.patiently(partial(self._host.store.wakes, after, limit, self._host.holding.wanted))

    async def bring(self, run_id: str) -> None:
        """Bring a run back, unless it is in memory; return when the next one may be."""
        self._host.activate(run_id)
        await self._room()

    async def _room(self) -> None:
        """Return when few wait to be read, or to begin: what was read of those is in memory."""
        await self._host.loader.room()
        await self._host.births.room()

    async def follow(self, run_id: str) -> None:
        """Something was said to a run that was continued as new: have that read by the one in which it goes on."""
        store = self._host.store
        following = await store.continued(run_id)
        if following is not None and following.status not in ENDED:
            for message in await store.messages(following.run_id):
                self._host.deliver(message)

    async def _find_trouble(self) -> None:
        host = self._host
        cursor: str | None = None
        while True:
            page = partial(host.store.incidents, IncidentState.OPEN, None, 1000, cursor)
            found, cursor = await self.patiently(page)
            host.troubled.update(incident.run_id for incident in found if incident.run_id is not None)
            for incident in found:
                host.quarantine.note(incident)
            if cursor is None:
                return

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read or write, and while the store is away, try again."""
        while True:
            try:
                return await read()
            except StoreAway as error:
                log.error("the journal cannot be read; trying again", why=str(error), node=self._host.node)
                await trio.sleep(1)
