"""What a batch is going to write: collected entry by entry, written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd import attributes
from jivsd.store.api import Append
from jivsd.store.payloads import INLINE_BYTES, payload_hash
from jivsd.store.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from jivsd.records import Event, Incident, Message, Progress, Publication, Run
    from jivsd.store.api import Entry, RunChange


EVENT_COLUMNS: Final = 10

Parameter = str | list[Any] | None
"""What is sent of a column: a `literal`, or a list of bytes; None if there are no rows."""


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
        for event in entry.events:
            self.append(event)
        if isinstance(entry, Append):
            return True
        if (new := entry.new) is not None:
            run = new.run
            self.begin(run)
            if new.idempotency_key is not None:
                self.keys.append((run.workflow, new.idempotency_key, new.input_hash, run.run_id, run.created_at))
        if entry.change is not None:
            self.change(entry.run_id, entry.change)
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

    def messages_alone(self) -> list[Parameter]:
        """The messages, as parameters of the function `put_messages`."""
        return _parameters(self.messages, rows.MESSAGE_COLUMNS, bytes_at=rows.MESSAGE_BYTES)

    def events_alone(self) -> list[Parameter]:
        """The events, as parameters of the function `append_events`."""
        return [*self._fence(), *self._event_columns()]

    def parameters(self) -> list[Parameter]:
        """All that the function `write_batch` writes, in the order of its parameters. None: an empty list.

        It costs the driver and the server a microsecond or two to see that a list is empty.
        """
        replaced = [run_id for run_id in self.attributes if run_id not in self.new]
        values = [
            (run_id, name, attributes.text(value))
            for run_id, present in self.attributes.items()
            for name, value in present.items()
        ]
        changes = (rows.change_row(*change) for change in self.changes.items())
        return [
            *self._fence(),
            *_parameters(map(rows.run_row, self.new.values()), rows.RUN_COLUMNS, bytes_at=rows.RUN_BYTES),
            *_parameters(self.keys, 5),
            *_parameters(changes, rows.CHANGE_COLUMNS, bytes_at=rows.CHANGE_BYTES),
            literal(replaced) if replaced else None,
            *_parameters(values, 3),
            *_parameters(self.read, 2),
            literal([*self.ended]) if self.ended else None,
            *self._event_columns(),
        ]

    def _fence(self) -> list[Parameter]:
        return [literal([*self.fences]), literal([*self.fences.values()])]

    def _event_columns(self) -> list[Parameter]:
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
            literal([event.run_id for event in events]),
            literal([event.at for event in events]),
            literal([event.checksum() for event in events]),
            literal([event.seq for event in events]),
            literal([event.attempt for event in events]),
            literal([event.kind for event in events]),
            literal([event.path for event in events]),
            literal([event.by for event in events]),
            payloads,
            literal(names),
        ]


def columns(found: Iterable[Any], count: int) -> list[list[Any]]:
    """Rows as columns; as many empty ones, if there are no rows."""
    return [list(column) for column in zip(*found, strict=True)] or [[] for _ in range(count)]


def _parameters(found: Iterable[Any], count: int, *, bytes_at: Container[int] = ()) -> list[Parameter]:
    turned = enumerate(zip(*found, strict=True))
    return [list(column) if place in bytes_at else literal(column) for place, column in turned] or [None] * count


def literal(values: Sequence[Any]) -> str:
    """A list, not of bytes, as PostgreSQL reads an array: of text the driver makes a parameter in one piece.

    Of each element of a list it asks whether that is a list itself, which takes as long as all the rest of a batch.
    """
    text = msgspec.json.encode(values).decode()
    if "\\" in text:  # JSON also escapes what an array does not
        return f"{{{','.join(map(_element, values))}}}"
    return f"{{{text[1:-1]}}}"


def _element(value: Any) -> str:
    if not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    escaped = value.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
