"""Reading what is recorded of many runs at once, for those that come back to memory together.

Row by row, the reader would have to get the interpreter's lock back from a busy loop for every row. Here SQLite puts
all rows of a question into one JSON text, without that lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import apsw
import msgspec

from jivsd.store.api import Recorded, StoreAway, StoreError
from jivsd.store.sqlite import reading, rows
from jivsd.store.sqlite.database import AWAY, first, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jivsd.records import Event, Run

T = TypeVar("T")

_sql: Final = statements("sqlite")
_rows: Final = msgspec.json.Decoder(list[tuple[Any, ...]])


def recorded(connection: apsw.Connection, run_ids: Sequence[str]) -> list[Recorded | StoreError | None]:
    """See `Store.recorded`."""
    return _together(connection, run_ids, _recorded, _recorded_of_one)


def runs(connection: apsw.Connection, run_ids: Sequence[str]) -> list[Run | StoreError | None]:
    """See `Store.rows`."""
    return _together(connection, run_ids, _runs, reading.run)


def _together(
    connection: apsw.Connection,
    run_ids: Sequence[str],
    many: Callable[[apsw.Connection, str], Mapping[str, T]],
    one: Callable[[apsw.Connection, str], T | None],
) -> list[T | StoreError | None]:
    """Read what there is of many runs; or of one after the other, when something of one of them is damaged."""
    with together(connection):
        try:
            found = many(connection, msgspec.json.encode(run_ids).decode())
        except AWAY:
            raise
        except (StoreError, apsw.Error, msgspec.MsgspecError, ValueError, TypeError, AttributeError):
            return [_or_damage(connection, run_id, one) for run_id in run_ids]
        return [found.get(run_id) for run_id in run_ids]


def _or_damage(
    connection: apsw.Connection, run_id: str, one: Callable[[apsw.Connection, str], T | None]
) -> T | StoreError | None:
    try:
        return one(connection, run_id)
    except StoreAway:
        raise
    except StoreError as error:
        return error


def _runs(connection: apsw.Connection, wanted: str) -> dict[str, Run]:
    return {row[0]: rows.run_of(row) for row in _all(connection, "recorded_runs", wanted)}


def _recorded(connection: apsw.Connection, wanted: str) -> dict[str, Recorded]:
    found = {run_id: Recorded(run, [], [], []) for run_id, run in _runs(connection, wanted).items()}
    for row in _all(connection, "recorded_events", wanted):
        events = found[row[0]].events
        events.append(_event(row, len(events) + 1))
    for row in _all(connection, "recorded_messages", wanted):
        found[row[-1]].messages.append(rows.message_of((*row[:5], row[5].encode(), *row[6:])))
    for row in _all(connection, "recorded_progress", wanted):
        found[row[0]].progress.append(rows.progress_of(row[1:]))
    return found


def _all(connection: apsw.Connection, statement: str, wanted: str) -> list[tuple[Any, ...]]:
    row = first(connection, _sql[statement], wanted)
    assert row is not None
    return _rows.decode(row[0])


def _event(row: tuple[Any, ...], seq: int) -> Event:
    return rows.event_of((*row[:4], row[4].encode(), *row[5:]), row[0], seq)


def _recorded_of_one(connection: apsw.Connection, run_id: str) -> Recorded | None:
    run = reading.run(connection, run_id)
    if run is None:
        return None
    events, messages = reading.events(connection, run_id, 0, None), reading.messages(connection, run_id)
    return Recorded(run, events, messages, reading.progress(connection, run_id))
