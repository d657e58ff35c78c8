"""Runs whose rows in the database others hold: who that is, for the log and for `why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.engine.host import Host

log = logs.get(__name__)

PATIENCE: Final = 1.0
"""Seconds after which it is worth saying; and after which a run that was held up no longer is, if nobody says so."""
AGAIN: Final = 60.0
"""Seconds between two times that it is said."""


class HeldUp:
    """What is held up, as the committer finds it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: dict[str, tuple[float, float]] = {}
        """Runs, with the first and the last time that they were found held up."""
        self._said = -AGAIN

    def note(self, run_ids: Iterable[str]) -> None:
        """These were found held up just now."""
        now = trio.current_time()
        self._seen = {run_id: (since, last) for run_id, (since, last) in self._seen.items() if now - last < PATIENCE}
        for run_id in run_ids:
            since, _ = self._seen.get(run_id, (now, now))
            self._seen[run_id] = since, now
            if now - since > PATIENCE and now - self._said > AGAIN:
                self._said = now
                self._host.nursery.start_soon(self._say)

    def since(self, run_id: str) -> float | None:
        """For how many seconds a run has been held up; None if it is not."""
        now = trio.current_time()
        since, last = self._seen.get(run_id, (now, now - PATIENCE))
        return None if now - last >= PATIENCE else now - since

    async def by_whom(self) -> str:
        """Who holds rows, as far as that can be seen."""
        try:
            return "; ".join(await self._host.store.outsiders()) or "somebody who cannot be seen"
        except StoreError as error:
            return f"somebody ({error})"

    async def _say(self) -> None:
        who, runs = await self.by_whom(), sorted(self._seen)
        log.warning("runs wait for rows that others hold", runs=len(runs), first=runs[:1], by=who, node=self._host.node)
