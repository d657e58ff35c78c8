"""`python -m jivsd.proof.fill --runs N --db FILE`: a database full of runs that have ended; see `jivsd.proof.past`.

Written in bulk, without syncing: a database that was being made when the power went is made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from jivsd.proof.past import CODE, YEAR, chunks, past
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import connect_writer, migrate, query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.records import Event

CHUNK: Final = 2_000
"""Runs in one transaction."""

_FAST: Final = ("PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000")


def fill(
    path: Path,
    runs: int,
    *,
    steps: int = 10,
    seed: int = 1,
    span: int = YEAR,
    code: str = CODE,
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Add so many ended runs to the database at `path`, which is made if it is not there; return how many events.

    The first run began `span` microseconds ago, the last ends now. `tell` is told now and then how many are written.
    """
    sql = statements("sqlite")
    events = written = 0
    with closing(connect_writer(str(path))) as connection:
        migrate(connection, str(path))
        for pragma in _FAST:
            query(connection, pragma)
        many: Any = cast("Any", connection).cursor().executemany
        for chunk in chunks(past(runs, steps, seed=seed, span=span, code=code), CHUNK):
            with together(connection):
                many(sql["insert_run"], [rows.run_row(one.run) for one in chunk])
                many(sql["put_attribute"], [row for one in chunk for row in one.attributes()])
                many(sql["insert_event"], [_row(event) for one in chunk for event in one.events])
                many(sql["put_incident"], [rows.incident_row(one.incident) for one in chunk if one.incident])
                many(sql["publish"], [rows.publication_row(one.publication) for one in chunk if one.publication])
            events += sum(len(one.events) for one in chunk)
            written += len(chunk)
            tell(written)
        query(connection, "PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return events


def _row(event: Event) -> rows.Row:
    return (
        event.run_id, event.seq, event.kind, event.path, event.attempt, event.by, event.at,
        event.checksum(), None, event.payload,
    )  # fmt: skip


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
