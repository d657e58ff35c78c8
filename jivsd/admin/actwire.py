"""What is sent to act on many runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from jivsd.admin.wire import MAX_PAGE, moment
from jivsd.engine.api import Act
from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.store.api import RunFilter


class FilterFields(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What can be said of runs, in a body or in a query; apart from their attributes."""

    workflow: str | None = None
    id: str | None = None
    status: list[Status] = []
    open: bool = False
    paused: bool | None = None
    parent: str | None = None
    correlation_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None


class FilterBody(FilterFields, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which runs are meant: those to which all that is given applies; with nothing given, all."""

    attributes: dict[str, str] = {}

    @classmethod
    def of(cls, where: RunFilter) -> FilterBody:
        return cls(
            workflow=where.workflow,
            id=where.workflow_id,
            status=list(where.statuses),
            open=where.open_only,
            paused=where.paused,
            parent=where.parent,
            correlation_id=where.correlation_id,
            created_after=moment(where.created_after),
            created_before=moment(where.created_before),
            ended_after=moment(where.ended_after),
            ended_before=moment(where.ended_before),
            attributes=where.attributes,
        )


class ActionsBody(Act, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be done to which runs: either `runs` names them, or `filter` says which, a page of `limit` at a time.

    `dry_run`: nothing is done, the answer says to which runs it would be.
    """

    runs: Annotated[list[str], Meta(max_length=MAX_PAGE)] | None = None
    filter: FilterBody | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None
    dry_run: bool = False

    def act(self) -> Act:
        return Act(**{name: getattr(self, name) for name in Act.__struct_fields__})

    @classmethod
    def of(cls, act: Act, **which: object) -> ActionsBody:
        return msgspec.convert({**msgspec.structs.asdict(act), **which}, cls)


class AllBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which runs are to be paused or resumed: all, or those of one workflow; and why."""

    workflow: str | None = None
    reason: str = ""
    cursor: str | None = None
