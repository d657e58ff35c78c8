"""The pen of a run: what its actor appends to the journal, and the verdicts that come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd import sizes
from jivsd.records import Event, Kind, Run, Status, encode
from jivsd.store.api import Append, Entry, RunChange

if TYPE_CHECKING:
    from collections.abc import Callable  # noqa: TC004 -- nobody decodes a slot

    from jivsd.engine.services import Services
    from jivsd.store.api import Verdict  # noqa: TC004 -- as above
    from jivsd.store.txstep import TxDone, TxStep


OWN_BYTES: Final = 64 * 1024
"""Bytes that an event may have beside the one value that may be large."""


class _Appended(msgspec.Struct, eq=False):
    """A slot of the journal for what a run appends."""

    entry: Entry
    pen: Pen
    event: Event | None
    then: Callable[[Verdict], None] | None
    unsure: bool = False

    def done(self, verdict: Verdict) -> None:
        pen = self.pen
        pen.pending -= 1
        try:
            pen.committed(self.entry, self.event, verdict)
        except Exception as error:
            pen.fail(error)
        if self.then is not None:
            self.then(verdict)


class Pen(ABC):
    """Writes one run's journal. `run` is its row, kept as it will be once what is appended has been committed.

    `seq` and `at` are those of the last event; `appended` is the last that `append` made (not that of a transaction
    step, which may yet become another, nor the end). `pending` is how many verdicts the journal still owes. `void`:
    nothing more of this life may be recorded, though the shard may be ours again: what came before may not have been.
    """

    __slots__ = ("appended", "at", "pending", "run", "seq", "services", "void")

    def __init__(self, services: Services, run: Run) -> None:
        self.services = services
        self.run = run
        self.seq = 0
        self.at = 0
        self.pending = 0
        self.void = False
        self.appended: Event | None = None

    def address(self) -> dict[str, Any]:
        return {"run_id": self.run.run_id, "shard": self.run.shard}

    def new_event(
        self, kind: Kind, path: str, payload: msgspec.Struct | bytes, attempt: int = 0, by: str = ""
    ) -> Event:
        """The next event of the run's journal; it must be submitted before another is made.

        Raises:
            ValueError: it is too large to be written.
        """
        body = payload if isinstance(payload, bytes) else encode(payload)
        if len(body) > sizes.LARGEST and len(body) > sizes.LARGEST + OWN_BYTES:
            raise ValueError(sizes.too_large(f"{kind} {path}".rstrip(), len(body)))
        self.seq += 1
        now = self.services.clock.now()
        if now > self.at:
            self.at = now
        return Event(self.run.run_id, self.seq, kind, path, body, self.at, attempt, by)

    def append(
        self,
        kind: Kind,
        path: str,
        payload: msgspec.Struct | bytes,
        *,
        attempt: int = 0,
        by: str = "",
        then: Callable[[Verdict], None] | None = None,
        **rest: Any,
    ) -> None:
        """Append an event, which is delivered once it is committed; `then` is told the verdict."""
        event = self.appended = self.new_event(kind, path, payload, attempt, by)
        run = self.run
        made = (
            Entry(run.run_id, run.shard, events=(event,), **rest)
            if rest
            else Append(run.run_id, run.shard, 0, (event,))
        )
        self.submit(made, event, then)

    def append_transaction(self, event: Event, tx: TxStep | TxDone) -> None:
        """Append a transaction step; the event that it yields stands in the place of `event`."""
        self.submit(Entry(**self.address(), tx=tx), event)

    def submit(self, entry: Entry, event: Event | None = None, then: Callable[[Verdict], None] | None = None) -> None:
        """Have something written; its event is delivered once it is committed."""
        if self.run.parked:
            entry = self._unparked(entry)
        self.pending += 1
        self.services.committer.add(_Appended(entry, self, event, then), void=self.void)

    def _unparked(self, entry: Entry) -> Entry:
        """Whatever is written for a parked run says that it is none any more: more is under way now."""
        run = self.run
        run.parked, run.wake_at = False, None
        if run.status is Status.WAITING:
            run.status = Status.RUNNING
        change = entry.change or RunChange()
        if change.status is not None:
            return entry
        change = msgspec.structs.replace(change, status=run.status)
        if isinstance(entry, Append):
            return Entry(entry.run_id, entry.shard, events=entry.events, change=change)
        entry.change = change
        return entry

    @abstractmethod
    def committed(self, entry: Entry, event: Event | None, verdict: Verdict) -> None:
        """The verdict on an entry, and its event."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Something has gone wrong in what was done for this run: it crashes, and nobody else."""

    def guard(self, function: Callable[..., None], *args: Any) -> None:
        """Call a part of this run that somebody else has the call of: a timer, the journal."""
        try:
            function(*args)
        except Exception as error:
            self.fail(error)

    def words(self) -> dict[str, Any]:
        """What every log line about this run carries."""
        return {
            "run_id": self.run.run_id,
            "workflow": self.run.workflow,
            "correlation_id": self.run.options.correlation_id,
        }
