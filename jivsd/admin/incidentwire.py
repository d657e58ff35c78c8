"""What the HTTP API and its client say to each other about incidents; see `jivsd.admin.wire`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from jivsd.admin.wire import fields, instant, moment
from jivsd.clock import as_datetime, from_datetime
from jivsd.engine.api import Incidents
from jivsd.records import Decision, Incident, IncidentGroup, IncidentState


class DecisionView(Struct, frozen=True):
    """What somebody did about an incident; `by` is empty when it went away by itself."""

    what: str
    by: str
    why: str
    at: datetime

    @classmethod
    def of(cls, decision: Decision) -> DecisionView:
        return cls(decision.what, decision.by, decision.why, as_datetime(decision.at))

    def record(self) -> Decision:
        return Decision(self.what, self.by, self.why, from_datetime(self.at))


class IncidentView(Struct, frozen=True, kw_only=True):
    incident_id: str
    kind: str
    message: str
    at: datetime
    run_id: str | None
    workflow: str | None
    path: str
    details: dict[str, Any]
    state: IncidentState
    resolution: str | None
    resolved_by: str | None
    resolved_why: str | None
    resolved_at: datetime | None
    history: list[DecisionView]
    fingerprint: str

    @classmethod
    def of(cls, incident: Incident) -> IncidentView:
        at, resolved_at = as_datetime(incident.at), moment(incident.resolved_at)
        history = [DecisionView.of(decision) for decision in incident.history]
        return cls(**fields(incident, at=at, resolved_at=resolved_at, history=history))

    def record(self) -> Incident:
        at, resolved_at = from_datetime(self.at), instant(self.resolved_at)
        history = [view.record() for view in self.history]
        return Incident(**fields(self, at=at, resolved_at=resolved_at, history=history))


class IncidentPage(Struct, frozen=True):
    items: list[IncidentView]
    next: str | None

    @classmethod
    def of(cls, page: Incidents) -> IncidentPage:
        return cls([IncidentView.of(incident) for incident in page.items], page.next)

    def record(self) -> Incidents:
        return Incidents([view.record() for view in self.items], self.next)


class GroupView(Struct, frozen=True, kw_only=True):
    """Incidents that have one fingerprint: what the newest says, how many there are, since when."""

    fingerprint: str
    kind: str
    message: str
    incident_id: str
    count: int
    first_at: datetime
    last_at: datetime
    workflow: str | None
    path: str
    runs: int
    acknowledged: int

    @classmethod
    def of(cls, group: IncidentGroup) -> GroupView:
        return cls(**fields(group, first_at=as_datetime(group.first_at), last_at=as_datetime(group.last_at)))

    def record(self) -> IncidentGroup:
        return IncidentGroup(**fields(self, first_at=from_datetime(self.first_at), last_at=from_datetime(self.last_at)))


class GroupPage(Struct, frozen=True):
    items: list[GroupView]
    next: None = None

    @classmethod
    def of(cls, groups: list[IncidentGroup]) -> GroupPage:
        return cls([GroupView.of(group) for group in groups])

    def record(self) -> list[IncidentGroup]:
        return [view.record() for view in self.items]


class ResolveBody(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The value that a person gives in place of the one that could not be had; what holds no step needs none."""

    value: Raw | UnsetType = UNSET
    reason: str = ""

    def given(self) -> bytes | None:
        """The value, if there is one."""
        return None if self.value is UNSET else bytes(self.value)
