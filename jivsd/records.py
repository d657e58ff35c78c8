"""The words of jivsd: what the journal holds and what the floors say to each other.

Times are integers, microseconds since the epoch (see `jivsd.clock`). Values that users make (inputs, results,
signals) are JSON as bytes, carried as `msgspec.Raw` so that they are encoded and decoded once.
"""

from __future__ import annotations

import hashlib
import zlib
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
import uuid_utils

from jivsd.fingerprints import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

SHARDS: Final = 64
"""Into how many shards a database's workflows are divided; fixed when the database is made."""


class Status(StrEnum):
    """Where a run stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    BLOCKED = "BLOCKED"
    COMPENSATING = "COMPENSATING"
    COMPENSATION_BLOCKED = "COMPENSATION_BLOCKED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    COMPENSATED = "COMPENSATED"
    CANCELLED = "CANCELLED"
    TERMINATED = "TERMINATED"
    TIMED_OUT = "TIMED_OUT"
    CONTINUED = "CONTINUED"


ENDED: Final = frozenset(
    {
        Status.COMPLETED,
        Status.FAILED,
        Status.COMPENSATED,
        Status.CANCELLED,
        Status.TERMINATED,
        Status.TIMED_OUT,
        Status.CONTINUED,
    }
)
"""The statuses that a run never leaves."""


class Kind(StrEnum):
    """What an event of the journal says."""

    STARTED = "Started"
    STEP_DONE = "StepDone"
    STEP_FAILED = "StepFailed"
    STEP_CANCELLED = "StepCancelled"
    ATTEMPT_FAILED = "AttemptFailed"
    TIMER_FIRED = "TimerFired"
    MARKER = "Marker"
    SIGNAL = "Signal"
    UPDATE = "Update"
    UPDATE_DONE = "UpdateDone"
    LOCK_GRANTED = "LockGranted"
    RESET = "Reset"
    CHILD_ENDED = "ChildEnded"
    CANCEL_REQUESTED = "CancelRequested"
    RECOVERED = "Recovered"
    CODE_CHANGED = "CodeChanged"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    ENDED = "Ended"
    CONTINUED_AS_NEW = "ContinuedAsNew"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One line of a run's journal. `payload` is the JSON of the struct that `PAYLOADS` names for the kind."""

    run_id: str
    seq: int
    kind: str
    path: str
    payload: bytes
    at: int
    attempt: int = 0
    by: str = ""

    def checksum(self) -> int:
        """CRC-32 over everything else in the event; stored beside it, so that a damaged row is found."""
        seq, at, attempt = str(self.seq), str(self.at), str(self.attempt)
        head = "\0".join((self.run_id, seq, self.kind, self.path, at, attempt, self.by, ""))
        return zlib.crc32(self.payload, zlib.crc32(head.encode()))


class ErrorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as the journal keeps it: enough to say what happened and to raise it again."""

    type: str
    message: str
    data: dict[str, Any] = {}
    causes: list[ErrorRecord] = []
    """The members of an exception group."""


NULL: Final = msgspec.Raw(b"null")


def null() -> msgspec.Raw:
    """Make the default of a field that a schema can tell of: no default that is JSON itself can be told."""
    return NULL


class Options(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The options of a start, as resolved when it was accepted and recorded in Started."""

    timeout: int | None = None
    """How long the run may take, in microseconds."""
    lock_key: str | None = None
    lock_wait: int | None = None
    """How long the run waits for its lock, in microseconds; None: without end; 0: fail at once."""
    priority: int = 0
    start_at: int | None = None
    """Not to begin before; then a TimerFired at the path !start says when it does."""
    parent: str | None = None
    """The run id of the parent run."""
    parent_path: str | None = None
    """The path of the call in the parent."""
    parent_args: str | None = None
    """The hash of that call's arguments; the child's end brings it back (rule 10)."""
    parent_workflow: str | None = None
    parent_workflow_id: str | None = None
    correlation_id: str | None = None
    chain: str | None = None
    """The run id of the first run of the chain in which this one continues another as new."""
    attributes: dict[str, Any] = {}


class Started(msgspec.Struct, frozen=True):
    input: msgspec.Raw
    code_hash: str
    seed: str
    options: Options


class StepDone(msgspec.Struct, frozen=True, omit_defaults=True):
    args_hash: str
    result: msgspec.Raw
    why: str = ""
    """When a person gave the result: why (the event's `by` says who)."""
    skipped: bool = False
    """Whether a person has decided that the run goes on without a result, which is null."""


class StepFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The step has failed for good. `unknown`: its last attempt may nevertheless have happened."""

    args_hash: str
    error: ErrorRecord
    unknown: bool = False


class StepCancelled(msgspec.Struct, frozen=True):
    """A cancelled step has settled. `started`: "no" (it certainly did nothing) or "unknown"."""

    args_hash: str
    started: str


class AttemptFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    args_hash: str
    error: ErrorRecord
    next_at: int | None = None
    """When the next attempt is due; None: an incident holds the step."""
    unknown: bool = False


class TimerFired(msgspec.Struct, frozen=True):
    pass


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    value: msgspec.Raw = NULL
    error: ErrorRecord | None = None
    args_hash: str = ""
    """Of what was published, sent or started; nothing for a side effect or a version."""


class Signal(msgspec.Struct, frozen=True):
    name: str
    message_id: str
    payload: msgspec.Raw


class Update(msgspec.Struct, frozen=True):
    name: str
    message_id: str
    payload: msgspec.Raw


class UpdateDone(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to an update: a result, or the error by which it was refused or failed."""

    message_id: str
    result: msgspec.Raw = NULL
    error: ErrorRecord | None = None


class LockGranted(msgspec.Struct, frozen=True, omit_defaults=True):
    fence: int
    args_hash: str = ""
    """Of the key, for a lock that the code asked for; nothing for the run's own."""


class Reset(msgspec.Struct, frozen=True, omit_defaults=True):
    source: str = msgspec.field(name="from")
    seed: str
    start_at: int | None = None
    """Not to go on before, because there is no room; then a TimerFired at the path !start says when it does."""


class ChildEnded(msgspec.Struct, frozen=True, omit_defaults=True):
    run_id: str
    status: Status
    output: msgspec.Raw = NULL
    error: ErrorRecord | None = None
    args_hash: str | None = None
    """Of the call that started the child; None in journals of versions that did not record it."""


class CancelRequested(msgspec.Struct, frozen=True, omit_defaults=True):
    reason: str = ""


class Recovered(msgspec.Struct, frozen=True):
    paths: list[str]


class CodeChanged(msgspec.Struct, frozen=True):
    code_hash: str


class PauseChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    reason: str = ""


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    status: Status
    output: msgspec.Raw = NULL
    error: ErrorRecord | None = None
    unread: list[str] = []
    """Message ids of the signals that nobody read."""
    raised_at: str = ""
    """Where in the plugin's code the run failed: `file:line`. For people only; a replay does not compare it."""


class ContinuedAsNew(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run's end, and the start of the one that goes on for it."""

    run_id: str
    input: msgspec.Raw
    unread: list[str] = []
    """Message ids of the signals that the new run gets first, because this one did not read them."""


PAYLOADS: Final[dict[str, type[msgspec.Struct]]] = {
    Kind.STARTED: Started,
    Kind.STEP_DONE: StepDone,
    Kind.STEP_FAILED: StepFailed,
    Kind.STEP_CANCELLED: StepCancelled,
    Kind.ATTEMPT_FAILED: AttemptFailed,
    Kind.TIMER_FIRED: TimerFired,
    Kind.MARKER: Marker,
    Kind.SIGNAL: Signal,
    Kind.UPDATE: Update,
    Kind.UPDATE_DONE: UpdateDone,
    Kind.LOCK_GRANTED: LockGranted,
    Kind.RESET: Reset,
    Kind.CHILD_ENDED: ChildEnded,
    Kind.CANCEL_REQUESTED: CancelRequested,
    Kind.RECOVERED: Recovered,
    Kind.CODE_CHANGED: CodeChanged,
    Kind.PAUSED: PauseChanged,
    Kind.RESUMED: PauseChanged,
    Kind.ENDED: Ended,
    Kind.CONTINUED_AS_NEW: ContinuedAsNew,
}
"""The payload struct of every kind of event."""

_decode: Final[dict[str, Callable[[bytes], Any]]] = {
    kind: msgspec.json.Decoder(struct).decode for kind, struct in PAYLOADS.items()
}


def payload_of(event: Event) -> Any:
    """Decode an event's payload into its kind's struct."""
    return _decode[event.kind](event.payload)


class Run(msgspec.Struct, omit_defaults=True):
    """The row of a run: written when its status changes, never per step."""

    run_id: str
    workflow: str
    workflow_id: str
    code_hash: str
    shard: int
    status: Status
    input: msgspec.Raw
    created_at: int
    paused: bool = False
    parked: bool = False
    """It waits, nothing is under way for it, and it need not be in memory before `wake_at`. Its status is WAITING then,
    unless it is one that says more."""
    output: msgspec.Raw | None = None
    error: ErrorRecord | None = None
    options: Options = Options()
    started_at: int | None = None
    ended_at: int | None = None
    wake_at: int | None = None
    attributes: dict[str, Any] = {}
    """As they are now. Those of the start are in the options of Started, not in `options` here."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message in the inbox, addressed to a workflow and a workflow id, deduplicated there by its id."""

    workflow: str
    workflow_id: str
    message_id: str
    kind: Kind
    """SIGNAL, UPDATE, CHILD_ENDED, CANCEL_REQUESTED, PAUSED or RESUMED: the event that it becomes."""
    path: str
    payload: bytes
    at: int
    by: str = ""
    run_id: str | None = None
    """The one run that it is meant for; None: whichever is open."""


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a run has published: it stands in the outbox, and was recorded together with its Marker."""

    number: int = 0
    """Its place in the outbox, which the store gives."""
    run_id: str
    path: str
    workflow: str
    workflow_id: str
    topic: str
    payload: msgspec.Raw
    at: int


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step has said last, with `ctx.heartbeat`, of how far it is. Without an attempt: it has settled."""

    path: str
    attempt: int = 0
    """The attempt that said it."""
    at: int = 0
    """When it was heard of last."""
    details: msgspec.Raw = NULL
    done: float | None = None
    total: float | None = None

    @property
    def percent(self) -> float | None:
        return None if self.done is None or not self.total else min(100 * self.done / self.total, 100)

    @property
    def text(self) -> str:
        """For people: `4,000 of 10,000 (40 %), {"table": "orders"}`."""
        parts: list[str] = []
        if self.done is not None:
            of = "" if self.total is None else f" of {self.total:,.10g}"
            share = "" if self.percent is None else f" ({self.percent:.0f} %)"
            parts.append(f"{self.done:,.10g}{of}{share}")
        if self.details != NULL:
            value = msgspec.json.decode(self.details)
            parts.append(value if isinstance(value, str) else msgspec.json.format(self.details, indent=0).decode())
        return ", ".join(parts) or "at work"


class IncidentState(StrEnum):
    OPEN = "OPEN"
    RESOLVED = "RESOLVED"


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody did about an incident, or what became of it by itself (then `by` is empty)."""

    what: str
    """"acknowledge", "retry", "value", "skip", "lift", or why it went away by itself."""
    by: str
    why: str
    at: int


class Incident(msgspec.Struct, omit_defaults=True):
    """Something that a person has to decide or mend."""

    incident_id: str
    kind: str
    """"step" (retries used up), "replay" (the code does not match the journal), "foreign" (undurable await),
    "crash", "handler", "damage", "plugin", "thread", "compensation", "message", "stuck", "still", "quarantine",
    "takedown", "clock", "request" (asked for in SQL, and refused), "deadlock"."""
    message: str
    at: int
    run_id: str | None = None
    workflow: str | None = None
    path: str = ""
    details: dict[str, Any] = {}
    """For "replay": expected and found; for errors: type and data; "error": what went wrong, for the fingerprint."""
    state: IncidentState = IncidentState.OPEN
    resolution: str | None = None
    """"retry", "value", "skip", "lift" or why it went away by itself."""
    resolved_by: str | None = None
    resolved_why: str | None = None
    resolved_at: int | None = None
    history: list[Decision] = []
    """What people did about it, oldest first, and its end."""
    fingerprint: str = ""
    """What it has in common with others of its kind; see `jivsd.fingerprints`."""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            error = str(self.details.get("error", self.message))
            self.fingerprint = fingerprint(self.kind, self.workflow, self.path, error)

    @property
    def acknowledged(self) -> Decision | None:
        """Who has said last that he looks after it."""
        return next((one for one in reversed(self.history) if one.what == "acknowledge"), None)


class IncidentGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """Incidents that have one fingerprint."""

    fingerprint: str
    kind: str
    message: str
    """What the newest of them says."""
    incident_id: str
    """The newest of them."""
    count: int
    first_at: int
    last_at: int
    workflow: str | None = None
    path: str = ""
    """The newest's."""
    runs: int = 0
    """How many runs they belong to."""
    acknowledged: int = 0
    """How many of them somebody looks after."""


encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode
"""Encode a value as JSON bytes (msgspec).

Raises:
    TypeError, ValueError, OverflowError: the value has no JSON form.
"""


_empty: Final = hashlib.blake2b(digest_size=8)


def hash_of(data: bytes) -> str:
    """The short hash by which the journal recognises a command's arguments (BLAKE2b, 64 bits)."""
    digest = _empty.copy()  # half the price of a new one
    digest.update(data)
    return digest.hexdigest()


def new_id() -> str:
    """A new UUIDv7: time-ordered, so that neighbours in time are neighbours in the index."""
    return str(uuid_utils.uuid7())


def derived_id(parent: str, path: str) -> str:
    """The run id of the child that `parent` starts at `path`: the parent's time, and bits derived from both."""
    digest = hashlib.blake2b(f"{parent}\0{path}".encode(), digest_size=16).digest()
    value = (UUID(parent).int >> 80 << 80) | (int.from_bytes(digest) & ((1 << 80) - 1))
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))


def shard_of(workflow_id: str) -> int:
    """The shard that a workflow id belongs to."""
    return zlib.crc32(workflow_id.encode()) % SHARDS
