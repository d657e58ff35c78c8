"""What the engine answers to the doors above it: records and errors. See `jivsd.engine.engine.Engine`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from jivsd.attributes import Value
from jivsd.cluster.circles import Circle
from jivsd.records import NULL, Event, Incident, Publication, Run, Status, null
from jivsd.store.lockbook import LockQueue


class EngineError(Exception):
    """A request that cannot be met. `code` is stable, for programs; the message is for people."""

    code = "error"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.data = data
        """Facts for programs: run_id, workflow, field and so on."""


class Invalid(EngineError):
    """The input, name or option does not fit (HTTP 422)."""

    code = "invalid"


class NotFound(EngineError):
    """There is no such run, workflow, query or incident (HTTP 404)."""

    code = "not_found"


class Conflict(EngineError):
    """It does not fit the state that things are in (HTTP 409); `data` names the run in the way.

    `code` is one of: open (the workflow id has an open run), key_reused, locked, ended, quarantined, state.
    """

    def __init__(self, message: str, *, code: str = "state", **data: Any) -> None:
        super().__init__(message, **data)
        self.code = code


class Gone(EngineError):
    """The run of this idempotency key was pruned (HTTP 410)."""

    code = "gone"


class UpdateFailed(EngineError):
    """An update was refused when it was applied, or failed (HTTP 422). `data`: run_id, message_id, and its error."""

    code = "update_failed"


class Unavailable(EngineError):
    """Not now: the store is away, the daemon is shutting down or full (HTTP 503). `retry_after` is in seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float = 5, **data: Any) -> None:
        super().__init__(message, **data)
        self.retry_after = retry_after


class StartOptions(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be said with a start; durations as texts such as "10m"."""

    id: str | None = None
    """The workflow id; a new UUID by default."""
    idempotency_key: str | None = None
    correlation_id: str | None = None
    lock_key: str | None = None
    """Instead of the workflow's own."""
    lock_wait: str | None = None
    """How long to wait for the lock; "0s": fail at once."""
    timeout: str | None = None
    priority: int = 0
    """From -100 to 100: where there is not enough room, the higher one goes first."""
    delay: str | None = None
    """How long to wait before it begins; "0s": it is accepted in any case, and begins when there is room."""
    start_at: datetime | None = None
    """Instead of a delay: when it is to begin."""
    attributes: dict[str, Value] = {}
    """By which people find the run: texts, numbers, truth values."""


class Start(msgspec.Struct, frozen=True):
    """An accepted start. `existing`: the run was started before under the same idempotency key."""

    run: Run
    existing: bool


class NewStart(msgspec.Struct, frozen=True):
    """A start that is wanted, one of many."""

    workflow: str
    input: msgspec.Raw = NULL
    options: StartOptions = StartOptions()


class Requested(NewStart, frozen=True, kw_only=True):
    """A start that cannot be refused for want of room: its run is PENDING then. It was asked for before, and may have
    been made before."""

    run_id: str
    by: str


class StartResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of one of many starts: "accepted", "existing" (see `Start`) or "refused"."""

    result: str
    workflow: str
    run_id: str | None = None
    """Of a refused one: the run that is in its way, if there is one."""
    workflow_id: str | None = None
    status: Status | None = None
    code: str | None = None
    """Why it was refused, for programs: see the errors above."""
    why: str | None = None
    """The same for people."""
    retry_after: float | None = None
    """Seconds after which a start that was refused for want of room may be tried again."""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message has been taken. `duplicate`: its id was seen before, and nothing more happens."""

    run_id: str
    message_id: str
    duplicate: bool
    note: str = ""
    """What is odd about it, for people: nothing may ever take it."""


class Updated(msgspec.Struct, frozen=True, omit_defaults=True):
    """An update has been taken. `answered`: its handler has returned `value`; otherwise it is still at work."""

    run_id: str
    message_id: str
    duplicate: bool
    answered: bool
    value: msgspec.Raw = msgspec.field(default_factory=null)


class Answer(msgspec.Struct, frozen=True):
    """A query's answer and the seq of the last event that it takes into account."""

    value: msgspec.Raw
    seq: int


class Timeline(msgspec.Struct, frozen=True):
    """A page of a run's events; `next`: the seq after which the following page begins, or None."""

    items: list[Event]
    next: int | None


class Outbox(msgspec.Struct, frozen=True):
    """A page of what runs have published; `next`: the number after which the following page begins, or None."""

    items: list[Publication]
    next: int | None


class Locks(msgspec.Struct, frozen=True):
    """A page of lock keys that somebody holds, in their order; `next`: the key after which the following page begins.

    `circles`: all runs that wait for one another just now.
    """

    items: list[LockQueue]
    next: str | None
    circles: list[Circle]


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a run waits for."""

    path: str
    kind: str
    """"start" (its time, and room), "step", "retry", "timer", "signal", "update", "until", "child", "lock", "marker",
    "incident", "pause", "row" (of the database, which somebody holds)."""
    what: str
    """For people: "signal 'approve'", "attempt 3 of step copy"."""
    until: int | None = None
    """When it ends by itself, in microseconds since the epoch."""
    behind: list[str] = []
    """For a lock: the run ids ahead, the holder first."""
    error: str | None = None
    """For a retry or an incident: what went wrong last."""


class Why(msgspec.Struct, frozen=True):
    run: Run
    waits: list[Wait]


class Incidents(msgspec.Struct, frozen=True):
    items: list[Incident]
    next: str | None


class Pruned(msgspec.Struct, frozen=True):
    """So many runs have been removed; `next`: the cursor to go on with, or None when none are left."""

    pruned: int
    next: str | None


class Shrunk(msgspec.Struct, frozen=True):
    """So many bytes were given back to the disk; `left`: how many more can be."""

    freed: int
    left: int


GroupAction = Literal["acknowledge", "retry", "resolve", "skip"]
"""What can be done about all incidents of one fingerprint at once."""


class Decided(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an action on one incident of a group; without an `error` it was done."""

    incident_id: str
    run_id: str | None
    error: str | None = None
    code: str | None = None


class GroupDecision(msgspec.Struct, frozen=True):
    """What came of an action on a group. `more`: there are incidents that it has not come to; ask again."""

    items: list[Decided]
    more: bool


RunAction = Literal["pause", "resume", "cancel", "terminate", "retry", "signal"]
"""What can be done to many runs at once."""


class Act(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be done to each of many runs. The last three are of a signal: its name, value and message id."""

    action: RunAction
    reason: str = ""
    signal: str = ""
    payload: msgspec.Raw = msgspec.field(default_factory=null)
    message_id: str | None = None
    """Sent again with the same one, the signal is taken once by each run."""


class Acted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an action on one of many runs.

    `result`: "done", "would" (it was only asked what would be done), "refused" (`code` and `why` say why) or "left"
    (the time of the call was over before its turn came).
    """

    ref: str
    """As it was named; its run id if it was not."""
    result: str
    run_id: str | None = None
    """Of the run that it was done to; of a retry: the new one."""
    workflow: str | None = None
    workflow_id: str | None = None
    status: Status | None = None
    """When the action had been taken; of a signal, which takes effect later, when it was sent."""
    paused: bool = False
    code: str | None = None
    why: str | None = None


COUNTED: Final = 2_000
"""Up to how many runs are counted before something is done to them: in a tenth of a second or so, by any filter."""


class Acts(msgspec.Struct, frozen=True):
    """What came of an action on a page of runs. `next`: the cursor to go on with, or None.

    `left`: how many more there are, counted up to `COUNTED`; None: that cannot be said just now.
    """

    items: list[Acted]
    left: int | None
    next: str | None


class Switched(msgspec.Struct, frozen=True):
    """How far pausing or resuming all runs has come; `next`: the cursor to go on with, None when it is through.

    `refused` are the first hundred of `refusals` runs that could not be paused or resumed; of those that ended
    meanwhile there is nothing to say.
    """

    done: int
    refusals: int
    refused: list[Acted]
    next: str | None


class WorkflowInfo(msgspec.Struct, frozen=True):
    """A workflow type as people see it."""

    name: str
    plugin: str
    code_hash: str
    description: str
    input_schema: dict[str, Any]
    signals: list[str]
    updates: list[str]
    queries: list[str]
    lock_key: str | None = None
    timeout: int | None = None
    active_runs: int | None = None
    running_steps: int | None = None
    """Limits of its own, in force here."""
    quarantined: str | None = None
    """The incident that keeps it from being started, or None."""


class PluginState(msgspec.Struct, frozen=True):
    """A plugin as the daemon found it. `problem`: why it did not load, or None."""

    name: str
    code_hash: str
    workflows: list[str]
    problem: str | None = None


class PluginChange(msgspec.Struct, frozen=True):
    """What has become of a plugin when the files were loaded again.

    `change`: "added", "changed", "unchanged", "removed" (open runs go on, its workflows cannot be started) or "kept"
    (what is there now cannot be used: the version before stays). `code_hash` is the version that is in use, or was
    last; `was` the one before.
    """

    name: str
    change: str
    code_hash: str
    was: str | None
    workflows: list[str]


class Reloaded(msgspec.Struct, frozen=True):
    """`problems`: a sentence for each plugin that cannot be used as it is now."""

    plugins: list[PluginChange]
    problems: list[str]


class Which(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which open runs are meant: those to which all that is given applies."""

    run: str | None = None
    """One run: its id, or "workflow:workflow_id"."""
    workflow: str | None = None
    id: str | None = None
    """The workflow id."""
    status: list[Status] = []
    parent: str | None = None

    def includes(self, run: Run) -> bool:
        """Whether a run is among them; nothing is asked of `self.run`."""
        return (
            self.workflow in (None, run.workflow)
            and self.id in (None, run.workflow_id)
            and self.parent in (None, run.options.parent)
            and (not self.status or run.status in self.status)
        )


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of a run that was to go on with the newest code.

    `state`: "moved", "fits" (it would be moved), "stays" (`path`, `expected`, `found` and `why` say why) or "busy" (it
    did not stand still long enough: try again).
    """

    run_id: str
    workflow: str
    workflow_id: str
    code_hash: str
    """The code that it was on."""
    state: str
    path: str = ""
    expected: str = ""
    found: str = ""
    why: str = ""


class Moves(msgspec.Struct, frozen=True):
    """A page of runs of a plugin that are, or were, on older code than `code_hash`, newest first."""

    plugin: str
    code_hash: str
    items: list[Move]
    next: str | None


class ChildState(msgspec.Struct, frozen=True):
    """A supervised child of the daemon and how often it was started again."""

    name: str
    state: str
    restarts: int


class LimitState(msgspec.Struct, frozen=True):
    """A limit and its use. `what`: "active_runs" or "running_steps"; `workflow`: whose, or None for the daemon's."""

    what: str
    workflow: str | None
    used: int
    limit: int
    waiting: int
    """Runs that wait for room, or steps that wait for their turn."""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon in one record."""

    node: str
    version: str
    started_at: int
    store: str
    """Its URL, without a password."""
    runs: dict[str, int]
    """How many runs have each status."""
    paused: int
    """How many open runs are paused."""
    actors: int
    """Runs in memory."""
    steps_running: int
    limits: list[LimitState]
    """The daemon's first, then those of workflows that have their own."""
    journal_pending: int
    """Entries that wait for the next group commit."""
    store_away: str | None
    """Why the store cannot be written to just now, or None."""
    incidents: int
    """How many are open."""
    plugins: list[PluginState]
    children: list[ChildState]
