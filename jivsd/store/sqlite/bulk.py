"""Many rows with one statement, and what is known of all entries of a batch before it is written.

Every call into SQLite gives up the interpreter's lock and has to get it back from a busy main thread: with a statement
for each row, ten times slower.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.store.api import Append, Delivered, Duplicate, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jivsd.records import Message
    from jivsd.store.api import NewRun, Post
    from jivsd.store.statements import Statements

SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""How many rows the forms of a statement have."""
EVENT_COLUMNS: Final = 10

_ROW: Final = re.compile(r"\(\?(?:, \?)*\)")
_NUMBERED: Final = re.compile(r"\?(\d+)")


class Many:
    """A statement over a row of values, in forms for many rows; what is left over is filled up with NULL."""

    def __init__(self, run: Callable[..., Any], sql: str) -> None:
        """`sql` has the row of values once: `(?, ?, ...)`."""
        (row,) = _ROW.findall(sql)
        self._run = run
        self._columns = row.count("?")
        self._forms = {size: sql.replace(row, ", ".join([row] * size)) for size in SIZES}

    def __call__(self, values: list[Any], changes: Callable[[], int] = lambda: 0) -> int:
        """Run it for rows, given as their values one after the other; return the sum of what `changes` says."""
        changed = 0
        step = SIZES[-1] * self._columns
        for at in range(0, len(values), step):
            chunk = values[at : at + step]
            size = SIZES[bisect_left(SIZES, len(chunk) // self._columns)]
            chunk += [None] * (size * self._columns - len(chunk))
            self._run(self._forms[size], chunk)
            changed += changes()
        return changed


def many_inserted(insert: str) -> str:
    """A statement that inserts one row, `VALUES (?, ?, ...)`, as one for several."""
    whole = _ROW.sub(r"(VALUES \g<0>) WHERE column1 IS NOT NULL", insert)
    return whole.replace("VALUES (VALUES", "SELECT * FROM (VALUES")


def many_updated(update: str) -> str:
    """A statement that changes the row of one key, `... WHERE key = ?1`, as one for several: ?2 is their column 2."""
    named = _NUMBERED.sub(r"column\1", update)
    marks = ", ".join("?" * max(map(int, _NUMBERED.findall(update))))
    assignments, where, key = named.rpartition("WHERE")
    return f"{assignments}FROM (VALUES ({marks}))\n{where}{key}"


class Known:
    """What the database holds that bears on a batch, looked up once for all its entries."""

    def __init__(self, run: Callable[..., Any], sql: Statements, batch: Sequence[Entry | Post]) -> None:
        others = [entry for entry in batch if not isinstance(entry, Append)]
        posts = [entry.message for entry in others if not isinstance(entry, Entry)]
        moving = [entry for entry in others if isinstance(entry, Entry) and (entry.ends or entry.new is not None)]
        starts = [entry.new for entry in moving if entry.new is not None]

        def look(statement: str, wanted: Iterable[Any]) -> list[Any]:
            asked = list(wanted)
            return run(sql[statement], (as_json(asked),)).fetchall() if asked else []

        self._runs = {row[0] for row in look("known_runs", (new.run.run_id for new in starts))}
        named = [(message.workflow, message.workflow_id) for message in posts if message.run_id is None]
        pairs = [(new.run.workflow, new.run.workflow_id) for new in starts] + named
        self._open = {(workflow, workflow_id): run_id for workflow, workflow_id, run_id in look("open_ids", pairs)}
        keys = ((new.run.workflow, new.idempotency_key) for new in starts if new.idempotency_key is not None)
        self._keys = set(look("known_keys", keys))
        self.waiting = {row[0] for row in look("waiting_runs", (entry.run_id for entry in moving if entry.ends))}
        """Which of the runs that end hold or wait for a lock."""
        self._moving = {entry.run_id for entry in moving}
        """Runs that begin or end in this batch; others have a place that it does not change."""
        self._moving |= {entry.successor.run.run_id for entry in moving if entry.successor is not None}
        addressed = [message.run_id for message in posts if message.run_id is not None]
        self._places = {row[0]: row[1:] for row in look("addressed_runs", addressed)}
        names = ((message.workflow, message.workflow_id, message.message_id) for message in posts)
        self._seen = {tuple(row[:3]): Duplicate(*row[3:]) for row in look("seen_messages", names)}

    def delivered(self, message: Message) -> Delivered | Duplicate | None:
        """What becomes of a message from outside, which is taken down as there; None: that needs a closer look."""
        pair = message.workflow, message.workflow_id
        name = (*pair, message.message_id)
        if (seen := self._seen.get(name)) is not None:
            return seen
        run_id = self._open.get(pair) if message.run_id is None else message.run_id
        if run_id is None or run_id in self._moving:
            return None
        if message.run_id is not None and self._places.get(run_id) != (1, *pair):
            return None
        self._seen[name] = Duplicate(run_id, unread=message.at)
        return Delivered(run_id)

    def nothing_against(self, new: NewRun) -> bool:
        """Whether a start needs no closer look: nothing that was there, or came earlier in the batch, is in its way.

        If so it is taken down as there.
        """
        run, key = new.run, new.idempotency_key
        place = (run.workflow, run.workflow_id)
        if (
            run.options.lock_key is not None
            or run.run_id in self._runs
            or place in self._open
            or (key is not None and (run.workflow, key) in self._keys)
        ):
            return False
        self._runs.add(run.run_id)
        self._open[place] = run.run_id
        if key is not None:
            self._keys.add((run.workflow, key))
        return True


def as_json(values: list[Any]) -> str:
    """A parameter for `json_each`."""
    return msgspec.json.encode(values).decode()
