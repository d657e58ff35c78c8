"""Progress: what a run knows of how far it is, from the times and results of its own events."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from .model import PhaseTime
from .planning import estimated_seconds

if TYPE_CHECKING:
    from datetime import datetime


class Phase(StrEnum):
    """The phases, in order, and the two ends."""

    PLANNING = "PLANNING"
    EXTRACTION = "EXTRACTION"
    TRANSFORMATION = "TRANSFORMATION"
    VALIDATION = "VALIDATION"
    LOADING = "LOADING"
    VERIFICATION = "VERIFICATION"
    CLEANUP = "CLEANUP"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class MigrationStatus(StrEnum):
    """Where a migration stands. PENDING and PAUSED are seen from outside: by the run's own status and its flag."""

    INITIALIZED = "INITIALIZED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"


class TableProgress(msgspec.Struct):
    """`rows` of about `total` are in the target."""

    table: str
    total: int
    rows: int = 0
    bytes: int = 0


class Progress(msgspec.Struct, frozen=True):
    """The answer of the query `progress`.

    The first seven are what any workflow's progress has: in this phase `done` of about `total` units are done, at
    `rate` units a second; the run is at `detail` and may take `remaining_s` more seconds in all. `percent` is of
    the whole migration.
    """

    phase: str
    done: int
    total: int
    unit: str
    detail: str
    rate: float
    remaining_s: float | None
    status: str
    percent: float
    rows: int
    total_rows: int
    bytes: int
    total_bytes: int
    bytes_per_s: float
    tables: list[TableProgress]


_loading_share = 70.0
_verification_share = 28.0
"""Percent of the whole that the two long phases are taken for."""
_samples = 32


class Meter:
    """Counts what is done and when. Times are those of the run's events: the same in every replay."""

    def __init__(self) -> None:
        self.phase = Phase.PLANNING
        self.status = MigrationStatus.INITIALIZED
        self.tables: dict[str, TableProgress] = {}
        self.total_bytes = 0
        self.finished: list[PhaseTime] = []
        self._since: datetime | None = None
        self._detail = ""
        self._done = 0
        self._total = 0
        self._unit = "tables"
        self._history: deque[tuple[datetime, int, int]] = deque(maxlen=_samples)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())

    @property
    def total_rows(self) -> int:
        return sum(table.total for table in self.tables.values())

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables.values())

    def expect(self, table: str, rows: int, size: int) -> None:
        """A table was measured."""
        self.tables[table] = TableProgress(table, rows)
        self.total_bytes += size

    def restore(self, table: str, rows: int, size: int) -> None:
        """An earlier run had loaded these already."""
        self.tables[table].rows += rows
        self.tables[table].bytes += size

    def begin(self, phase: Phase, now: datetime, total: int = 0, unit: str = "tables", done: int = 0) -> None:
        """A phase begins, of `total` units; the one before it ends."""
        if self._since is not None:
            self.finished.append(PhaseTime(self.phase, (now - self._since).total_seconds()))
        self.phase, self._since = phase, now
        self._done, self._total, self._unit, self._detail = done, total, unit, ""
        self._history.clear()
        self._history.append((now, done, self.bytes))

    def complete(self, now: datetime) -> None:
        self.begin(Phase.COMPLETED, now)
        self.status = MigrationStatus.COMPLETED

    def fail(self, now: datetime) -> None:
        self.begin(Phase.FAILED, now)
        self.status = MigrationStatus.FAILED

    def advance(self, units: int, detail: str, now: datetime) -> None:
        """The phase has come `units` further, at `detail`."""
        self._done += units
        self._detail = detail
        self._history.append((now, self._done, self.bytes))

    def loaded(self, table: str, rows: int, size: int, now: datetime) -> None:
        """A chunk of a table is in the target."""
        self.restore(table, rows, size)
        self.advance(rows, table, now)

    def progress(self) -> Progress:
        rate, bytes_rate = self._rates()
        return Progress(
            phase=self.phase,
            done=self._done,
            total=max(self._total, self._done),
            unit=self._unit,
            detail=self._detail,
            rate=round(rate, 1),
            remaining_s=self._remaining(rate),
            status=self.status,
            percent=round(self._percent(), 1),
            rows=self.rows,
            total_rows=max(self.rows, self.total_rows),
            bytes=self.bytes,
            total_bytes=max(self.bytes, self.total_bytes),
            bytes_per_s=round(bytes_rate, 1),
            tables=list(self.tables.values()),
        )

    def _rates(self) -> tuple[float, float]:
        """Units and bytes a second over the last samples."""
        if len(self._history) < 2:
            return 0.0, 0.0
        (began, done, size), (ended, now_done, now_size) = self._history[0], self._history[-1]
        seconds = (ended - began).total_seconds()
        return ((now_done - done) / seconds, (now_size - size) / seconds) if seconds > 0 else (0.0, 0.0)

    def _remaining(self, rate: float) -> float | None:
        left = max(0, self._total - self._done)
        match self.phase:
            case Phase.COMPLETED | Phase.FAILED | Phase.CLEANUP:
                return 0.0
            case Phase.LOADING:
                loading = left / rate if rate else estimated_seconds(left, self.total_bytes)
                return round(loading * (1 + _verification_share / _loading_share), 1)
            case Phase.VERIFICATION:
                return round(left / rate, 1) if rate else None
            case _:
                return None

    def _percent(self) -> float:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        match self.phase:
            case Phase.LOADING:
                return _loading_share * share
            case Phase.VERIFICATION:
                return _loading_share + _verification_share * share
            case Phase.CLEANUP:
                return _loading_share + _verification_share
            case Phase.COMPLETED:
                return 100.0
            case Phase.FAILED:
                return _loading_share * min(1.0, self.rows / self.total_rows) if self.total_rows else 0.0
            case _:
                return 0.0
