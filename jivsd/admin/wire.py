"""What the HTTP API and its client say to each other: the engine's records as JSON that people can read.

Times are RFC 3339 texts in UTC, durations texts such as "1h30m", users' values JSON in its place. Each view is made
by `of(record)` at the server and turned back by `record()` at the client.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from jivsd.clock import as_datetime, from_datetime, microseconds
from jivsd.engine.api import (
    ChildState,
    EngineStatus,
    LimitState,
    PluginState,
    Start,
    StartOptions,
    StartResult,
    Timeline,
    Wait,
    Why,
    WorkflowInfo,
)
from jivsd.jsonguard import MAX_BYTES
from jivsd.records import NULL, ErrorRecord, Event, Options, Progress, Run, Status, null, shard_of
from jivsd.store.api import Runs
from jivsd.store.removal import Journal, Journals, PruneCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

API: Final = "/api/v1"
BY_HEADER: Final = "X-Jivsd-By"
"""Names the person on whose behalf a program calls."""
MAX_WAIT: Final = 60.0
"""How long the server holds a request back for a result, in seconds."""
MAX_PAGE: Final = 500
"""The most items in one page of a list."""

MAX_BULK: Final = 1000
"""The most starts in one call."""
BULK_FRAME: Final = 100
"""Bytes of a body around the starts in it."""

_UNITS: Final = (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1))


def duration_text(length: int) -> str:
    """Write microseconds as people write durations; `clock.microseconds` reads it back."""
    sign, rest = ("-", -length) if length < 0 else ("", length)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + "".join(parts) if parts else "0s"


def moment(at: int | None) -> datetime | None:
    """Journal time as a datetime, None as None."""
    return None if at is None else as_datetime(at)


def instant(time: datetime | None) -> int | None:
    """A datetime as journal time, None as None."""
    return None if time is None else from_datetime(time)


def fields(struct: Struct, **changed: Any) -> dict[str, Any]:
    """The fields of a struct, some of them changed: for views that differ from their record in a type or two."""
    return {**msgspec.structs.asdict(struct), **changed}


class ProgressView(Struct, frozen=True, kw_only=True):
    """How far a step has said that it is; `percent` if it has said what the whole is."""

    path: str
    attempt: int
    at: datetime
    details: Raw = field(default_factory=null)
    done: float | None = None
    total: float | None = None
    percent: float | None = None

    @classmethod
    def of(cls, progress: Progress) -> ProgressView:
        return cls(**fields(progress, at=as_datetime(progress.at)), percent=progress.percent)

    def record(self) -> Progress:
        return Progress(self.path, self.attempt, from_datetime(self.at), self.details, self.done, self.total)


class RunView(Struct, frozen=True, kw_only=True):
    """A run. Lists leave `input` and `output` out; without an output so far there is no `output`.

    `progress` is there when the run is looked at by itself and a step under way says how far it is.
    """

    run_id: str
    workflow: str
    workflow_id: str
    status: Status
    paused: bool = False
    input: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    error: ErrorRecord | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    wake_at: datetime | None = None
    timeout: str | None = None
    lock_key: str | None = None
    lock_wait: str | None = None
    priority: int = 0
    start_at: datetime | None = None
    correlation_id: str | None = None
    chain: str | None = None
    attributes: dict[str, Any] = {}
    parent: str | None = None
    parent_path: str | None = None
    parent_workflow: str | None = None
    parent_workflow_id: str | None = None
    code_hash: str = ""
    progress: list[ProgressView] | UnsetType = UNSET

    @classmethod
    def of(cls, run: Run, *, payloads: bool = True, progress: Sequence[Progress] = ()) -> RunView:
        options = run.options
        return cls(
            run_id=run.run_id,
            workflow=run.workflow,
            workflow_id=run.workflow_id,
            status=run.status,
            paused=run.paused,
            input=run.input if payloads else UNSET,
            output=run.output if payloads and run.output is not None else UNSET,
            error=run.error,
            created_at=as_datetime(run.created_at),
            started_at=moment(run.started_at),
            ended_at=moment(run.ended_at),
            wake_at=moment(run.wake_at),
            timeout=None if options.timeout is None else duration_text(options.timeout),
            lock_key=options.lock_key,
            lock_wait=None if options.lock_wait is None else duration_text(options.lock_wait),
            priority=options.priority,
            start_at=moment(options.start_at),
            correlation_id=options.correlation_id,
            chain=options.chain,
            attributes=run.attributes,
            parent=options.parent,
            parent_path=options.parent_path,
            parent_workflow=options.parent_workflow,
            parent_workflow_id=options.parent_workflow_id,
            code_hash=run.code_hash,
            progress=[ProgressView.of(one) for one in progress] or UNSET,
        )

    def record(self) -> Run:
        """The run; from a list, its input is null and its output None."""
        return Run(
            run_id=self.run_id,
            workflow=self.workflow,
            workflow_id=self.workflow_id,
            code_hash=self.code_hash,
            shard=shard_of(self.workflow_id),
            status=self.status,
            input=NULL if self.input is UNSET else self.input,
            created_at=from_datetime(self.created_at),
            paused=self.paused,
            output=None if self.output is UNSET else self.output,
            error=self.error,
            options=Options(
                timeout=None if self.timeout is None else microseconds(self.timeout),
                lock_key=self.lock_key,
                lock_wait=None if self.lock_wait is None else microseconds(self.lock_wait),
                priority=self.priority,
                start_at=instant(self.start_at),
                parent=self.parent,
                parent_path=self.parent_path,
                parent_workflow=self.parent_workflow,
                parent_workflow_id=self.parent_workflow_id,
                correlation_id=self.correlation_id,
                chain=self.chain,
            ),
            started_at=instant(self.started_at),
            ended_at=instant(self.ended_at),
            wake_at=instant(self.wake_at),
            attributes=self.attributes,
        )


class RunPage(Struct, frozen=True):
    items: list[RunView]
    next: str | None

    @classmethod
    def of(cls, page: Runs) -> RunPage:
        return cls([RunView.of(run, payloads=False) for run in page.items], page.next)

    def record(self) -> Runs:
        return Runs([view.record() for view in self.items], self.next)


class StartView(Struct, frozen=True):
    """An accepted start. `existing`: the run was started before under the same idempotency key."""

    run: RunView
    existing: bool

    @classmethod
    def of(cls, start: Start) -> StartView:
        return cls(RunView.of(start.run), start.existing)

    def record(self) -> Start:
        return Start(self.run.record(), self.existing)


class EventView(Struct, frozen=True):
    """An event of a timeline; `payload` depends on the kind."""

    run_id: str
    seq: int
    kind: str
    path: str
    payload: Raw
    at: datetime
    attempt: int
    by: str

    @classmethod
    def of(cls, event: Event) -> EventView:
        at, payload = as_datetime(event.at), Raw(event.payload)
        return cls(event.run_id, event.seq, event.kind, event.path, payload, at, event.attempt, event.by)

    def record(self) -> Event:
        at, payload = from_datetime(self.at), bytes(self.payload)
        return Event(self.run_id, self.seq, self.kind, self.path, payload, at, self.attempt, self.by)


class TimelinePage(Struct, frozen=True):
    """`next`: the seq to give as `after` for the following page."""

    items: list[EventView]
    next: int | None

    @classmethod
    def of(cls, page: Timeline) -> TimelinePage:
        return cls([EventView.of(event) for event in page.items], page.next)

    def record(self) -> Timeline:
        return Timeline([view.record() for view in self.items], self.next)


class WaitView(Struct, frozen=True):
    """One thing that a run waits for."""

    path: str
    kind: str
    what: str
    until: datetime | None
    behind: list[str]
    error: str | None

    @classmethod
    def of(cls, wait: Wait) -> WaitView:
        return cls(wait.path, wait.kind, wait.what, moment(wait.until), wait.behind, wait.error)

    def record(self) -> Wait:
        return Wait(self.path, self.kind, self.what, instant(self.until), self.behind, self.error)


class WhyView(Struct, frozen=True):
    run: RunView
    waits: list[WaitView]

    @classmethod
    def of(cls, why: Why) -> WhyView:
        return cls(RunView.of(why.run, payloads=False), [WaitView.of(wait) for wait in why.waits])

    def record(self) -> Why:
        return Why(self.run.record(), [view.record() for view in self.waits])


class WorkflowView(Struct, frozen=True, kw_only=True):
    """A workflow type; `input_schema` is JSON Schema."""

    name: str
    plugin: str
    code_hash: str
    description: str
    input_schema: dict[str, Any]
    signals: list[str]
    updates: list[str]
    queries: list[str]
    lock_key: str | None
    timeout: str | None
    active_runs: int | None
    running_steps: int | None
    quarantined: str | None

    @classmethod
    def of(cls, info: WorkflowInfo) -> WorkflowView:
        timeout = None if info.timeout is None else duration_text(info.timeout)
        return cls(**fields(info, timeout=timeout))

    def record(self) -> WorkflowInfo:
        timeout = None if self.timeout is None else microseconds(self.timeout)
        return WorkflowInfo(**fields(self, timeout=timeout))


class WorkflowPage(Struct, frozen=True):
    items: list[WorkflowView]
    next: None = None


class PluginPage(Struct, frozen=True):
    items: list[PluginState]
    next: None = None


class StatusView(Struct, frozen=True, kw_only=True):
    """The daemon in one page."""

    node: str
    version: str
    started_at: datetime
    store: str
    runs: dict[str, int]
    paused: int
    actors: int
    steps_running: int
    limits: list[LimitState]
    journal_pending: int
    store_away: str | None
    incidents: int
    plugins: list[PluginState]
    children: list[ChildState]

    @classmethod
    def of(cls, status: EngineStatus) -> StatusView:
        return cls(**fields(status, started_at=as_datetime(status.started_at)))

    def record(self) -> EngineStatus:
        return EngineStatus(**fields(self, started_at=from_datetime(self.started_at)))


class StartBody(StartOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is sent to start a run: the workflow's name, its input and the options of a start."""

    workflow: str
    input: Raw = field(default_factory=null)

    def options(self) -> StartOptions:
        return StartOptions(**{name: getattr(self, name) for name in StartOptions.__struct_fields__})


class BulkBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Starts that are sent together."""

    starts: Annotated[list[StartBody], Meta(max_length=MAX_BULK)]


def bulks(starts: Iterable[tuple[str, Raw, StartOptions]]) -> Iterator[BulkBody]:
    """The bodies in which starts are sent: as many in each as it may have, by number and by size."""
    bodies: list[StartBody] = []
    size = 0
    for workflow, input, options in starts:
        body = StartBody(workflow=workflow, input=input, **msgspec.structs.asdict(options))
        length = len(msgspec.json.encode(body)) + 1
        if bodies and (len(bodies) == MAX_BULK or size + length > MAX_BYTES - BULK_FRAME):
            yield BulkBody(bodies)
            bodies, size = [], 0
        bodies.append(body)
        size += length
    if bodies:
        yield BulkBody(bodies)


class BulkView(Struct, frozen=True):
    """What has become of each, in order."""

    items: list[StartResult]


class SignalBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is sent as a signal or an update."""

    payload: Raw = field(default_factory=null)
    message_id: str | None = None


class QueryBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    payload: Raw = field(default_factory=null)


class ReasonBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Why somebody does what he does to a run, an incident or a workflow."""

    reason: str = ""


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing has to be said."""


Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""The part of the time that removing may take while there is other work."""


class PruneBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which ended runs to remove: those that ended before a time, or longer ago than a duration."""

    workflow: str | None = None
    id: str | None = None
    status: list[Status] = []
    parent: str | None = None
    correlation_id: str | None = None
    ended_before: datetime | None = None
    older_than: str | None = None
    attributes: dict[str, str] = {}
    cursor: str | None = None
    share: Share = 0.1


class RemoveBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    run_ids: Annotated[list[str], msgspec.Meta(max_length=MAX_PAGE)]
    share: Share = 0.1


class KeysBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which idempotency keys to forget: those from before a time whose runs have been removed."""

    before: datetime
    share: Share = 0.1


class ShrinkBody(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    share: Share = 0.1


class Forgotten(Struct, frozen=True):
    forgotten: int


class PruneCounts(Struct, frozen=True):
    items: list[PruneCount]
    next: str | None


class JournalView(Struct, frozen=True):
    """A run with its whole journal."""

    run: RunView
    events: list[EventView]

    @classmethod
    def of(cls, journal: Journal) -> JournalView:
        return cls(RunView.of(journal.run), [EventView.of(event) for event in journal.events])

    def record(self) -> Journal:
        return Journal(self.run.record(), [event.record() for event in self.events])


class JournalPage(Struct, frozen=True):
    """`damaged` says what is wrong with the runs that cannot be read: they are not among the items."""

    items: list[JournalView]
    damaged: list[str]
    next: str | None

    @classmethod
    def of(cls, page: Journals) -> JournalPage:
        return cls([JournalView.of(one) for one in page.items], page.damaged, page.next)

    def record(self) -> Journals:
        return Journals([view.record() for view in self.items], self.damaged, self.next)
