"""Writing a batch: one transaction, a verdict for each entry.

Most batches are written boldly: one statement, one round trip, nothing looked up; whatever stands in the way undoes it.
What needs more is decided first: all that bears on the batch is looked up at once, the entries are decided one after
the other in memory, and their rows go in together. When that fails too (a value that PostgreSQL does not take, somebody
who holds a row), each entry is written in a savepoint of its own, so that it can fail alone. The fence comes last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from jivsd.records import Kind
from jivsd.store.api import (
    WRITTEN,
    Append,
    Busy,
    DamagedRow,
    Delivered,
    Duplicate,
    Entry,
    Existing,
    Post,
    Refused,
    StoreError,
    Successor,
    Written,
)
from jivsd.store.postgres import outsiders, rows
from jivsd.store.postgres.connections import FENCED, HELD, translated, translated_commit
from jivsd.store.postgres.content import Content, columns
from jivsd.store.postgres.known import Known, look_up
from jivsd.store.postgres.queues import Queues, concerns_queues
from jivsd.store.tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from jivsd.records import Event, Message
    from jivsd.store.api import NewRun, Verdict
    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection, Sql
    from jivsd.store.postgres.content import Parameter

_FENCED: Final = Refused("fenced")
_BUSY: Final = Busy()

MOST_WAITS: Final = 8
"""How often one batch waits for what somebody has written and not committed; after that, such entries are put off."""


class _Way(IntEnum):
    BOLD = 0
    KNOWING = 1
    DOUBTING = 2
    CAREFUL = 3


class Stage:
    """How far a commit has come, and what it needs of the caller's thread."""

    def __init__(self) -> None:
        self.decisive = False
        """What makes the batch durable has been sent: from now on silence means that nobody knows."""


async def commit(
    connection: Connection, sql: Sql, address: Address, batch: Sequence[Entry | Post], stage: Stage
) -> list[Verdict]:
    """Write a batch; see `jivsd.store.api.Store.commit`. In the bridge's loop."""
    way = _Way.BOLD if _fits_one_statement(batch) else _Way.KNOWING
    held: set[int] = set()
    while True:
        stage.decisive = False
        try:
            if way is _Way.BOLD:
                return await _boldly(connection, sql, batch, stage)
            return await _transact(connection, sql, batch, stage, way, held)
        except Exception as error:
            if way is _Way.CAREFUL or not _concerns_content(error):
                raise (translated_commit if stage.decisive else translated)(error, address) from error
            if isinstance(error, asyncpg.LockNotAvailableError):
                shards = {entry.shard for entry in batch if isinstance(entry, Entry)}
                held = await outsiders.held_shards(connection, sql, address, shards)
            # what is in the way is found out; a value that cannot be written has to be found among the others
            way = max(_Way.DOUBTING, _Way(way + 1)) if _stands_in_the_way(error) else _Way.CAREFUL


def _fits_one_statement(batch: Sequence[Entry | Post]) -> bool:
    """Whether nothing of it has to be looked up: no message is for a run that begins or ends in the same batch."""
    moving: set[str] = set()
    addressed: set[str] = set()
    for entry in batch:
        if isinstance(entry, Append):
            continue
        if isinstance(entry, Post):
            if entry.message.run_id is None or not rows.is_id(entry.message.run_id):
                return False
            addressed.add(entry.message.run_id)
        elif not _is_plain(entry):
            return False
        elif entry.ends or entry.new is not None:
            moving.add(entry.run_id)
    return moving.isdisjoint(addressed)


def _is_plain(entry: Entry) -> bool:
    if entry.inbox or entry.incidents or entry.publishes or entry.progress:
        return False
    return entry.successor is None and not concerns_queues(entry)


def _stands_in_the_way(error: BaseException) -> bool:
    if isinstance(error, asyncpg.UniqueViolationError | asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError):
        return True
    return isinstance(error, _Doubt) or getattr(error, "sqlstate", None) in (HELD, FENCED)


def _concerns_content(error: BaseException) -> bool:
    """Whether an error is about what is to be written, and not about the database."""
    if _stands_in_the_way(error):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError | _TOO_LARGE)
    return not isinstance(error, StoreError | asyncpg.InterfaceError | OSError | TimeoutError)


_TOO_LARGE: Final = asyncpg.ProgramLimitExceededError
"""A value that is too long for an index."""


async def _boldly(connection: Connection, sql: Sql, batch: Sequence[Entry | Post], stage: Stage) -> list[Verdict]:
    content = Content()
    verdicts: list[Verdict] = [WRITTEN] * len(batch)
    for place, entry in enumerate(batch):
        if isinstance(entry, Post):
            run_id = entry.message.run_id
            assert run_id is not None
            content.tell(entry.message, run_id)
            verdicts[place] = Delivered(run_id)
        elif not content.take(entry):
            raise _Doubt
    if content.payloads:
        raise _Doubt
    statement, parameters = _as_one(content)
    stage.decisive = True
    await connection.fetch(sql[statement], *parameters)
    return verdicts


def _as_one(content: Content) -> tuple[str, list[Parameter]]:
    """The one statement that writes everything, and its parameters."""
    if content.messages:
        messages = content.messages_alone()
        return ("put_and_write", [*content.parameters(), *messages]) if content.fences else ("put_messages", messages)
    return ("append_events", content.events_alone()) if content.only_events else ("write_batch", content.parameters())


async def _transact(
    connection: Connection, sql: Sql, batch: Sequence[Entry | Post], stage: Stage, way: _Way, held: set[int]
) -> list[Verdict]:
    await connection.execute(sql["begin"])
    try:
        if way is _Way.CAREFUL:
            verdicts = await _carefully(connection, sql, batch, held)
        else:
            verdicts = await _together(connection, sql, batch, doubtful=way is _Way.DOUBTING, held=held)
        stage.decisive = True
        await connection.execute(sql["commit"])
    except Exception:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute(sql["rollback"])
            stage.decisive = False
        raise
    return verdicts


async def _together(
    connection: Connection, sql: Sql, batch: Sequence[Entry | Post], *, doubtful: bool, held: Container[int]
) -> list[Verdict]:
    known = await look_up(connection, sql, batch, doubtful=doubtful)
    attempt = _Attempt(connection, sql, batch, known, held)
    verdicts = await attempt.decide()
    await attempt.write()
    return verdicts


async def _carefully(connection: Connection, sql: Sql, batch: Sequence[Entry | Post], held: set[int]) -> list[Verdict]:
    """Write each entry in a savepoint, so that it fails alone."""
    verdicts: list[Verdict] = []
    stopped: dict[str, Verdict] = {}
    waits = 0
    for entry in batch:
        run_id = entry.run_id if isinstance(entry, Entry) else None
        if run_id in stopped:
            verdicts.append(stopped[run_id])
            continue
        if waits > MOST_WAITS and _may_wait(entry):
            verdicts.append(_BUSY)
            if run_id is not None:
                stopped[run_id] = _BUSY
            continue
        await connection.execute(sql["savepoint"])
        try:
            (verdict,) = await _together(connection, sql, [entry], doubtful=True, held=held)
        except Exception as error:
            if not _concerns_content(error):
                raise
            await connection.execute(sql["undo"])
            if isinstance(error, asyncpg.LockNotAvailableError):
                waits += 1
                if isinstance(entry, Entry) and not _may_wait(entry):
                    held |= {entry.shard}  # it was free a moment ago
            verdict = _fault(error)
        await connection.execute(sql["release"])
        verdicts.append(verdict)
        if run_id is not None and isinstance(entry, Entry) and (later := for_later(entry, verdict)) is not None:
            stopped[run_id] = later
    return verdicts


def _may_wait(entry: Entry | Post) -> bool:
    """Whether somebody who has written the same, and not committed it, can keep it waiting."""
    if isinstance(entry, Post) or entry.inbox or entry.successor is not None:
        return True
    return entry.new is not None or concerns_queues(entry)


def _fault(error: Exception) -> Verdict:
    """What becomes of an entry that could not be written although nothing was known against it."""
    if getattr(error, "sqlstate", None) == FENCED:
        return _FENCED
    if _stands_in_the_way(error):
        return _BUSY  # somebody else has begun to write the same, or holds a row: it is looked at again
    return Refused("invalid", detail=f"{type(error).__name__}: {error}")


def for_later(entry: Entry, verdict: Verdict) -> Verdict | None:
    """The verdict for the later entries of a run, if this one decides theirs: what is fenced does so by itself."""
    if verdict == _FENCED:
        return None
    if isinstance(verdict, Existing):
        return Refused("exists", entry.run_id)
    if isinstance(verdict, Busy) or (isinstance(verdict, Refused) and not verdict.lives(entry)):
        return verdict
    return None


class _Attempt:
    """One way through a batch: decides its entries in order, and collects what is to be written."""

    def __init__(
        self,
        connection: Connection,
        sql: Sql,
        batch: Sequence[Entry | Post],
        known: Known,
        held: Container[int],
    ) -> None:
        self.content = Content()
        self._connection = connection
        self._sql = sql
        self._batch = batch
        self._known = known
        self._held = held
        self._stopped: dict[str, Verdict] = {}
        self._posted: list[tuple[str, str, str]] = []
        """The messages from outside among those that are still to be written."""
        self._queues = Queues(connection, sql)
        self._queues_matter = any(isinstance(entry, Entry) and concerns_queues(entry) for entry in batch)

    async def decide(self) -> list[Verdict]:
        """A verdict for each entry."""
        return [await self._decide(entry) for entry in self._batch]

    async def write(self) -> None:
        """Write what was collected; the fence is checked last."""
        content = self.content
        if content.payloads:
            named = [(name, uses, body) for name, (uses, body) in content.payloads.items()]
            await self._run("use_payloads", *columns(named, 3))
        await self._put_messages()
        if content.published:
            await self._run("publish", *columns(map(rows.publication_row, content.published), 7))
        for incident in content.incidents.values():
            await self._run("put_incident", *rows.incident_row(incident))
        if content.progress:
            said = [(run_id, one) for (run_id, _), one in content.progress.items()]
            put = [rows.progress_row(run_id, one) for run_id, one in said if one.attempt]
            settled = [(run_id, one.path) for run_id, one in said if not one.attempt]
            await self._run("put_progress", *columns(put, 7))
            await self._run("forget_progress", *columns(settled, 2))
        if content.fences:
            await self._run("write_batch", *content.parameters())

    async def _run(self, statement: str, *parameters: Any) -> list[Any]:
        return await self._connection.fetch(self._sql[statement], *parameters)

    async def _put_messages(self) -> None:
        """Put messages into the inbox. One from outside that is not new after all (another node had it) undoes all."""
        content = self.content
        if content.messages:
            put = await self._run("insert_messages", *columns(content.messages, rows.MESSAGE_COLUMNS))
            names = {tuple(row) for row in put}
            if any(name not in names for name in self._posted):
                raise _Doubt
            content.messages.clear()
            self._posted.clear()

    async def _decide(self, entry: Entry | Post) -> Verdict:
        if isinstance(entry, Post):
            return self._post(entry.message)
        if (earlier := self._stopped.get(entry.run_id)) is not None:
            return earlier
        verdict = await self._entry(entry)
        if (later := for_later(entry, verdict)) is not None:
            self._stopped[entry.run_id] = later
        return verdict

    async def _entry(self, entry: Entry) -> Verdict:
        """First what may be refused, so that a refusal leaves nothing behind."""
        known = self._known
        if known.epochs is not None and known.epochs.get(entry.shard) != entry.epoch:
            return _FENCED
        if entry.shard in self._held:
            return _BUSY
        if entry.new is not None and (verdict := await self._against(entry, entry.new)) is not None:
            return verdict
        if any(map(self._may_go_on, entry.inbox)):
            return _BUSY
        change, seen = entry.change, self._seen(entry)
        if change is not None and (seen is None or isinstance(seen, Written)):
            if (verdict := self._hold(entry.run_id)) is not None:
                return verdict
            if seen is not None:  # an earlier entry without events may just have been written over it
                self.content.change(entry.run_id, change)
        return await self._take(entry) if seen is None else seen

    async def _take(self, entry: Entry) -> Verdict:
        """Nothing stands in the way of the entry: collect what it writes."""
        if not self.content.take(entry):
            raise _Doubt
        if self._known.epochs is not None:
            self._known.stored |= {(event.run_id, event.seq): event for event in entry.events}
        if entry.new is not None:
            await self._begin(entry.new)
        held_by = None if entry.tickets is None else await self._queues.change(entry.run_id, entry.tickets)
        for message in entry.inbox:
            if (run_id := self._receiver(message)) is not None:
                self.content.tell(message, run_id)
                name = message.workflow, message.workflow_id, message.message_id
                self._known.seen.setdefault(name, (run_id, message.at))
        if entry.successor is not None:
            await self._continue(entry.run_id, entry.successor)
        if entry.ends:
            self._known.ends(entry.run_id)
            if self._queues_matter:
                await self._queues.release(entry.run_id)
        return WRITTEN if held_by is None else Written(held_by=held_by)

    def _append(self, event: Event) -> None:
        self.content.append(event)
        if self._known.epochs is not None:
            self._known.stored[event.run_id, event.seq] = event

    def _hold(self, run_id: str) -> Verdict | None:
        """Why a run cannot be changed, if it cannot; found out only when there is doubt."""
        known = self._known
        if known.held is None or run_id in known.held or run_id in self.content.new:
            return None
        return _BUSY if run_id in known.runs else Refused("not_found", run_id)

    async def _against(self, entry: Entry, new: NewRun) -> Verdict | None:
        """What speaks against a start."""
        run, known = new.run, self._known
        if run.run_id in known.runs:
            if known.epochs is None:
                raise _Doubt  # whether it is this start that was written before has to be looked up
            return self._seen(entry) or Refused("exists", run.run_id)
        if new.idempotency_key is not None:
            known_key = known.keys.get((run.workflow, new.idempotency_key))
            if known_key is not None:
                return self._repeated(*known_key, new.input_hash)
        opened = known.open.get((run.workflow, run.workflow_id))
        if opened is not None:
            return Refused("open", opened)
        options = run.options
        if options.lock_key is not None and options.start_at is None and options.lock_wait == 0:
            holder = await self._queues.holder(options.lock_key)
            if holder is not None:
                return Refused("locked", holder)
        return None

    async def _begin(self, new: NewRun) -> None:
        run = new.run
        self._known.begins(run)
        if new.idempotency_key is not None:
            self._known.keys[run.workflow, new.idempotency_key] = (new.input_hash, run.run_id)
            self._known.keyed[run.run_id] = run
        if run.options.lock_key is not None and run.options.start_at is None:
            await self._queues.draw(run.run_id, Ticket(run.options.lock_key, "", run.created_at))

    def _repeated(self, input_hash: str, first: str, repeated_hash: str) -> Verdict:
        """What to say to a start whose idempotency key is known."""
        if input_hash != repeated_hash:
            return Refused("key_reused", first)
        run = self._known.keyed.get(first)
        return Refused("gone", first) if run is None else Existing(run)

    async def _continue(self, run_id: str, successor: Successor) -> None:
        """Begin the run that goes on for one that ends now."""
        run, key = successor.run, successor.run.options.lock_key
        if self._known.held is None and not await self._run("hold_runs", [run_id]):
            raise _Doubt  # another node may tell it something just now: that has to be there before it is handed on
        self._known.ends(run_id)
        self._known.begins(run)
        self._known.continues(run_id, run)
        self.content.begin(run)
        if key is not None:
            await self._queues.hand_on(run_id, run.run_id, key, run.created_at)
        await self._put_messages()
        await self._run("hand_on_messages", run_id, run.run_id)
        for event in successor.events:
            self._append(event)

    def _post(self, message: Message) -> Verdict:
        """Put a message from outside into the inbox of the open run that it is for."""
        known, pair = self._known, (message.workflow, message.workflow_id)
        name = (*pair, message.message_id)
        if (seen := known.seen.get(name)) is not None:
            return Duplicate(seen[0], unread=seen[1])
        run_id = message.run_id
        if run_id is None:
            run_id = known.open.get(pair)
            if run_id is None:
                newest = known.newest.get(pair)
                return Refused("not_found") if newest is None else Refused("ended", newest)
        else:
            place = known.runs.get(run_id)
            if place is None or place.pair != pair:
                return Refused("not_found")
            if not place.open:
                following = known.chains.get(run_id)
                if following is None:
                    return Refused("ended", run_id)
                run_id = following
        if run_id not in known.receivers:
            return _BUSY  # somebody holds its row, perhaps to end it
        known.seen[name] = (run_id, message.at)
        self._posted.append(name)
        self.content.tell(message, run_id)
        return Delivered(run_id)

    def _receiver(self, message: Message) -> str | None:
        """The run that a message from another run is for; None: it was never started, or has been pruned.

        A child may have been continued as new: then it is for the run in which it goes on.
        """
        known = self._known
        if message.run_id is None:
            return known.open.get((message.workflow, message.workflow_id))
        place = known.runs.get(message.run_id)
        if place is None or place.open or message.kind is Kind.CHILD_ENDED:
            return None if place is None else message.run_id
        return known.chains.get(message.run_id, message.run_id)

    def _may_go_on(self, message: Message) -> bool:
        """Whether the run that a message is for may be continued as new, on another node, before it has that."""
        known, run_id = self._known, self._receiver(message)
        if message.kind is Kind.CHILD_ENDED or run_id is None or run_id in known.receivers:
            return False
        place = known.runs.get(run_id)
        return place is None or place.open

    def _seen(self, entry: Entry) -> Verdict | None:
        """Written, if the whole entry was written before; refused, if others stand in its place; None if neither."""
        known = self._known.stored
        try:
            stored = [_intact(known.get((event.run_id, event.seq))) for event in entry.events]
        except DamagedRow as error:
            return Refused("exists", entry.run_id, str(error))
        if not any(stored):
            return None
        return WRITTEN if stored == list(entry.events) else Refused("exists", entry.run_id)


def _intact(event: Event | DamagedRow | None) -> Event | None:
    if isinstance(event, DamagedRow):
        raise event
    return event


class _Doubt(Exception):
    """What is known will not do for this batch."""
