"""What the databases say: the journal, and the world outside. Read with SQL, not through the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jivsd.records import ErrorRecord, Kind, Status
from jivsd.store.sqlite.database import connect_reader, query

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import apsw

OUTCOMES: Final = frozenset({Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED})
"""The events that settle what a path stands for; there is at most one for each."""
ONCE: Final = OUTCOMES | {Kind.TIMER_FIRED, Kind.MARKER, Kind.LOCK_GRANTED, Kind.UPDATE, Kind.UPDATE_DONE}
"""The events that a path has at most once."""
ENDS: Final = frozenset({Kind.ENDED, Kind.CONTINUED_AS_NEW})
"""The last events of runs."""
Stopped = Mapping[str, Sequence[tuple[int, int]]]
"""By node, when it stood still for longer than its lease: from, to, in microseconds."""
NOBODY: Final[Stopped] = MappingProxyType({})
WAKES_WITHIN: Final = 1_000_000
"""Microseconds that a node has to notice that it has stood still, and to stop what it does."""


_AGAIN: Final = """
SELECT coalesce(sum(times - 1), 0) FROM (
    SELECT count(*) AS times FROM call
    WHERE NOT EXISTS (
        SELECT 1 FROM mended WHERE mended.run_id = call.run_id AND ('/' || call.path) LIKE ('%/' || mended.name)
    )
    GROUP BY run_id, path, attempt
)
"""
"""After an incident attempts are numbered from 1 again: what was mended does not count."""


_SENT: Final = """
SELECT message_id FROM inbox
WHERE "by" = ? AND (state <> 'READ' OR EXISTS (
    SELECT 1 FROM event WHERE event.run_id = inbox.run_id AND kind = 'Signal'
        AND event.payload ->> 'message_id' = message_id))
"""
"""What a run has sent to others and is there: unread, left, or in the journal."""


class Row(msgspec.Struct, frozen=True):
    """A run. `chain`: the one with which the chain began in which it goes on for another."""

    run_id: str
    status: Status
    parent: str | None
    parent_path: str | None
    chain: str | None
    lock_key: str | None
    output: str | None
    error: ErrorRecord | None
    attributes: dict[str, Any]


class Line(msgspec.Struct, frozen=True):
    """An event of the journal."""

    seq: int
    kind: Kind
    path: str
    attempt: int
    at: int
    payload: dict[str, Any]


class Call(msgspec.Struct, frozen=True):
    """A step's body has begun. `since`: its node had just stood still, from that moment on."""

    path: str
    attempt: int
    key: str
    detail: str
    at: int
    since: int | None = None

    def is_late(self, recorded: int) -> bool:
        """Whether it ought not to have begun, because of something that was recorded at a time.

        A node that wakes up may carry out what it was about to when it was stopped: nobody could have told it.
        """
        return self.at > recorded and (self.since is None or recorded < self.since)


class Entry(msgspec.Struct, frozen=True):
    """A row that a transaction step has left."""

    name: str
    amount: int


class Published(msgspec.Struct, frozen=True):
    """An event that stands in the outbox."""

    path: str
    topic: str
    payload: Any


class Life(msgspec.Struct):
    """All that is known about one run."""

    row: Row
    journal: list[Line]
    calls: list[Call]
    ledger: list[Entry]
    counted: tuple[int, int]
    """How many entries its transaction steps have counted, and their sum."""
    children: list[Row]
    left: set[str]
    """Messages that were accepted and that the run ended without reading."""
    sent: set[str]
    """Messages of this run's that another has got: they stand in its journal, or it ended without reading them."""
    published: list[Published]
    """In the order of the outbox."""
    listed: dict[str, str]
    """The attributes, as text, by which the run is found."""

    def outcome(self, path: str) -> Line | None:
        """The first event that settles a path."""
        return next((line for line in self.journal if line.path == path and line.kind in OUTCOMES), None)

    def of(self, path: str, kind: Kind) -> list[Line]:
        """The events of a kind that a path has."""
        return [line for line in self.journal if line.path == path and line.kind == kind]


class Counts(NamedTuple):
    """`again`: the calls that repeat an attempt, because its process had died before its record."""

    runs: int
    events: int
    calls: int
    again: int


class Evidence:
    """The databases of a torture, opened for looking only."""

    def __init__(self, journal: apsw.Connection, world: apsw.Connection, stopped: Stopped) -> None:
        self._journal = journal
        self._world = world
        self._stopped = stopped

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return query(self._journal, sql, parameters).fetchall()

    def run(self, run_id: str) -> Row | None:
        """One run; None if there is none."""
        found = self._runs("WHERE run_id = ?", run_id)
        return found[0] if found else None

    def roots(self) -> list[Row]:
        """The runs that no run has started."""
        return self._runs("WHERE parent IS NULL AND options ->> 'chain' IS NULL")

    def rounds(self, run_id: str) -> list[Row]:
        """The runs in which one goes on as new."""
        return self._runs("WHERE options ->> 'chain' = ? ORDER BY number", run_id)

    def open_runs(self) -> list[Row]:
        """The runs that have not ended."""
        return self._runs("WHERE open")

    def locked(self) -> list[Row]:
        """The runs with a lock key."""
        return self._runs("WHERE lock_key IS NOT NULL")

    def _runs(self, where: str, *parameters: Any) -> list[Row]:
        sql = (
            "SELECT run_id, status, parent, options ->> 'parent_path', options ->> 'chain', lock_key, output, error,"
            " attributes FROM run "
        )
        return [_row(*found) for found in self._rows(sql + where, *parameters)]

    def life(self, run_id: str) -> Life | None:
        """All about one run; None if there is none."""
        row = self.run(run_id)
        if row is None:
            return None
        left = self._rows("SELECT message_id FROM inbox WHERE run_id = ? AND state = 'LEFT'", run_id)
        return Life(
            row,
            self.journal(run_id),
            self._calls(run_id),
            self._ledger(run_id),
            self._counted(run_id),
            self._runs("WHERE parent = ? AND options ->> 'chain' IS NULL", run_id),
            {message_id for (message_id,) in left},
            self._sent(run_id),
            self._published(run_id),
            self._listed(run_id),
        )

    def chain(self, run_id: str) -> list[Life]:
        """All about a run and about those in which it has gone on as new, in this order."""
        lives: list[Life] = []
        while (life := self.life(run_id)) is not None:
            lives.append(life)
            last = life.journal[-1] if life.journal else None
            if last is None or last.kind != Kind.CONTINUED_AS_NEW:
                break
            run_id = last.payload["run_id"]
        return lives

    def journal(self, run_id: str) -> list[Line]:
        """A run's events."""
        sql = (
            "SELECT seq, kind, path, attempt, at, coalesce(event.payload, payload.body)"
            " FROM event LEFT JOIN payload ON payload.hash = event.payload_hash WHERE run_id = ? ORDER BY seq"
        )
        return [
            Line(seq, Kind(kind), path, attempt, at, msgspec.json.decode(payload))
            for seq, kind, path, attempt, at, payload in self._rows(sql, run_id)
        ]

    def _sent(self, run_id: str) -> set[str]:
        found = self._rows(_SENT, f"run {run_id}")
        return {message_id for (message_id,) in found}

    def _published(self, run_id: str) -> list[Published]:
        found = self._rows("SELECT path, topic, payload FROM outbox WHERE run_id = ? ORDER BY number", run_id)
        return [Published(path, topic, msgspec.json.decode(payload)) for path, topic, payload in found]

    def _listed(self, run_id: str) -> dict[str, str]:
        sql = "SELECT name, value FROM attribute JOIN run ON run_number = number WHERE run.run_id = ?"
        return dict(self._rows(sql, run_id))  # pyright: ignore[reportArgumentType]: rows of two

    def _calls(self, run_id: str) -> list[Call]:
        sql = "SELECT path, attempt, key, detail, at, node FROM call WHERE run_id = ? ORDER BY at"
        found = query(self._world, sql, (run_id,)).fetchall()
        return [Call(*call, since=self._since(node, call[-1])) for *call, node in found]

    def _since(self, node: str, at: int) -> int | None:
        times = (began for began, ended in self._stopped.get(node, ()) if began <= at <= ended + WAKES_WITHIN)
        return next(times, None)

    def _ledger(self, run_id: str) -> list[Entry]:
        sql = "SELECT name, amount FROM torture_ledger WHERE run_id = ? ORDER BY entry"
        return [Entry(*found) for found in self._rows(sql, run_id)]

    def sections(self) -> list[tuple[str, str]]:
        """Who has come into a part under a lock, or has left it, in this order: run, and what it has entered."""
        sql = "SELECT run_id, name FROM torture_ledger WHERE name GLOB 'enter-*' OR name GLOB 'leave-*' ORDER BY entry"
        return [(run_id, name) for run_id, name in self._rows(sql)]

    def _counted(self, run_id: str) -> tuple[int, int]:
        found = self._rows("SELECT entries, sum FROM torture_counter WHERE run_id = ?", run_id)
        return (found[0][0], found[0][1]) if found else (0, 0)

    def counts(self) -> Counts:
        """How much there is of everything."""
        ((runs,),) = self._rows("SELECT count(*) FROM run")
        ((events,),) = self._rows("SELECT count(*) FROM event")
        ((calls,),) = query(self._world, "SELECT count(*) FROM call").fetchall()
        ((again,),) = query(self._world, _AGAIN).fetchall()
        return Counts(runs, events, calls, again)

    def strangers(self) -> list[str]:
        """The runs in the journal of which there is no row."""
        known = "SELECT DISTINCT run_id FROM event WHERE run_id NOT IN (SELECT run_id FROM run)"
        return [run_id for (run_id,) in self._rows(known)]

    def unsettled(self) -> list[tuple[str, str]]:
        """Run and path of what long steps have said of themselves, though their run has ended."""
        sql = "SELECT progress.run_id, path FROM progress JOIN run ON run.run_id = progress.run_id WHERE NOT open"
        return [(run_id, path) for run_id, path in self._rows(sql)]

    def incidents(self) -> list[tuple[str | None, str, str]]:
        """Run, path and message of each open incident."""
        sql = "SELECT run_id, path, message FROM incident WHERE state = 'OPEN' AND run_id IS NOT NULL"
        return [(run_id, path, message) for run_id, path, message in self._rows(sql)]


def _row(
    run_id: str,
    status: str,
    parent: str | None,
    parent_path: str | None,
    chain: str | None,
    lock_key: str | None,
    output: str | None,
    error: str | None,
    attributes: str,
) -> Row:
    record = None if error is None else msgspec.json.decode(error, type=ErrorRecord)
    has = msgspec.json.decode(attributes)
    return Row(run_id, Status(status), parent, parent_path, chain, lock_key, output, record, has)


@contextmanager
def looking(journal: Path, world: Path, stopped: Stopped = NOBODY) -> Generator[Evidence]:
    """Look into the databases; a daemon may use them meanwhile. `stopped`: when nodes stood still."""
    with closing(connect_reader(str(journal))) as one, closing(connect_reader(str(world))) as other:
        yield Evidence(one, other, stopped)
