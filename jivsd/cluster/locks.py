"""Business locks: who is first in the queue for a key is told so.

The truth is in the store, where each start and each lock in a run's code draws a ticket: the one with the lowest
ticket holds the key. Here stands only who wants to be told; when a key may have become free, the store is asked. Whose
turn it is though it waits elsewhere to be told, because its run is parked, is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.api import Store
    from jivsd.store.tickets import Holder

log = logs.get(__name__)

PAUSE: Final = 1.0
"""Seconds before a store that is away is asked again."""

Owner = tuple[str, str]
"""A run id, and the path of the lock in its code; "" for the run's own."""


class Locks:
    """The waiting runs of this node. `nursery` is where the store is asked; `call` brings a run back for its key."""

    def __init__(self, store: Store, nursery: trio.Nursery, call: Callable[[str, str], object]) -> None:
        self._store = store
        self._nursery = nursery
        self._call = call
        self._waiting: dict[str, dict[Owner, Callable[[int], None]]] = {}
        self._asking: dict[str | None, bool] = {}
        """Keys about which the store is being asked (None: all), and whether to ask again after that."""

    def wait(self, key: str, owner: Owner, granted: Callable[[int], None]) -> None:
        """Call `granted(fence)` once the owner, who has a ticket, holds the key."""
        self._waiting.setdefault(key, {})[owner] = granted
        self.look(key)

    def forget(self, key: str, owner: Owner) -> None:
        """The owner no longer wants to be told."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.pop(owner, None)
            if not waiting:
                del self._waiting[key]

    def look(self, key: str | None) -> None:
        """A key may have become free; None: any may have."""
        if key in self._asking:
            self._asking[key] = True
            return
        self._asking[key] = False
        self._nursery.start_soon(self._ask, key)

    def look_again(self) -> None:
        """Others may have changed the queues."""
        if self._waiting:
            self.look(None)

    async def _ask(self, key: str | None) -> None:
        again = True
        while again:
            self._asking[key] = False
            try:
                holders = await self._store.lock_queue(key, 1)
            except StoreError as error:
                log.error("a lock's queue cannot be read; trying again", key=key, why=str(error))
                await trio.sleep(PAUSE)
                continue
            for holder in holders:
                self._tell(holder)
            again = self._asking[key]
        del self._asking[key]

    def _tell(self, holder: Holder) -> None:
        """Tell who holds a key, unless that is recorded already."""
        owner = holder.run_id, holder.path
        granted = self._waiting.get(holder.key, {}).get(owner)
        if granted is not None:
            self.forget(holder.key, owner)
            granted(holder.fence)
        elif not holder.granted:
            self._call(holder.run_id, holder.key)
