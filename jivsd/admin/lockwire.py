"""What the HTTP API and its client say to each other about locks; see `jivsd.admin.wire`."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from jivsd.admin.wire import fields, instant, moment
from jivsd.clock import as_datetime, from_datetime
from jivsd.cluster.circles import Circle, Link
from jivsd.engine.api import Locks
from jivsd.records import Status
from jivsd.store.lockbook import LockQueue, Place


class PlaceView(Struct, frozen=True, kw_only=True):
    """A run that holds a lock, or waits for it. `path`: of the lock in its code; "" for the run's own."""

    run_id: str
    workflow: str
    workflow_id: str
    status: Status
    node: str
    path: str
    ticket: int
    since: datetime
    """When it asked for the lock."""
    held_since: datetime | None

    @classmethod
    def of(cls, place: Place) -> PlaceView:
        return cls(**fields(place, since=as_datetime(place.since), held_since=moment(place.held_since)))

    def record(self) -> Place:
        return Place(**fields(self, since=from_datetime(self.since), held_since=instant(self.held_since)))


class LockView(Struct, frozen=True, kw_only=True):
    """A lock key: who holds it, how many wait, and the first of them, in order."""

    key: str
    fence: int
    holder: PlaceView
    waiting: int
    waiters: list[PlaceView]

    @classmethod
    def of(cls, queue: LockQueue) -> LockView:
        holder, *waiters = [PlaceView.of(place) for place in queue.places]
        return cls(key=queue.key, fence=queue.fence, holder=holder, waiting=queue.waiting, waiters=waiters)

    def record(self) -> LockQueue:
        places = [view.record() for view in (self.holder, *self.waiters)]
        return LockQueue(self.key, self.fence, self.waiting, places)


class LinkView(Struct, frozen=True):
    """A run waits for the next one of its circle: for the lock `key`, or for a child to end (null)."""

    run_id: str
    key: str | None
    path: str
    on: str

    def record(self) -> Link:
        return Link(self.run_id, self.key, self.path, self.on)


class LockPage(Struct, frozen=True):
    """`circles`: of runs that wait for one another, whatever keys were asked for."""

    items: list[LockView]
    next: str | None
    circles: list[list[LinkView]]

    @classmethod
    def of(cls, page: Locks) -> LockPage:
        circles = [[LinkView(*link) for link in circle.links] for circle in page.circles]
        return cls([LockView.of(queue) for queue in page.items], page.next, circles)

    def record(self) -> Locks:
        circles = [Circle(tuple(view.record() for view in links)) for links in self.circles]
        return Locks([view.record() for view in self.items], self.next, circles)
