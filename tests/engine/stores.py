"""Stores that go away, or take their time, when a test wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jivsd.store.api import StoreAway
from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.api import Entry, More, Post, Verdict


class FickleStore(SqliteStore):
    """In memory; `writes_fail` and `reads_fail` say whether it is away just now. `calls` are what was asked of it."""

    def __init__(self) -> None:
        super().__init__(":memory:", threaded=False)
        self.writes_fail = False
        self.reads_fail = False
        self.commits = 0

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        self.commits += 1
        if self.writes_fail:
            raise StoreAway("the disk is full")
        return await super().commit(batch)

    async def _read(self, work):
        if self.reads_fail:
            raise StoreAway("the disk does not answer")
        return await super()._read(work)


class SlowStore(SqliteStore):
    """In memory; as long as `held`, a batch waits to be written until `let_go` is called, once for each."""

    def __init__(self) -> None:
        super().__init__(":memory:", threaded=False)
        self.held = False
        self.batch: Sequence[Entry | Post] = ()
        """The batch that waits."""
        self._written = trio.Event()

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        if self.held:
            self.batch = batch
            await self._written.wait()
            self.batch = ()
        return await super().commit(batch)

    def let_go(self) -> None:
        self._written.set()
        self._written = trio.Event()
