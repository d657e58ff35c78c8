"""The routes of the daemon's own state: one page for people, and health for monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.admin.http import Route, answer, operation
from jivsd.admin.wire import StatusView
from jivsd.store.api import StoreAway

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.api import EngineStatus
    from jivsd.engine.engine import Engine
    from jivsd.store.sharing import Standing

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
ACTUATOR: Final = ("/actuator/health", "/actuator/health/workflow")
"""Where monitors look that were made for services of another kind."""
CHECK_SECONDS: Final = 5.0
"""A monitor hears "DOWN" rather than nothing."""


class Component(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a part of the daemon is. `problems`: of plugins, by name."""

    status: str
    detail: str | None = None
    pending: int | None = None
    held: int | None = None
    """Shards."""
    by: str | None = None
    """What they are held by."""
    problems: dict[str, str] = {}


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """UP, DOWN, or DEGRADED where something is wrong that keeps no run from going on."""

    status: str
    components: dict[str, Component] = {}


class StatusRoutes:
    """Answers /status and /health; nothing that /health/live and /health/ready say needs a token."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [("GET", "/status", self.status)]

    def health_routes(self) -> list[Route]:
        """Outside the API's prefix, where monitors look for them."""
        pages = ("/health", *ACTUATOR)
        return [("GET", LIVE, self.live), ("GET", READY, self.ready), *(("GET", page, self.health) for page in pages)]

    @operation(answers={200: StatusView})
    async def status(self) -> Response:
        """The daemon in one record."""
        return answer(StatusView.of(await self._engine.status()))

    @operation(answers={200: Health})
    async def live(self) -> Response:
        """Whether the process turns over."""
        return answer({"status": "UP"})

    @operation(answers={200: Health, 503: Health})
    async def ready(self) -> Response:
        """Whether it can do work."""
        status = await self._checked()
        up = not isinstance(status, str) and status.store_away is None
        standing = self._standing()
        up = up and (standing is None or standing.good)
        return answer({"status": _word(up)}, 200 if up else 503)

    @operation(answers={200: Health, 503: Health})
    async def health(self) -> Response:
        """Each component; a plugin that does not load harms no other and leaves the daemon UP."""
        status = await self._checked()
        if isinstance(status, str):
            down = {"status": "DOWN", "detail": status}
            return answer({"status": "DOWN", "components": {"database": down}}, 503)
        up = status.store_away is None
        problems = {plugin.name: plugin.problem for plugin in status.plugins if plugin.problem is not None}
        components: dict[str, dict[str, Any]] = {
            "database": {"status": _word(up), "detail": status.store_away},
            "journal": {"status": _word(up), "pending": status.journal_pending},
            "plugins": {"status": "DEGRADED" if problems else "UP", "problems": problems},
        }
        standing = self._standing()
        if standing is not None:
            held = {"held": standing.held, "by": standing.by}
            components["leases"] = {"status": _word(standing.good), **held}
            if standing.redis_away is not None:
                components["redis"] = {"status": "DEGRADED" if standing.redis_away else "UP"}
            up = up and standing.good
        return answer({"status": _word(up), "components": components}, 200 if up else 503)

    def _standing(self) -> Standing | None:
        """What the node has of a database that is shared; None: all of one that is its own."""
        neighbours = self._engine.neighbours
        return neighbours.standing() if neighbours is not None else None

    async def _checked(self) -> EngineStatus | str:
        """How the daemon is, or why that cannot be found out."""
        try:
            with trio.move_on_after(CHECK_SECONDS):
                return await self._engine.status()
        except StoreAway as error:
            return str(error)
        return f"it did not answer within {CHECK_SECONDS:g} s"


def _word(up: bool) -> str:
    return "UP" if up else "DOWN"
