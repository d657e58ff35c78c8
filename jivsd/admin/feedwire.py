"""The feed in the words of the API."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jivsd.clock import as_datetime
from jivsd.records import Kind, Status

if TYPE_CHECKING:
    from jivsd.services.following import News
    from jivsd.store.feed import FeedEvent


class FeedEventView(msgspec.Struct, frozen=True):
    """What has happened in a run. `status`: of the run, when the event was read.

    `cursor` is the place after it: whoever comes back with it gets what comes next.
    """

    run_id: str
    workflow: str
    id: str
    status: Status
    seq: int
    kind: Kind
    path: str
    attempt: int
    by: str
    at: datetime
    cursor: str


class FeedPage(msgspec.Struct, frozen=True):
    """Events, those of one run in order; and the cursor of the place after them."""

    events: list[FeedEventView]
    cursor: str


class _Encoded(msgspec.Struct, frozen=True):
    """All of a `FeedEventView` but the cursor, which comes last."""

    run_id: str
    workflow: str
    id: str
    status: str
    seq: int
    kind: str
    path: str
    attempt: int
    by: str
    at: datetime


def encoded(event: FeedEvent) -> bytes:
    """An event as a JSON object, still without its cursor."""
    return _encoder.encode(
        _Encoded(
            event.run_id,
            event.workflow,
            event.workflow_id,
            event.status,
            event.seq,
            event.kind,
            event.path,
            event.attempt,
            event.by,
            as_datetime(event.at),
        )
    )


def frame(news: News) -> bytes:
    """A `FeedPage` of events that are encoded."""
    return b'{"events":[%b],"cursor":"%b"}' % (b",".join(news.events), news.cursor.encode())


_encoder = msgspec.json.Encoder()
