"""What the HTTP API asks of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jivsd.engine.api import (
        Answer,
        EngineStatus,
        Incidents,
        Receipt,
        Start,
        StartOptions,
        Timeline,
        Why,
        WorkflowInfo,
    )
    from jivsd.records import Incident, Run
    from jivsd.store.api import RunFilter, Runs


class Engine(Protocol):
    """The engine's front, as `jivsd.engine` has it: every method raises `EngineError`s that people can read."""

    async def start(self, workflow: str, input: bytes, options: StartOptions = ..., *, by: str = "") -> Start: ...

    async def signal(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, by: str = ""
    ) -> Receipt: ...

    async def query(self, ref: str, name: str, payload: bytes = b"null") -> Answer: ...

    async def pause(self, ref: str, *, by: str, reason: str = "") -> Run: ...

    async def resume(self, ref: str, *, by: str, reason: str = "") -> Run: ...

    async def cancel(self, ref: str, *, by: str, reason: str = "") -> Run: ...

    async def terminate(self, ref: str, *, by: str, reason: str = "") -> Run: ...

    async def retry(self, ref: str, *, by: str, reason: str = "") -> Run: ...

    async def result(self, ref: str, timeout: float) -> Run: ...

    async def show(self, ref: str) -> Run: ...

    async def timeline(self, ref: str, after: int = 0, limit: int = 100) -> Timeline: ...

    async def why(self, ref: str) -> Why: ...

    async def runs(self, where: RunFilter, limit: int = 50, cursor: str | None = None) -> Runs: ...

    async def incidents(
        self, state: str | None = "OPEN", ref: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Incidents: ...

    async def incident(self, incident_id: str) -> Incident: ...

    async def retry_incident(self, incident_id: str, *, by: str, why: str) -> Incident: ...

    async def resolve_incident(self, incident_id: str, value: bytes, *, by: str, why: str) -> Incident: ...

    async def prune(self, where: RunFilter) -> int: ...

    def workflows(self) -> list[WorkflowInfo]: ...

    async def status(self) -> EngineStatus: ...
