"""Watches this node's clock against the database's: an incident says when they are too far apart, and closes by itself.

Nothing that was recorded depends on it: fences are numbers. But timers and deadlines go by the node's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import incidents
from jivsd.records import IncidentState
from jivsd.store import clocks
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from jivsd.engine.host import Host

log = logs.get(__name__)

EVERY: Final = 30.0
"""Seconds between two looks."""


class ClockWatch:
    """Looks for a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def run(self) -> None:
        """Look until cancelled; while the store is away there is nothing to see."""
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                log.info("the clocks were not compared", why=str(error))
            await trio.sleep(EVERY)

    async def run_once(self) -> None:
        """Compare the clocks once."""
        host = self._host
        off = await host.store.clock_off()
        same = clocks.fingerprint_of(host.node)
        known, _ = await host.store.incidents(IncidentState.OPEN, limit=100, fingerprint=same)
        now = host.clock.now()
        if not clocks.is_off(off):
            for incident in known:
                await host.store.put_incident(incidents.resolved(incident, "gone", by="", why="", at=now))
                log.warning("the clocks agree again", node=host.node, incident=incident.incident_id)
        elif not known:
            opened = clocks.incident(host.node, off, now)
            log.critical("incident", incident=opened.incident_id, what=opened.message)
            await host.store.put_incident(opened)
