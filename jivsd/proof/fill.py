"""`python -m jivsd.proof.fill --runs N --db FILE`: a database full of runs that have ended.

Several workflows and statuses, correlation ids, children, attributes, spread over a year; every journal with right
checksums, from Started to Ended. Written in bulk, without syncing: a database that was being made when the power went
is made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec

from jivsd import attributes
from jivsd.records import (
    Ended,
    ErrorRecord,
    Event,
    Kind,
    Options,
    Run,
    Started,
    Status,
    StepDone,
    encode,
    hash_of,
    shard_of,
)
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import connect_writer, migrate, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKFLOWS: Final = ("order", "campaign", "migration", "invoice", "onboarding")
STATUSES: Final = (Status.COMPLETED,) * 90 + (Status.FAILED,) * 5 + (Status.COMPENSATED,) * 3
REGIONS: Final = ("eu", "us", "asia")
YEAR: Final = 365 * 24 * 3600 * 1_000_000
CHUNK: Final = 2_000
"""Runs in one transaction."""
CODE: Final = "f111ed"

_ERROR: Final = ErrorRecord("ConnectionError", "no route to the warehouse")
_FAST: Final = ("PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000")


def fill(path: Path, runs: int, *, steps: int = 10, seed: int = 1, tell: Callable[[int], None] = lambda _: None) -> int:
    """Add so many ended runs to the database at `path`, which is made if it is not there; return how many events.

    The first run began a year ago, the last ends now. `tell` is told now and then how many are written.
    """
    sql = statements("sqlite")
    events = written = 0
    with closing(connect_writer(str(path))) as connection:
        migrate(connection, str(path))
        for pragma in _FAST:
            query(connection, pragma)
        many: Any = cast("Any", connection).cursor().executemany
        for chunk in _chunks(_journals(runs, steps, Random(seed)), CHUNK):
            with together(connection):
                many(sql["insert_run"], [rows.run_row(run) for run, _ in chunk])
                many(sql["put_attribute"], list(_attributes(chunk)))
                many(sql["insert_event"], [_row(event) for _, journal in chunk for event in journal])
            events += sum(len(journal) for _, journal in chunk)
            written += len(chunk)
            tell(written)
        query(connection, "PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return events


def _chunks(journals: Iterator[tuple[Run, list[Event]]], size: int) -> Iterator[list[tuple[Run, list[Event]]]]:
    chunk: list[tuple[Run, list[Event]]] = []
    for one in journals:
        chunk.append(one)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _journals(runs: int, steps: int, random: Random) -> Iterator[tuple[Run, list[Event]]]:
    end = time.time_ns() // 1000
    parent: Run | None = None
    for number in range(runs):
        at = end - YEAR + YEAR * number // max(1, runs) - 60_000_000
        run = _run(number, at, random, parent if number % 10 == 1 else None)
        if number % 10 == 0:
            parent = run
        yield run, _journal(run, steps)


def _run(number: int, at: int, random: Random, parent: Run | None) -> Run:
    run_id = _uuid7(at, random)
    workflow_id = f"{number:08}-{random.randrange(10**6):06}" if number % 2 else run_id
    status = random.choice(STATUSES)
    ended_at = at + random.randrange(1_000_000, 60_000_000)
    failed = status is not Status.COMPLETED
    run = Run(
        run_id=run_id,
        workflow=WORKFLOWS[number % len(WORKFLOWS)],
        workflow_id=workflow_id,
        code_hash=CODE,
        shard=shard_of(workflow_id),
        status=status,
        input=msgspec.Raw(encode({"customer": number % 1000, "items": ["tea", "cups"], "express": bool(number % 3)})),
        created_at=at,
        started_at=at,
        ended_at=ended_at,
        output=None if failed else msgspec.Raw(b'{"sent":true}'),
        error=_ERROR if failed else None,
        options=Options(
            correlation_id=f"batch-{number // 50}" if number % 4 == 0 else None,
            parent=None if parent is None else parent.run_id,
        ),
    )
    if number % 5 == 0:
        run.attributes = {"region": REGIONS[number % 3], "customer": f"c{number % 5000}"}
    return run


def _journal(run: Run, steps: int) -> list[Event]:
    assert run.ended_at is not None
    started = Started(run.input, run.code_hash, run.run_id, run.options)
    journal = [Event(run.run_id, 1, Kind.STARTED, "", encode(started), run.created_at)]
    each = (run.ended_at - run.created_at) // (steps + 1)
    for step in range(1, steps + 1):
        at = run.created_at + each * step
        journal.append(Event(run.run_id, step + 1, Kind.STEP_DONE, f"reserve#{step}", _done(step), at, 1))
    ended = Ended(run.status, run.output or msgspec.Raw(b"null"), run.error)
    journal.append(Event(run.run_id, steps + 2, Kind.ENDED, "", encode(ended), run.ended_at))
    return journal


@cache
def _done(step: int) -> bytes:
    result = msgspec.Raw(b'{"stock":%d,"place":"shelf %d"}' % (step * 7, step))
    return encode(StepDone(hash_of(b"[%d]" % step), result))


def _uuid7(at: int, random: Random) -> str:
    """The id that a run would have got at that time."""
    return str(
        UUID(int=at // 1000 << 80 | 0x7 << 76 | random.getrandbits(12) << 64 | 0b10 << 62 | random.getrandbits(62))
    )


def _row(event: Event) -> rows.Row:
    return (
        event.run_id, event.seq, event.kind, event.path, event.attempt, event.by, event.at,
        event.checksum(), None, event.payload,
    )  # fmt: skip


def _attributes(chunk: list[tuple[Run, list[Event]]]) -> Iterator[tuple[str, str, str]]:
    for run, _ in chunk:
        for name, value in run.attributes.items():
            yield run.run_id, name, attributes.text(value)


def main() -> int:
    """Fill a database, and say how long it took."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.fill", description="Fill a database with ended runs.")
    parser.add_argument("--runs", type=int, required=True, metavar="N")
    parser.add_argument("--db", type=Path, required=True, metavar="FILE", help="made if it is not there")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of each run; 10")
    given = parser.parse_args()
    began = time.perf_counter()
    events = fill(given.db, given.runs, steps=given.steps)
    seconds = time.perf_counter() - began
    sys.stdout.write(f"{given.runs:,} runs, {events:,} events in {seconds:.1f} s: {given.db.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
