"""The raw limit: what the store can write at best, without an engine.

The same table, key, payload, batch size and driver as the engine's: rows that are made beforehand go through the
store's own multi-row insert, one transaction a batch, in the thread that has the connection.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from jivsd.records import Event, Kind, StepDone, encode, hash_of, new_id
from jivsd.store.sqlite.batch import BatchWriter
from jivsd.store.sqlite.database import connect_writer, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Raw(msgspec.Struct, frozen=True):
    """One turn: how many rows in how many commits took how many seconds."""

    rows: int
    commits: int
    seconds: float


async def measure(path: Path, *, rows: int, runs: int, batch: int) -> Raw:
    """Append `rows` events of `runs` concurrent runs, `batch` in a commit, to a database of its own at `path`."""
    return await trio.to_thread.run_sync(_append, path, rows, runs, batch)


def _append(path: Path, rows: int, runs: int, batch: int) -> Raw:
    assert threading.current_thread() is not threading.main_thread()
    with closing(connect_writer(str(path))) as connection:
        migrate(connection, str(path))
        writer = BatchWriter(connection, str(path))
        prepared = [_values(events) for events in batches(rows, runs, batch)]
        began = time.perf_counter()
        for values in prepared:
            writer.run(writer.sql["begin"])
            writer.many_events(values)
            writer.run(writer.sql["commit"])
        return Raw(rows, len(prepared), time.perf_counter() - began)


def _values(events: list[Event]) -> list[Any]:
    values: list[Any] = []
    for event in events:
        values += (
            event.run_id, event.seq, event.kind, event.path, event.attempt, event.by, event.at,
            event.checksum(), None, event.payload,
        )  # fmt: skip
    return values


def batches(rows: int, runs: int, batch: int) -> Iterator[list[Event]]:
    """The events batch by batch: event after event of run after run, as concurrent runs append them."""
    names = [new_id() for _ in range(runs)]
    payload = encode(StepDone(hash_of(b"[1]"), msgspec.Raw(b"1")))
    at = time.time_ns() // 1000
    events: list[Event] = []
    for row in range(rows):
        events.append(Event(names[row % runs], row // runs + 1, Kind.STEP_DONE, "work#2", payload, at + row, 1))
        if (row + 1) % batch == 0 or row + 1 == rows:
            yield events
            events = []
