"""What the HTTP API and its client say to each other about the outbox; see `jivsd.admin.wire`."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from jivsd.clock import as_datetime, from_datetime
from jivsd.engine.api import Outbox
from jivsd.records import Publication


class PublicationView(Struct, frozen=True, kw_only=True):
    """An event that a run has published."""

    number: int
    run_id: str
    path: str
    workflow: str
    workflow_id: str
    topic: str
    payload: Raw
    at: datetime

    @classmethod
    def of(cls, one: Publication) -> PublicationView:
        return cls(**dict(msgspec.structs.asdict(one), at=as_datetime(one.at)))

    def record(self) -> Publication:
        return Publication(**dict(msgspec.structs.asdict(self), at=from_datetime(self.at)))


class OutboxPage(Struct, frozen=True):
    """`next`: the number to give as `after` for the following page."""

    items: list[PublicationView]
    next: int | None

    @classmethod
    def of(cls, page: Outbox) -> OutboxPage:
        return cls([PublicationView.of(one) for one in page.items], page.next)

    def record(self) -> Outbox:
        return Outbox([view.record() for view in self.items], self.next)


class ClearBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to remove from the outbox: what was published before a time, or longer ago than a duration."""

    before: datetime | None = None
    older_than: str | None = None


class Cleared(Struct, frozen=True):
    """How much was removed from the outbox."""

    removed: int
