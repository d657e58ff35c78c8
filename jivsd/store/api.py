"""What a store does for the journal: the contract that every store keeps and one conformance suite checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from jivsd.records import Event, Incident, IncidentGroup, Kind, Message, Progress, Publication, Run, Status
from jivsd.store import errors
from jivsd.store.lockbook import LockBook
from jivsd.store.tickets import Tickets
from jivsd.store.txstep import TxDone, TxStep

if TYPE_CHECKING:
    from types import TracebackType

    from jivsd.bridge import Usage
    from jivsd.store.feed import Feed
    from jivsd.store.forwarded import Requests
    from jivsd.store.plugin_tables import Migration
    from jivsd.store.removal import Journals, PruneCount, RunIds
    from jivsd.store.requests import SqlRequests
    from jivsd.store.sharing import Sharing
    from jivsd.store.statistics import Statistics
    from jivsd.store.txstep import Transactions

BadCursor = errors.BadCursor
DamagedRow = errors.DamagedRow
OutcomeUnknown = errors.OutcomeUnknown
StoreAway = errors.StoreAway
StoreError = errors.StoreError
TransactionError = errors.TransactionError
TransactionLate = errors.TransactionLate


class RunChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """New values for a run row; None leaves a column as it is.

    `wake_at` and `parked` belong to the status: a change of status sets them, or clears them when it gives none.
    """

    status: Status | None = None
    paused: bool | None = None
    output: msgspec.Raw | None = None
    error: bytes | None = None
    """JSON of an ErrorRecord."""
    code_hash: str | None = None
    started_at: int | None = None
    ended_at: int | None = None
    wake_at: int | None = None
    attributes: dict[str, Any] | None = None
    """All of them, as they are from now on."""
    parked: bool = False


class NewRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run to be inserted, with what decides whether it may be."""

    run: Run
    idempotency_key: str | None = None
    input_hash: str = ""


class Successor(msgspec.Struct, frozen=True):
    """The run that goes on for one that is continued as new, and its first events."""

    run: Run
    events: Sequence[Event]


class Entry(msgspec.Struct, eq=False):
    """What one run wants to have written, all or nothing, in one batch.

    `events` have contiguous seqs. `epoch` is filled in by the committer. With `tx`, the event that it yields comes
    after `events` and has the next seq (see `TxStep` and `TxDone`: which of them a store takes, `Store.transactions`
    says).
    `inbox` are messages for other runs (a child's end for its parent), delivered without the open check, but dropped
    when there is no such run;
    `consumed` are the ids of this run's messages that have become `events`.
    `publishes` goes into the outbox; `progress` is what steps say of how far they are, or that they have settled.
    `ends`: this is the run's end: its locks are released, unread messages are kept as read by nobody.
    `successor` begins with this end, whose lock and unread messages it gets.
    `incidents` are inserted or, when they exist, replaced. `tickets`: what changes about its places in locks' queues.
    """

    run_id: str
    shard: int
    epoch: int = 0
    events: Sequence[Event] = ()
    change: RunChange | None = None
    new: NewRun | None = None
    tx: TxStep | TxDone | None = None
    consumed: Sequence[str] = ()
    inbox: Sequence[Message] = ()
    incidents: Sequence[Incident] = ()
    publishes: Sequence[Publication] = ()
    progress: Sequence[Progress] = ()
    successor: Successor | None = None
    ends: bool = False
    tickets: Tickets | None = None


class Append(Entry, eq=False):
    """An entry with nothing but `events`, as most are: whoever looks at many need not look for anything else."""


class Post(msgspec.Struct, eq=False):
    """A message from outside, to be put into the inbox if a run is open for it."""

    message: Message


class Written(msgspec.Struct, frozen=True):
    """The entry is committed. `tx_event` is the event that its transaction step yielded.

    `held_by`: the run that has the lock for which a ticket was to be drawn at once, which therefore was not.
    """

    tx_event: Event | None = None
    held_by: str | None = None


WRITTEN: Final = Written()
"""What nearly every entry is answered with: committed, and nothing to add."""


class Existing(msgspec.Struct, frozen=True):
    """A start that was made before under the same idempotency key and input: `run` is the first one."""

    run: Run


class Duplicate(msgspec.Struct, frozen=True):
    """A message whose id was seen before: nothing was written. `run_id`: the run that has it.

    `unread`: when that message was sent, if its run has not read it yet, in microseconds since the epoch.
    """

    run_id: str
    unread: int | None = None


class Delivered(msgspec.Struct, frozen=True):
    """A message is in the inbox. `run_id`: the open run that it is for."""

    run_id: str


class Refused(msgspec.Struct, frozen=True):
    """The entry was not written and never will be.

    `why`: "fenced" (the shard has another owner), "exists" (the seq or run is there already, as an equal row or
    another one), "key_reused" (idempotency key with another input), "open" (the workflow id has an open run),
    "locked" (lock key is held and the start would not wait), "not_found", "ended" (no open run for a message),
    "gone" (pruned), "away" (the store cannot be written to; said to outside starts and messages only), "invalid" (it
    cannot be stored: the detail says why).
    After "fenced" the journal has to be read again before anything is concluded from it: an earlier commit whose
    outcome was unknown may be in it.
    `run_id` names the run that stands in the way, when there is one.
    """

    why: str
    run_id: str | None = None
    detail: str = ""

    def lives(self, entry: Entry) -> bool:
        """Whether the entry was the start of a run that had been started before: what else is written for it is good.

        So a parent that comes back starts its child again, while the child lives on and writes.
        """
        return entry.new is not None and self.why == "exists" and self.run_id == entry.run_id


class Busy(msgspec.Struct, frozen=True):
    """Somebody else holds the run row's lock: the entry waits for the next batch."""


Verdict = Written | Existing | Duplicate | Delivered | Refused | Busy
"""What became of one entry of a batch."""

More = Callable[[list[Verdict]], "list[Entry | Post]"]
"""Takes the verdicts on a batch that is durable; returns the batch that is to be written next, empty: none."""


class RunFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which runs to list: those that meet everything that is given. Times: from `after` on, and before `before`."""

    workflow: str | None = None
    workflow_id: str | None = None
    statuses: Sequence[Status] = ()
    open_only: bool = False
    parent: str | None = None
    correlation_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    ended_after: int | None = None
    ended_before: int | None = None
    paused: bool | None = None
    attributes: dict[str, str] = {}
    """Each with its value as text (see `jivsd.attributes.text`)."""


class Runs(msgspec.Struct, frozen=True):
    """A page of runs. `next`: the cursor of the following page, or None."""

    items: list[Run]
    next: str | None


class Wake(NamedTuple):
    """When a parked run has to be brought back."""

    at: int
    run_id: str


class Recorded(NamedTuple):
    """All that is recorded of an open run: its row, its events in order, its unread messages, its steps' progress."""

    run: Run
    events: list[Event]
    messages: list[Message]
    progress: list[Progress]


Shards = Collection[int] | None
"""Of which shards runs are wanted; None: of all. A store that only one node can have takes no notice."""


class Plugin(msgspec.Struct, frozen=True):
    """A version of a plugin's source, kept so that open runs can go on with it."""

    code_hash: str
    name: str
    files: dict[str, str]
    """Relative path to text."""
    at: int


class Store(LockBook, Protocol):
    """A database that holds the journal. All methods are called from trio.

    Every method may raise `StoreAway`, and `StoreError` when the database says something unexpected.
    """

    @property
    def transactions(self) -> Transactions | None:
        """Who runs transaction steps, for a `TxDone`; None: the writer does, inside batches, which get a `TxStep`."""
        ...

    @property
    def requests(self) -> Requests | None:
        """What nodes that share the database ask of one another; None: only one node can have it."""
        ...

    @property
    def feed(self) -> Feed:
        """All events of all runs, to be followed."""
        ...

    @property
    def sql_requests(self) -> SqlRequests:
        """What was asked for in SQL."""
        ...

    @property
    def sharing(self) -> Sharing | None:
        """How nodes share it; None: it is embedded, or opened for reading only."""
        ...

    async def open(self, node: str, *, share: bool = False) -> int:
        """Check the database, bring its schema up to date, claim all shards for `node`; return the epoch.

        With `share` it claims nothing and returns 0: see `sharing`.
        """
        ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Store: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        """Write a batch in one transaction, durably, and return a verdict for each entry, in order.

        Once an entry of a run is Refused or Busy, the later entries of that run in the batch get the same verdict,
        unless it was a start and the run lives already (see `Refused.lives`), or they are under an epoch that is good.
        An entry that was written before, as a whole and equal byte for byte, is Written again without effect.

        `more` may be called, in any thread, when a batch is durable: it takes that one's verdicts and returns the next
        batch, or nothing. What is returned or raised in the end is about the last batch.

        Raises:
            StoreAway: nothing was written.
            OutcomeUnknown: nobody knows yet.
        """
        ...

    async def raise_epoch(self, node: str, shards: Mapping[int, int]) -> dict[int, int]:
        """Raise the epoch of the shards (shard to present epoch) that `node` still owns; return the new epochs.

        Waits for or shuts out the transactions begun under the old ones. A shard missing in the answer has another
        owner. May be repeated when its outcome is unknown.
        """
        ...

    async def events(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events of a run with seq > `after`, in order.

        Raises:
            DamagedRow: a checksum does not match.
        """
        ...

    async def find_event(self, run_id: str, kind: Kind, path: str) -> Event | None:
        """A run's event of a kind at a path, of which there is at most one. Raises DamagedRow."""
        ...

    async def run(self, run_id: str) -> Run | None: ...

    async def rows(self, run_ids: Sequence[str]) -> list[Run | StoreError | None]:
        """Some runs, in the order of the ids, as `recorded` has them."""
        ...

    async def current_run(self, workflow: str, workflow_id: str) -> Run | None:
        """The open run of a workflow id, or else its newest one."""
        ...

    async def continued(self, run_id: str) -> Run | None:
        """The newest run in which one goes on that was continued as new; None for any other."""
        ...

    async def runs(self, where: RunFilter, limit: int, cursor: str | None = None) -> Runs:
        """A page of runs, newest first; those that are looked for by their end alone: the last one that ended first.

        Raises:
            BadCursor: the cursor came with no page.
        """
        ...

    async def count(self, where: RunFilter, limit: int, cursor: str | None = None) -> int:
        """How many runs `runs` would list behind a cursor, counted up to `limit`. Raises BadCursor."""
        ...

    async def open_runs(self, after: str | None, limit: int, shards: Shards = None) -> list[Run]:
        """Open runs that are not parked, by run id (oldest first), after the given run id: for recovery.

        Damaged rows are left out.
        """
        ...

    async def wakes(self, after: Wake, limit: int, shards: Shards = None) -> list[Wake]:
        """When parked runs have to be brought back, earliest first, after a place in that order."""
        ...

    async def called_runs(self, shards: Shards = None, unread_before: int | None = None) -> list[str]:
        """The ids of the parked runs that have an unread message, or whose turn for a lock has come.

        `unread_before`: also those of the others that have one from before that time.
        """
        ...

    async def recorded(self, run_ids: Sequence[str]) -> list[Recorded | StoreError | None]:
        """What is recorded of some runs, in one snapshot and in the order of the ids; None: there is no such run.

        What is damaged of one run does not keep the others from being read: its place has the error.
        """
        ...

    async def messages(self, *run_ids: str) -> list[Message]:
        """The unread messages of runs, in the order in which they came."""
        ...

    async def progress(self, run_id: str) -> list[Progress]:
        """What is written of how far the steps of a run are, by path."""
        ...

    async def outbox(self, after: int, limit: int, topic: str | None = None) -> list[Publication]:
        """What runs have published, of one topic or of all, with a number above `after`, in order."""
        ...

    async def clear_outbox(self, before: int, limit: int) -> int:
        """Remove up to `limit` of the oldest publications made before a time; return how many."""
        ...

    async def seen_message(self, workflow: str, workflow_id: str, message_id: str) -> tuple[str, Kind] | None:
        """The run that a message was for, and what it was, also long after it was read; None if there was none."""
        ...

    async def incidents(
        self,
        state: str | None = None,
        run_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fingerprint: str | None = None,
        kind: str | None = None,
    ) -> tuple[list[Incident], str | None]:
        """A page of incidents, newest first, and the cursor of the next one."""
        ...

    async def incident_groups(self, state: str | None = None, limit: int = 100) -> list[IncidentGroup]:
        """Incidents grouped by fingerprint, those that were seen last first."""
        ...

    async def incident(self, incident_id: str) -> Incident | None: ...

    async def put_incident(self, incident: Incident) -> None:
        """Insert or replace an incident that belongs to no run (a run's go with its entries)."""
        ...

    async def put_plugin(self, plugin: Plugin) -> None: ...

    async def migrate_plugin(self, plugin: str, migrations: Mapping[str, Sequence[Migration]]) -> None:
        """Apply those of a plugin's migrations (by dialect) that have not been, each in a transaction of its own.

        Raises:
            StoreError: one fails, touches jivsd's own tables, or was applied with another text.
        """
        ...

    async def plugin(self, code_hash: str) -> Plugin | None: ...

    async def counts(self) -> dict[str, int]:
        """How many runs have each status; and how many are "paused", "incidents" open, messages "unread"."""
        ...

    async def statistics(self, since: int, until: int, workflow: str | None = None) -> Statistics:
        """What has become of the runs of all workflows, or of one, since a time, and how many are open."""
        ...

    async def prunable(self, where: RunFilter, limit: int, cursor: str | None = None) -> RunIds:
        """Up to `limit` ended runs that may be removed, oldest first; fewer, if they have many events.

        Those are left out whose parent or whose child is open: a parent that comes back would start its child again.
        """
        ...

    async def count_prunable(self, where: RunFilter) -> list[PruneCount]:
        """How many runs may be removed, by workflow and status."""
        ...

    async def journals(self, where: RunFilter, limit: int, cursor: str | None = None) -> Journals:
        """The runs that `prunable` would name, with their journals."""
        ...

    async def remove(self, run_ids: Sequence[str]) -> int:
        """Remove those of some runs that may be removed, with all that is theirs, in one transaction; say how many.

        Their idempotency keys stay, and answer "gone". The ids of their messages stay while their workflow id has
        another run.
        """
        ...

    async def forget_keys(self, before: int, after: tuple[str, str] = ("", "")) -> tuple[int, tuple[str, str] | None]:
        """Forget some idempotency keys from before a time whose runs have been removed.

        Returns how many, and the key to go on after, or None when all have been looked at.
        """
        ...

    async def shrink(self) -> tuple[int, int]:
        """Give some room that nothing lies in back to the disk: how many bytes, and how many are left (0: none)."""
        ...

    async def trim(self) -> None:
        """Give memory that is not needed just now back."""
        ...

    async def check(self) -> list[str]:
        """Verify the whole database: what is wrong with it, a line each; empty if nothing is."""
        ...

    async def backup(self, target: str) -> None:
        """Write a consistent copy of the database to a new file."""
        ...

    async def clock_off(self) -> float:
        """By how many seconds the database's clock is ahead of this node's (negative: behind); 0: it has none."""
        ...

    def connections(self) -> dict[str, Usage]:
        """The connections to the database, by what they are for; none if it is embedded."""
        ...

    async def outsiders(self) -> list[str]:
        """Who else has a transaction open that may hold rows of the journal, a line each, the oldest first."""
        ...

    async def probe(self) -> None:
        """Write and commit something small: raises when the store cannot be written to."""
        ...
