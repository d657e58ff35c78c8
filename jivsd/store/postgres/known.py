"""What the database holds that bears on a batch, looked up for all its entries at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jivsd.records import ENDED, Kind
from jivsd.store.api import DamagedRow, Entry, Post
from jivsd.store.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jivsd.records import Event, Message, Run
    from jivsd.store.postgres.connections import Connection, Sql

Pair = tuple[str, str]
"""A workflow and a workflow id."""


class Known:
    """What is known of runs, keys, messages and events; kept up to date while entries are decided.

    What was not looked up counts as absent, apart from `epochs` and `held`, which are None then.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Place] = {}
        self.open: dict[Pair, str] = {}
        self.newest: dict[Pair, str] = {}
        self.chains: dict[str, str] = {}
        """The open run in which one that was continued as new goes on."""
        self.keys: dict[Pair, tuple[str, str]] = {}
        """Workflow and key to the input's hash and the first run's id."""
        self.keyed: dict[str, Run] = {}
        """The runs that keys belong to."""
        self.seen: dict[tuple[str, str, str], tuple[str, int | None]] = {}
        """Messages, with the run that has them, and when they were sent if they are unread."""
        self.stored: dict[tuple[str, int], Event | DamagedRow] = {}
        self.epochs: dict[int, int] | None = None
        self.held: set[str] | None = None
        """The runs whose rows this transaction has locked."""
        self.receivers: set[str] = set()
        """The open runs that cannot end before this transaction does."""

    def begins(self, run: Run) -> None:
        """A run is started in this batch."""
        pair = (run.workflow, run.workflow_id)
        is_open = run.status not in ENDED
        self.runs[run.run_id] = Place(is_open, *pair)
        self.newest[pair] = run.run_id
        self.receivers.add(run.run_id)
        if is_open:
            self.open[pair] = run.run_id

    def ends(self, run_id: str) -> None:
        """A run ends in this batch."""
        place = self.runs.get(run_id)
        if place is not None:
            self.runs[run_id] = place._replace(open=False)
            if self.open.get(place.pair) == run_id:
                del self.open[place.pair]
                self.newest[place.pair] = run_id

    def continues(self, run_id: str, successor: Run) -> None:
        """A run goes on as another one."""
        for earlier, last in self.chains.items():
            if last == run_id:
                self.chains[earlier] = successor.run_id
        self.chains[run_id] = successor.run_id


class Place(NamedTuple):
    """Whether a run is open, and what it is called."""

    open: bool
    workflow: str
    workflow_id: str

    @property
    def pair(self) -> Pair:
        return (self.workflow, self.workflow_id)


async def look_up(connection: Connection, sql: Sql, batch: Sequence[Entry | Post], *, doubtful: bool) -> Known:
    """Look up what bears on a batch; `doubtful`: also what only matters when something was written before, is held by
    somebody, or is no longer ours."""
    known = Known()
    look = _Look(connection, sql, known)
    entries = [entry for entry in batch if isinstance(entry, Entry)]
    posts = [entry.message for entry in batch if isinstance(entry, Post)]
    told = [message for entry in entries for message in entry.inbox]
    starts = [entry.new.run for entry in entries if entry.new is not None]
    addressed = [message.run_id for message in (*posts, *told) if message.run_id is not None]
    await look.runs([run.run_id for run in starts] + addressed + [entry.run_id for entry in entries if entry.ends])
    by_name = [(message.workflow, message.workflow_id) for message in (*posts, *told) if message.run_id is None]
    await look.open([(run.workflow, run.workflow_id) for run in starts] + by_name)
    await look.keys(entries)
    if addressed:
        await look.chains(addressed)
    if posts:
        await look.seen(posts)
    if asked := [message for message in (*posts, *told) if message.kind is not Kind.CHILD_ENDED]:
        await look.receivers(asked)
    if doubtful:
        await look.what_is_there(entries)
    return known


class _Look:
    """The questions; none is asked about nothing."""

    def __init__(self, connection: Connection, sql: Sql, known: Known) -> None:
        self._connection = connection
        self._sql = sql
        self._known = known

    async def _ask(self, statement: str, *lists: list[Any]) -> list[Any]:
        return await self._connection.fetch(self._sql[statement], *lists) if lists[0] else []

    async def runs(self, run_ids: Iterable[str]) -> None:
        for run_id, *place in await self._ask("known_runs", rows.ids(list(run_ids))):
            self._known.runs[run_id] = Place(*place)

    async def open(self, pairs: Sequence[Pair]) -> None:
        for workflow, workflow_id, run_id in await self._ask("open_ids", *_turned(pairs)):
            self._known.open[workflow, workflow_id] = run_id
            self._known.runs[run_id] = Place(True, workflow, workflow_id)

    async def keys(self, entries: Sequence[Entry]) -> None:
        known = self._known
        wanted = [
            (entry.new.run.workflow, entry.new.idempotency_key)
            for entry in entries
            if entry.new is not None and entry.new.idempotency_key is not None
        ]
        for workflow, key, input_hash, run_id in await self._ask("known_keys", *_turned(wanted)):
            known.keys[workflow, key] = (input_hash, run_id)
        for row in await self._ask("run", [run_id for _, run_id in known.keys.values()]):
            known.keyed[row["run_id"]] = rows.run_of(row)

    async def chains(self, run_ids: Sequence[str]) -> None:
        for earlier, last in await self._ask("chain_ends", rows.ids(run_ids)):
            self._known.chains[earlier] = last

    async def seen(self, posts: Sequence[Message]) -> None:
        known = self._known
        ids = _turned3([(message.workflow, message.workflow_id, message.message_id) for message in posts])
        for workflow, workflow_id, message_id, run_id, _, unread in await self._ask("seen_messages", *ids):
            known.seen[workflow, workflow_id, message_id] = (run_id, unread)
        pairs = {(message.workflow, message.workflow_id) for message in posts if message.run_id is None}
        closed = [pair for pair in pairs if pair not in known.open]
        for workflow, workflow_id, run_id in await self._ask("newest_ids", *_turned(closed)):
            known.newest[workflow, workflow_id] = run_id

    async def receivers(self, messages: Sequence[Message]) -> None:
        known = self._known
        pairs = {(message.workflow, message.workflow_id) for message in messages if message.run_id is None}
        wanted = {known.open[pair] for pair in pairs if pair in known.open} | set(known.chains.values())
        wanted |= {message.run_id for message in messages if message.run_id is not None}
        for (run_id,) in await self._ask("hold_open_runs", rows.ids(list(wanted))):
            known.receivers.add(run_id)

    async def what_is_there(self, entries: Sequence[Entry]) -> None:
        known = self._known
        changed = [entry.run_id for entry in entries if entry.change is not None]
        known.held = {run_id for (run_id,) in await self._ask("hold_runs", rows.ids(changed))}
        await self.runs(changed)
        await self.stored(entries)
        shards = sorted({entry.shard for entry in entries})
        known.epochs = {shard: epoch for shard, epoch in await self._ask("epochs", shards)}  # noqa: C416 -- of records

    async def stored(self, entries: Sequence[Entry]) -> None:
        wanted = [(event.run_id, event.seq) for entry in entries for event in entry.events]
        wanted = [(run_id, seq) for run_id, seq in wanted if rows.is_id(run_id) and _is_seq(seq)]
        for run_id, seq, *rest in await self._ask("stored_events", *_turned(wanted)):
            try:
                self._known.stored[run_id, seq] = rows.event_of((seq, *rest), run_id, seq)
            except DamagedRow as error:
                self._known.stored[run_id, seq] = error


def _is_seq(value: Any) -> bool:
    """Whether it can be the seq of an event: an entry with another one fails alone, later."""
    return isinstance(value, int) and 0 <= value < 1 << 31


def _turned(pairs: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    unique = list(dict.fromkeys(pairs))
    return [pair[0] for pair in unique], [pair[1] for pair in unique]


def _turned3(triples: Iterable[tuple[str, str, str]]) -> tuple[list[str], list[str], list[str]]:
    unique = list(dict.fromkeys(triples))
    return [one[0] for one in unique], [one[1] for one in unique], [one[2] for one in unique]
