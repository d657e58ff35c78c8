"""Business locks: who is first in the queue for a key is told so.

The truth is in the store, where each start draws a ticket: the open run with the lowest ticket holds the key. Here
stands only who wants to be told; when a key may have become free, the store is asked. A holder that waits elsewhere to
be told, because it is parked, is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.api import Store

log = logs.get(__name__)

PAUSE: Final = 1.0
"""Seconds before a store that is away is asked again."""


class Locks:
    """The waiting runs of this node. `nursery` is where the store is asked; `call` brings a run back to wait here."""

    def __init__(self, store: Store, nursery: trio.Nursery, call: Callable[[str], object]) -> None:
        self._store = store
        self._nursery = nursery
        self._call = call
        self._waiting: dict[str, dict[str, Callable[[int], None]]] = {}
        self._asking: dict[str, bool] = {}
        """Keys about which the store is being asked, and whether to ask again after that."""

    def wait(self, key: str, run_id: str, granted: Callable[[int], None]) -> None:
        """Call `granted(fence)` once the run holds the key."""
        self._waiting.setdefault(key, {})[run_id] = granted
        self.look(key)

    def forget(self, key: str, run_id: str) -> None:
        """The run no longer wants to be told."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.pop(run_id, None)
            if not waiting:
                del self._waiting[key]

    def look(self, key: str) -> None:
        """A key may have become free."""
        if key in self._asking:
            self._asking[key] = True
            return
        self._asking[key] = False
        self._nursery.start_soon(self._ask, key)

    async def _ask(self, key: str) -> None:
        again = True
        while again:
            self._asking[key] = False
            try:
                queue = await self._store.lock_queue(key, 1)
            except StoreError as error:
                log.error("a lock's queue cannot be read; trying again", key=key, why=str(error))
                await trio.sleep(PAUSE)
                continue
            granted = self._waiting.get(key, {}).get(queue[0].run_id) if queue else None
            if granted is not None:
                self.forget(key, queue[0].run_id)
                granted(queue[0].fence)
            elif queue and queue[0].pending:
                self._call(queue[0].run_id)
            again = self._asking[key]
        del self._asking[key]
