"""The daemon's pulse, for whoever would start it again if it hung: systemd's watchdog, or the parent of workers.

It is felt on trio's loop, where the supervisor and all runs live, and only when the journal lives, too. A busy daemon
has one, a daemon whose database is away as well; one whose loop stands still, or whose commits never return, has not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.host import Host

log = logs.get(__name__)

SHARE: Final = 4
"""How often a beat is due within the time after which the process counts as hung."""


class Pulse:
    """Feels the pulse of a host.

    Args:
        host: whose.
        period: seconds without a beat after which somebody would act.
        beat: called for each.
    """

    def __init__(self, host: Host, period: float, beat: Callable[[], None]) -> None:
        self._host = host
        self._every = period / SHARE
        self._beat = beat
        self._batches = 0

    async def run(self) -> None:
        """Feel it until cancelled."""
        while True:
            if await self.run_once():
                self._beat()
            else:
                log.error("the journal neither takes nor refuses a commit", seconds=self._every)
            await trio.sleep(self._every)

    async def run_once(self) -> bool:
        """Whether the journal lives: it has written since the last time, is known to be away, or can write now."""
        written = sum(self._host.metrics.journal_batch_size.counts)
        before, self._batches = self._batches, written
        if written != before or self._host.committer.away is not None:
            return True
        with trio.move_on_after(self._every):
            try:
                await self._host.store.probe()
            except StoreError as error:
                log.warning("the journal cannot be written to", why=str(error))
            return True
        return False
