"""What a batch is going to write: collected entry by entry, written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jivsd import attributes
from jivsd.store.payloads import INLINE_BYTES, payload_hash
from jivsd.store.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.records import Event, Incident, Message, Progress, Publication, Run
    from jivsd.store.api import Entry, RunChange


EVENT_COLUMNS: Final = 10


class Content:
    """The rows of a batch. A run has one row and one change, however many entries it has in the batch."""

    def __init__(self) -> None:
        self.fences: dict[int, int] = {}
        """Shard to the epoch that it must have."""
        self.new: dict[str, Run] = {}
        self.changes: dict[str, RunChange] = {}
        self.keys: list[tuple[Any, ...]] = []
        self.attributes: dict[str, dict[str, Any]] = {}
        self.read: list[tuple[str, str]] = []
        self.ended: dict[str, None] = {}
        self.events: list[Event] = []
        self.payloads: dict[str, tuple[int, bytes]] = {}
        """Large ones, by their hash, with how many events use them."""
        self.messages: list[tuple[Any, ...]] = []
        self.published: list[Publication] = []
        self.incidents: dict[str, Incident] = {}
        self.progress: dict[tuple[str, str], Progress] = {}
        """What steps have said last, by run id and path."""

    def take(self, entry: Entry) -> bool:
        """All of an entry but what others have to do with it: its messages, its places in queues, its successor.

        False, and nothing is taken, if another entry has the same shard under another epoch.
        """
        if self.fences.setdefault(entry.shard, entry.epoch) != entry.epoch:
            return False
        if (new := entry.new) is not None:
            run = new.run
            self.begin(run)
            if new.idempotency_key is not None:
                self.keys.append((run.workflow, new.idempotency_key, new.input_hash, run.run_id, run.created_at))
        if entry.change is not None:
            self.change(entry.run_id, entry.change)
        for event in entry.events:
            self.events.append(event)
            if len(event.payload) > INLINE_BYTES:
                self._use_payload(event)
        if entry.consumed:
            self.read += [(entry.run_id, message_id) for message_id in entry.consumed]
        if entry.incidents:
            self.incidents |= {incident.incident_id: incident for incident in entry.incidents}
        if entry.publishes:
            self.published += entry.publishes
        if entry.progress:
            self.progress |= {(entry.run_id, one.path): one for one in entry.progress}
        if entry.ends:
            self.ended[entry.run_id] = None
        return True

    def begin(self, run: Run) -> None:
        """A new run."""
        self.new[run.run_id] = run
        if run.attributes:
            self.attributes[run.run_id] = run.attributes

    def change(self, run_id: str, change: RunChange) -> None:
        """New values for a run."""
        if (run := self.new.get(run_id)) is not None:
            self.new[run_id] = rows.changed(run, change)
        elif (earlier := self.changes.get(run_id)) is not None:
            self.changes[run_id] = rows.merged(earlier, change)
        else:
            self.changes[run_id] = change
        if change.attributes is not None:
            self.attributes[run_id] = change.attributes

    def append(self, event: Event) -> None:
        """One more event."""
        self.events.append(event)
        if len(event.payload) > INLINE_BYTES:
            self._use_payload(event)

    def _use_payload(self, event: Event) -> None:
        name = payload_hash(event.payload)
        uses, _ = self.payloads.get(name, (0, b""))
        self.payloads[name] = (uses + 1, event.payload)

    def tell(self, message: Message, run_id: str) -> None:
        """A message for a run."""
        self.messages.append(rows.message_row(message, run_id))

    @property
    def only_events(self) -> bool:
        """Whether there is nothing else to write."""
        return not (self.new or self.changes or self.attributes or self.read or self.ended)

    def events_alone(self) -> list[list[Any] | None]:
        """The events, as parameters of the function `append_events`."""
        return [list(self.fences), list(self.fences.values()), *self._event_columns()]

    def parameters(self) -> list[list[Any] | None]:
        """All that the function `write_batch` writes, in the order of its parameters. None: an empty list.

        It costs the driver and the server a microsecond or two to see that a list is empty.
        """
        replaced = [run_id for run_id in self.attributes if run_id not in self.new]
        values = [
            (run_id, name, attributes.text(value))
            for run_id, present in self.attributes.items()
            for name, value in present.items()
        ]
        return [
            list(self.fences),
            list(self.fences.values()),
            *_columns(map(rows.run_row, self.new.values()), rows.RUN_COLUMNS),
            *_columns(self.keys, 5),
            *_columns((rows.change_row(*change) for change in self.changes.items()), rows.CHANGE_COLUMNS),
            replaced or None,
            *_columns(values, 3),
            *_columns(self.read, 2),
            list(self.ended) or None,
            *self._event_columns(),
        ]

    def _event_columns(self) -> list[list[Any] | None]:
        events = self.events
        if not events:
            return [None] * EVENT_COLUMNS
        payloads: list[bytes | None] = [event.payload for event in events]
        names: list[str | None] = [None] * len(events)
        if self.payloads:
            for place, event in enumerate(events):
                if len(event.payload) > INLINE_BYTES:
                    payloads[place], names[place] = None, payload_hash(event.payload)
        return [
            [event.run_id for event in events],
            [event.at for event in events],
            [event.checksum() for event in events],
            [event.seq for event in events],
            [event.attempt for event in events],
            [event.kind for event in events],
            [event.path for event in events],
            [event.by for event in events],
            payloads,
            names,
        ]


def columns(found: Iterable[Any], count: int) -> list[list[Any]]:
    """Rows as columns; as many empty ones, if there are no rows."""
    return [column or [] for column in _columns(found, count)]


def _columns(found: Iterable[Any], count: int) -> list[list[Any] | None]:
    turned: list[list[Any] | None] = [list(column) for column in zip(*found, strict=True)]
    return turned or [None] * count
