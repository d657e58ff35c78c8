"""The account of a torture: what was asked of the daemon and acknowledged, and what was done to it.

It is kept in memory for the checks, and in a database of its own for anyone who counts again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.proof.torture.found import Violation
from jivsd.proof.torture.language import WORKFLOW
from jivsd.proof.torture.plans import Plan
from jivsd.proof.torture.programs import Scenario
from jivsd.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA: Final = """
CREATE TABLE started (number INTEGER NOT NULL PRIMARY KEY, run_id TEXT NOT NULL, ending TEXT NOT NULL);
CREATE TABLE told (message_id TEXT NOT NULL PRIMARY KEY, run_id TEXT NOT NULL);
CREATE TABLE answered (run_id TEXT NOT NULL, message_id TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE away (node TEXT NOT NULL, began INTEGER NOT NULL, ended INTEGER NOT NULL);
CREATE TABLE fault (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, second REAL NOT NULL);
"""
"""Starts and signals that were acknowledged, updates that were answered; when a node stood still, in microseconds; what
was done to the daemon, so many seconds after the beginning.
"""


class Case(msgspec.Struct, eq=False):
    """A run that was acknowledged.

    `told`: the ids of the signals that were, by the run that they are for; `answered`: likewise the answers of updates.
    """

    scenario: Scenario
    plan: Plan
    run_id: str
    told: dict[str, list[str]] = {}
    answered: dict[str, dict[str, str]] = {}
    ended: Status | None = None
    """As the daemon has said; None: not yet."""

    @property
    def ref(self) -> str:
        """By which the newest run of its chain answers: its workflow id is the first one's run id."""
        return f"{WORKFLOW}:{self.run_id}"


class Account:
    """Written as things happen."""

    def __init__(self, path: Path, on_acknowledged: Callable[[], None] = lambda: None) -> None:
        """Make it in a new file; `on_acknowledged` is told when the daemon has acknowledged something."""
        with closing(sqlite3.connect(path)) as made:
            made.executescript(SCHEMA)
        self.cases: dict[str, Case] = {}
        """By run id."""
        self.faults: Counter[str] = Counter()
        self.stopped: dict[str, list[tuple[int, int]]] = {}
        """When a node stood still for longer than its lease."""
        self.complaints: list[Violation] = []
        """What was wrong with the daemon's answers."""
        self._on_acknowledged = on_acknowledged
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")  # this process is not the one that is killed

    def close(self) -> None:
        self._db.close()

    def started(self, case: Case) -> None:
        """A start was acknowledged."""
        self._on_acknowledged()
        self.cases[case.run_id] = case
        row = (case.scenario.number, case.run_id, case.scenario.ending)
        self._db.execute("INSERT INTO started VALUES (?, ?, ?)", row)

    def told(self, case: Case, run_id: str, message_id: str) -> None:
        """A signal was acknowledged."""
        self._on_acknowledged()
        case.told.setdefault(run_id, []).append(message_id)
        self._db.execute("INSERT INTO told VALUES (?, ?)", (message_id, run_id))

    def answered(self, case: Case, run_id: str, message_id: str, answer: str) -> None:
        """An update was answered."""
        self._on_acknowledged()
        case.answered.setdefault(run_id, {})[message_id] = answer
        self._db.execute("INSERT INTO answered VALUES (?, ?, ?)", (run_id, message_id, answer))

    def ended(self, case: Case, status: Status) -> None:
        """The daemon has said how a run ended."""
        self._on_acknowledged()
        case.ended = status

    def fault(self, kind: str, second: float) -> None:
        """Something was done to the daemon."""
        self.faults[kind] += 1
        self._db.execute("INSERT INTO fault (kind, second) VALUES (?, ?)", (kind, round(second, 3)))

    def away(self, node: str, began: int, ended: int) -> None:
        """A node stood still for longer than its lease, between these times in microseconds."""
        self.stopped.setdefault(node, []).append((began, ended))
        self._db.execute("INSERT INTO away VALUES (?, ?, ?)", (node, began, ended))

    def complain(self, kind: str, run_id: str, message: str) -> None:
        """The daemon has answered what it must not."""
        self.complaints.append(Violation(kind, run_id, "", message))
