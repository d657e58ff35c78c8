"""Writing a batch: one transaction, a verdict for each entry.

A batch is written boldly first: what may be refused is looked up for all entries at once, and their rows go in together
at the end. If something then stands in the way (a seq that is there already, a value that SQLite does not take), all is
rolled back and written again carefully, each entry in a savepoint of its own, so that it can fail alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import apsw

from jivsd import attributes
from jivsd.records import Kind
from jivsd.store.api import (
    WRITTEN,
    Append,
    DamagedRow,
    Delivered,
    Duplicate,
    Existing,
    Post,
    Refused,
    StoreError,
    Successor,
    Written,
)
from jivsd.store.rows import merged
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.bulk import EVENT_COLUMNS, Known, Many, as_json, many_inserted, many_updated
from jivsd.store.sqlite.database import AWAY, first, translated, translated_commit
from jivsd.store.sqlite.feed import feed_row
from jivsd.store.sqlite.queues import Queues
from jivsd.store.sqlite.transaction import Guard, Lost, drive, expected
from jivsd.store.statements import statements
from jivsd.store.tickets import Ticket
from jivsd.store.txstep import TxStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.records import Event, Message
    from jivsd.store.api import Entry, NewRun, RunChange, Verdict

_FENCED: Final = Refused("fenced")
_CONTENT: Final = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
"""What SQLite says when an entry's content is at fault, and not the database."""


class BatchWriter:
    """Writes batches with the one connection that writes. Not for two threads at once."""

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self.connection = connection
        self.run: Callable[..., Any] = cast("Any", connection).cursor().execute
        self.sql = statements("sqlite")
        self.guard = Guard(connection)
        self._path = path
        self.many_events = Many(self.run, self.sql["insert_events"])
        self.many_messages = Many(self.run, self.sql["insert_messages"])
        self.many_runs = Many(self.run, many_inserted(self.sql["insert_run"]))
        self.many_changes = Many(self.run, many_updated(self.sql["change_run"]))

    def commit(self, batch: Sequence[Entry | Post]) -> list[Verdict]:
        """Write a batch; see `jivsd.store.api.Store.commit`."""
        failures: dict[int, BaseException] = {}
        careful = False
        while True:
            try:
                return self._transact(_Attempt(self, batch, failures, careful=careful))
            except Lost:
                continue  # the step that took the batch down is known by now, and not run again
            except StoreError:
                raise
            except apsw.Error as error:
                if careful or not isinstance(error, _CONTENT):
                    raise translated(error, self._path) from error
            except Exception:
                if careful:
                    raise
            careful = True

    def _transact(self, attempt: _Attempt) -> list[Verdict]:
        self.run(self.sql["begin"])
        try:
            verdicts = attempt.write()
        except BaseException:
            self._rollback()
            raise
        try:
            self.run(self.sql["commit"])
        except apsw.Error as error:
            self._rollback()
            raise translated_commit(error, self._path) from error
        return verdicts

    def _rollback(self) -> None:
        if self.connection.in_transaction:
            self.run(self.sql["rollback"])


class _Attempt:
    """One way through a batch, inside its transaction."""

    def __init__(
        self,
        writer: BatchWriter,
        batch: Sequence[Entry | Post],
        failures: dict[int, BaseException],
        *,
        careful: bool,
    ) -> None:
        self._writer = writer
        self._batch = batch
        self._failures = failures
        """Of transaction steps that took an earlier attempt down with them: by their place in the batch."""
        self._careful = careful
        self._run = writer.run
        self._sql = writer.sql
        self._epochs: dict[int, int] = {}
        self._refused: dict[str, Refused] = {}
        self._appended: list[Any] = []
        """The values of those rows of events that were written."""
        self._known: Known
        self._queues = Queues(writer.run, writer.sql)
        self._events: list[Any] = []
        """The values of rows that are still to be written; so are the next three."""
        self._runs: list[Any] = []
        self._messages: list[Any] = []
        self._changes: dict[str, RunChange] = {}
        self._consumed: list[tuple[str, str]] = []
        """Messages that have become events: their runs and ids."""
        self._ended: list[str] = []
        """Runs whose unread messages are still to be left."""

    def write(self) -> list[Verdict]:
        """Write every entry that can be written."""
        self._epochs = dict(self._run(self._sql["epochs"]).fetchall())
        if not self._careful:
            self._known = Known(self._run, self._sql, self._batch)
        verdicts = [
            self._add(entry) if isinstance(entry, Append) and not self._careful else self._decide(place, entry)
            for place, entry in enumerate(self._batch)
        ]
        self._flush()
        if self._appended:
            self._run(self._sql["insert_feed"], feed_row(self._appended))
        return verdicts

    def _add(self, entry: Append) -> Verdict:
        """The same as `_decide` for nothing but events."""
        if self._epochs.get(entry.shard) != entry.epoch or entry.run_id in self._refused:
            return self._refused.get(entry.run_id, _FENCED)
        for event in entry.events:
            self._append(event)
        return WRITTEN

    def _decide(self, place: int, entry: Entry | Post) -> Verdict:
        if isinstance(entry, Post):
            return self._alone(lambda: self._post(entry.message)) if self._careful else self._post(entry.message)
        if (earlier := self._refused.get(entry.run_id)) is not None:
            return earlier
        if self._epochs.get(entry.shard) != entry.epoch:
            verdict = _FENCED
        elif self._careful:
            verdict = self._alone(lambda: self._write(place, entry), entry)
        else:
            verdict = self._write(place, entry)
        if verdict is WRITTEN:
            return verdict
        if isinstance(verdict, Existing):
            self._refused[entry.run_id] = Refused("exists", entry.run_id)
        elif isinstance(verdict, Refused) and verdict is not _FENCED and not verdict.lives(entry):
            self._refused[entry.run_id] = verdict
        return verdict

    def _alone(self, act: Callable[[], Verdict], entry: Entry | None = None) -> Verdict:
        """Do what one entry wants in a savepoint, so that it fails alone."""
        self._run(self._sql["savepoint"])
        appended = len(self._appended)
        try:
            verdict = act()
            self._flush()
        except Lost:
            raise
        except Exception as error:
            if isinstance(error, apsw.Error) and not isinstance(error, _CONTENT):
                raise
            self._events.clear()
            self._consumed.clear()
            del self._appended[appended:]
            self._undo()
            if entry is not None and isinstance(error, apsw.ConstraintError) and (seen := self._seen(entry)):
                return self._change_again(entry, seen)
            return Refused("invalid", detail=f"{type(error).__name__}: {error}")
        self._run(self._sql["release"])
        return verdict

    def _undo(self) -> None:
        self._run(self._sql["undo"])
        self._run(self._sql["release"])

    def _write(self, place: int, entry: Entry) -> Verdict:
        """Write an entry: first what may be refused, so that a refusal leaves nothing behind."""
        if entry.new is not None and (verdict := self._start(entry)) is not None:
            return verdict
        if entry.tx is not None and (verdict := self._seen_step(entry)) is not None:
            return self._change_again(entry, verdict)
        if entry.change is not None and not self._change(entry.run_id, entry.change):
            return Refused("not_found", entry.run_id)
        for event in entry.events:
            self._append(event)
        held_by = None if entry.tickets is None else self._queues.change(entry.run_id, entry.tickets)
        if entry.consumed or entry.inbox or entry.incidents or entry.publishes or entry.progress or entry.ends:
            self._accompany(entry)
        if entry.tx is None:
            return WRITTEN if held_by is None else Written(held_by=held_by)
        event = self._step(place, entry)
        self._append(event)
        return Written(event)

    def _change_again(self, entry: Entry, seen: Verdict) -> Verdict:
        """What it says of the run's row still holds: an earlier entry without events was just written over it."""
        if isinstance(seen, Written) and entry.change is not None:
            self._change(entry.run_id, entry.change)
        return seen

    def _one(self, statement: str, *parameters: Any) -> rows.Row | None:
        return first(self._writer.connection, self._sql[statement], *parameters)

    def _append(self, event: Event) -> None:
        payload: bytes | None = event.payload
        name = None
        if len(event.payload) > rows.INLINE_BYTES:
            payload, name = None, rows.payload_hash(event.payload)
            self._run(self._sql["use_payload"], (name, event.payload))
        self._events += (
            event.run_id,
            event.seq,
            event.kind,
            event.path,
            event.attempt,
            event.by,
            event.at,
            event.checksum(),
            name,
            payload,
        )

    def _change(self, run_id: str, change: RunChange) -> bool:
        """Change a run's row; False if there is none."""
        if self._careful or change.attributes is not None:
            self._flush_runs()
            self._run(self._sql["change_run"], rows.change_row(run_id, change))
            if not self._writer.connection.changes():
                return False
            if change.attributes is not None:
                self._run(self._sql["delete_attributes"], (as_json([run_id]),))
                self._put_attributes(run_id, change.attributes)
            return True
        earlier = self._changes.get(run_id)
        self._changes[run_id] = change if earlier is None else merged(earlier, change)
        return True

    def _flush(self) -> None:
        """Write the rows that were put off."""
        self._flush_runs()
        self._flush_messages()
        self._flush_consumed()
        if self._ended:
            self._run(self._sql["leave_all_messages"], (as_json(self._ended),))
            self._ended.clear()
        if self._events:
            events, self._events = self._events, []
            self._appended += events
            if self._careful:
                for at in range(0, len(events), EVENT_COLUMNS):
                    self._run(self._sql["insert_event"], events[at : at + EVENT_COLUMNS])
            else:
                self._writer.many_events(events)

    def _flush_runs(self) -> None:
        """Write what later entries of the batch may look for: the rows of runs."""
        if self._runs:
            runs, self._runs = self._runs, []
            self._writer.many_runs(runs)
        if self._changes:
            changes, self._changes = self._changes, {}
            values = [value for one in changes.items() for value in rows.change_row(*one)]
            if self._writer.many_changes(values, self._writer.connection.changes) != len(changes):
                raise _Carefully

    def _flush_messages(self) -> None:
        """Write what others may hand on, or come behind of."""
        if self._messages:
            messages, self._messages = self._messages, []
            self._writer.many_messages(messages)

    def _flush_consumed(self) -> None:
        if self._consumed:
            self._run(self._sql["consume_messages"], (as_json(self._consumed),))
            self._consumed.clear()

    def _accompany(self, entry: Entry) -> None:
        """Write what goes with the events of an entry."""
        self._consumed += [(entry.run_id, message_id) for message_id in entry.consumed]
        if entry.inbox:
            self._flush_runs()
            self._flush_messages()
        for message in entry.inbox:
            run_id = self._receiver(message)
            if run_id is not None:
                self._run(self._sql["insert_message"], rows.message_row(message, run_id))
        for incident in entry.incidents:
            self._run(self._sql["put_incident"], rows.incident_row(incident))
        for publication in entry.publishes:
            self._run(self._sql["publish"], rows.publication_row(publication))
        for progress in entry.progress:
            statement = "put_progress" if progress.attempt else "forget_progress"
            self._run(self._sql[statement], rows.progress_row(entry.run_id, progress))
        if entry.successor is not None:
            self._continue(entry.run_id, entry.successor)
        if entry.ends and self._careful:
            self._queues.release(entry.run_id)
            self._run(self._sql["leave_messages"], (entry.run_id,))
        elif entry.ends:
            if entry.run_id in self._known.waiting or entry.run_id in self._queues.drawn:
                self._queues.release(entry.run_id)
            self._ended.append(entry.run_id)

    def _start(self, entry: Entry) -> Verdict | None:
        """Insert a new run; or why not."""
        assert entry.new is not None
        new, run = entry.new, entry.new.run
        if not self._careful:
            if self._known.nothing_against(new):
                self._runs += rows.run_row(run)
                if run.attributes:
                    self._flush_runs()
                    self._put_attributes(run.run_id, run.attributes)
                self._keep_key(new)
                return None
            self._flush_runs()
        if self._one("addressed_run", run.run_id) is not None:
            if not self._careful:
                raise _Carefully
            return self._seen(entry) or Refused("exists", run.run_id)
        if new.idempotency_key is not None:
            known = self._one("idempotency_key", run.workflow, new.idempotency_key)
            if known is not None:
                return self._repeated(known[0], known[1], new.input_hash)
        if (opened := self._one("open_run", run.workflow, run.workflow_id)) is not None:
            return Refused("open", opened[0])
        if run.options.lock_key is not None and run.options.start_at is None:
            holder = self._queues.holder(run.options.lock_key)
            if holder is not None and run.options.lock_wait == 0:
                return Refused("locked", holder[0])
            self._queues.draw(run.run_id, Ticket(run.options.lock_key, "", run.created_at))
        self._run(self._sql["insert_run"], rows.run_row(run))
        self._put_attributes(run.run_id, run.attributes)
        self._keep_key(new)
        return None

    def _keep_key(self, new: NewRun) -> None:
        if new.idempotency_key is not None:
            run = new.run
            key = (run.workflow, new.idempotency_key, new.input_hash, run.run_id, run.created_at)
            self._run(self._sql["insert_key"], key)

    def _continue(self, run_id: str, successor: Successor) -> None:
        """Begin the run that goes on for one that ends now."""
        run, key = successor.run, successor.run.options.lock_key
        self._flush_runs()
        self._flush_messages()
        self._flush_consumed()
        self._run(self._sql["insert_run"], rows.run_row(run))
        self._put_attributes(run.run_id, run.attributes)
        if key is not None:
            self._queues.hand_on(run_id, run.run_id, key, run.created_at)
        self._run(self._sql["hand_on_messages"], (run_id, run.run_id))
        for event in successor.events:
            self._append(event)

    def _put_attributes(self, run_id: str, present: dict[str, Any]) -> None:
        for name, value in present.items():
            self._run(self._sql["put_attribute"], (run_id, name, attributes.text(value)))

    def _repeated(self, input_hash: str, first: str, repeated_hash: str) -> Verdict:
        """What to say to a start whose idempotency key is known."""
        if input_hash != repeated_hash:
            return Refused("key_reused", first)
        row = self._one("run", first)
        return Refused("gone", first) if row is None else Existing(rows.run_of(row))

    def _post(self, message: Message) -> Verdict:
        """Put a message from outside into the inbox of the open run that it is for."""
        if not self._careful and (verdict := self._known.delivered(message)) is not None:
            if isinstance(verdict, Delivered):
                self._messages += rows.message_row(message, verdict.run_id)
            return verdict
        self._flush_messages()
        if message.run_id is None or message.run_id in self._changes:
            self._flush_runs()
        seen = self._one("seen_message", message.workflow, message.workflow_id, message.message_id)
        if seen is not None:
            return Duplicate(seen[0], unread=seen[2])
        run_id = message.run_id
        if run_id is None:
            run_id = self._open_run(message)
            if run_id is None:
                newest = self._one("newest_run", message.workflow, message.workflow_id)
                return Refused("not_found") if newest is None else Refused("ended", newest[0])
        else:
            addressed = self._one("addressed_run", run_id)
            if addressed is None and self._runs:
                self._flush_runs()  # it may be one of those
                addressed = self._one("addressed_run", run_id)
            if addressed is None or addressed[1:] != (message.workflow, message.workflow_id):
                return Refused("not_found")
            if not addressed[0]:
                following = self._one("chain_end", run_id)
                if following is None:
                    return Refused("ended", run_id)
                run_id = following[0]
        self._run(self._sql["insert_message"], rows.message_row(message, run_id))
        return Delivered(run_id)

    def _receiver(self, message: Message) -> str | None:
        """The run that a message from another run is for; None: it was never started, or has been pruned.

        A child may have been continued as new: then it is for the run in which it goes on.
        """
        if message.run_id is None:
            return self._open_run(message)
        addressed = self._one("addressed_run", message.run_id)
        if addressed is None or addressed[0] or message.kind is Kind.CHILD_ENDED:
            return message.run_id if addressed is not None else None
        following = self._one("chain_end", message.run_id)
        return message.run_id if following is None else following[0]

    def _open_run(self, message: Message) -> str | None:
        row = self._one("open_run", message.workflow, message.workflow_id)
        return None if row is None else row[0]

    def _step(self, place: int, entry: Entry) -> Event:
        """Run a transaction step; return the event of its success or of its failure."""
        assert isinstance(entry.tx, TxStep)
        failure = self._failures.get(place)
        if failure is None:
            self._run(self._sql["savepoint"])
            try:
                event = drive(self._writer.connection, self._writer.guard, entry.tx)
            except Lost as lost:
                self._failures[place] = lost.cause
                raise
            except (KeyboardInterrupt, SystemExit, *AWAY):
                raise
            except BaseException as error:
                failure = error
                self._undo()
            else:
                self._run(self._sql["release"])
                return expected(event, entry.run_id, entry.tx.seq)
        return expected(entry.tx.failed(failure), entry.run_id, entry.tx.seq)

    def _seen_step(self, entry: Entry) -> Verdict | None:
        """What to say to a transaction step whose event is there already: it must not run again."""
        assert entry.tx is not None
        try:
            event = self._stored(entry.run_id, entry.tx.seq)
            if event is None:
                return None
            whole = all(self._stored(entry.run_id, earlier.seq) == earlier for earlier in entry.events)
        except DamagedRow as error:
            return Refused("exists", entry.run_id, str(error))
        return Written(event) if whole else Refused("exists", entry.run_id)

    def _seen(self, entry: Entry) -> Verdict | None:
        """Written, if the whole entry was written before; refused, if others stand in its place; None if neither."""
        try:
            stored = [self._stored(event.run_id, event.seq) for event in entry.events]
        except DamagedRow as error:
            return Refused("exists", entry.run_id, str(error))
        if not any(stored):
            return None
        return WRITTEN if stored == list(entry.events) else Refused("exists", entry.run_id)

    def _stored(self, run_id: str, seq: int) -> Event | None:
        row = self._one("event", run_id, seq)
        return None if row is None else rows.event_of(row, run_id, seq)


class _Carefully(Exception):
    """The bold way will not do for this batch."""
