"""Looks for runs that wait for one another's locks in a circle, and says so once: an incident, closed when it is gone.

Nothing is broken by itself: which of the runs has to give way is a person's decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.engine import incidents
from jivsd.records import Incident, IncidentState, derived_id
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jivsd.cluster.circles import Circle, Link
    from jivsd.engine.engine import Engine
    from jivsd.records import Run

log = logs.get(__name__)

LOOKER: Final = 0
"""Whoever has this shard looks for all."""
ERROR: Final = "runs wait for one another"
SHOWN: Final = 10
"""How many runs of a circle its message names."""


class Config(msgspec.Struct, frozen=True):
    """How circles are looked for. Times in seconds."""

    every: float = 5.0
    after: float = 5.0
    """How long each of the runs must have waited."""


class DeadlockService:
    """A supervised child of the daemon."""

    def __init__(self, engine: Engine, config: Config | None = None) -> None:
        self._engine = engine
        self._config = config or Config()
        self._open: dict[str, Incident] | None = None
        """The incidents that are open, by id; None: they have to be read."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; while the store is away there is nothing to see."""
        task_status.started()
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                self._open = None
                log.info("circles of locks were not looked for", why=str(error))
            await trio.sleep(self._config.every)

    async def run_once(self) -> None:
        """Look once: open an incident for each circle that is new, and close those of circles that are gone."""
        if LOOKER not in self._engine.holding.shards:
            self._open = None
            return
        now = self._engine.clock.now()
        found = await self._engine.lock_circles(now - int(self._config.after * SECOND))
        if not found and self._open is not None and not self._open:
            return
        if self._open is None:
            self._open = await self._known()
        ids = {_id(circle): circle for circle in found}
        for id in self._open.keys() - ids.keys():
            await self._close(self._open.pop(id), now)
        for id, circle in ids.items():
            if id not in self._open and await self._engine.store.incident(id) is None:
                await self._report(id, circle, now)

    async def _known(self) -> dict[str, Incident]:
        known: dict[str, Incident] = {}
        cursor: str | None = None
        while True:
            page, cursor = await self._engine.store.incidents(
                IncidentState.OPEN, None, 100, cursor, fingerprint=_FINGERPRINT
            )
            known |= {one.incident_id: one for one in page}
            if cursor is None:
                return known

    async def _report(self, id: str, circle: Circle, now: int) -> None:
        assert self._open is not None
        found = await self._engine.store.rows([link.run_id for link in circle.links])
        runs = {run.run_id: run for run in found if run is not None and not isinstance(run, StoreError)}
        incident = Incident(
            incident_id=id,
            kind=KIND,
            message=_message(circle, runs),
            at=now,
            details={"error": ERROR, "circle": [_details(link, runs) for link in circle.links]},
        )
        await self._engine.store.put_incident(incident)
        self._open[id] = incident
        log.error("incident", incident=id, what=incident.message)

    async def _close(self, incident: Incident, now: int) -> None:
        current = await self._engine.store.incident(incident.incident_id)
        if current is not None and current.state is IncidentState.OPEN:
            await self._engine.store.put_incident(incidents.resolved(current, "gone", by="", why="", at=now))
            log.warning("runs wait for one another no more", incident=incident.incident_id)


KIND: Final = "deadlock"
_FINGERPRINT: Final = Incident("", KIND, "", 0, details={"error": ERROR}).fingerprint


def _id(circle: Circle) -> str:
    """The same for the same tickets, which are never drawn again."""
    first = min(link.run_id for link in circle.links)
    return derived_id(first, "circle:" + repr(circle.tickets))


def _message(circle: Circle, runs: Mapping[str, Run]) -> str:
    """`a:1 waits for lock 'k2' behind b:2, which waits for its child c:3, which waits for lock 'k1' behind a:1`."""
    shown = circle.links[:SHOWN]
    said = ", which ".join(f"{_waits(link)} {_name(link.on, runs)}" for link in shown)
    if len(circle.links) > SHOWN:
        said += f", and so on over {len(circle.links) - SHOWN} more runs"
    advice = "none of them goes on before you cancel or terminate one of them"
    return f"{ERROR}: {_name(shown[0].run_id, runs)} {said}; {advice}"


def _waits(link: Link) -> str:
    return "waits for its child" if link.key is None else f"waits for lock {link.key!r} behind"


def _name(run_id: str, runs: Mapping[str, Run]) -> str:
    run = runs.get(run_id)
    return run_id if run is None else f"{run.workflow}:{run.workflow_id}"


def _details(link: Link, runs: Mapping[str, Run]) -> dict[str, str]:
    found = {"run_id": link.run_id, "run": _name(link.run_id, runs), "path": link.path, "behind": link.on}
    return found | ({"lock": link.key} if link.key is not None else {"waits_for": "its child"})
