"""Runs that append without end, for tests of what may happen to a store meanwhile."""

from __future__ import annotations

import trio

from jivsd.records import encode
from jivsd.store.api import Entry, Refused, Written
from store.builders import event, new_run, start


class Life:
    """A run that appends without end, each event in answer to the one before."""

    def __init__(self, committer):
        self.run = new_run()
        self.acknowledged = []
        self._committer = committer
        self._progress = trio.Event()

    async def progress(self):
        """Return when something more was acknowledged."""
        self._progress = trio.Event()
        await self._progress.wait()

    async def live(self, is_over):
        while isinstance(verdict := await self._committer.submit_and_wait(start(self.run)), Refused):
            assert verdict.why == "away"
            await trio.sleep(0.02)
        while not is_over():
            line = event(self.run, len(self.acknowledged) + 2, encode(len(self.acknowledged)))
            entry = Entry(self.run.run_id, self.run.shard, events=[line])
            assert await self._committer.submit_and_wait(entry) == Written(), "no append may fail"
            self.acknowledged.append(line)
            self._progress.set()
