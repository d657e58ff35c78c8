"""The fence: a table in the target that says which run may write and how far each part of each table is.

A chunk's transaction looks at its part's row and moves the watermark forward, so that rows and watermark are
committed together: an attempt that is repeated after a crash sees that its chunk is there, one of a run that was taken
over by another run sees a higher epoch, and one at a node that the run has left a higher fence. BEGIN IMMEDIATE has
locked the whole database by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import fencing
from ..fencing import awaits, misplaced, missing, read_key, write_key
from ..model import Claim, Copied, Part, PartState, Right
from .catalogue import FENCE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ..model import Chunk, Claimant

_create = f"""
CREATE TABLE {FENCE} (
    "table"      TEXT    NOT NULL,
    part         INTEGER NOT NULL,
    run          TEXT    NOT NULL,
    epoch        INTEGER NOT NULL,
    claim        TEXT    NOT NULL,
    fence        INTEGER NOT NULL,
    job          TEXT    NOT NULL,
    after        TEXT,
    until        INTEGER,
    watermark    TEXT,
    chunks       INTEGER NOT NULL DEFAULT 0,
    rows         INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL DEFAULT 0,
    chunk_rows   INTEGER NOT NULL DEFAULT 0,
    chunk_bytes  INTEGER NOT NULL DEFAULT 0,
    done         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY ("table", part)
) WITHOUT ROWID
"""


def exists(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (FENCE,)).fetchone() is not None


def job_of(db: sqlite3.Connection) -> tuple[str, str]:
    """The fingerprint of the job that the fence was made for, and the run that claimed it last."""
    return db.execute(f"SELECT job, run FROM {FENCE} LIMIT 1").fetchone()


def make(db: sqlite3.Connection, job: str, by: Claimant, parts: Sequence[Part]) -> None:
    """Make the fence, for a run with epoch 1."""
    db.execute(_create)
    db.executemany(
        f'INSERT INTO {FENCE} ("table", part, run, epoch, claim, fence, job, after, until)'
        " VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)",
        [(it.table, it.number, by.run, by.token, by.fence, job, write_key(it.after), it.until) for it in parts],
    )


def claim(db: sqlite3.Connection, by: Claimant) -> Claim:
    """Raise the epoch for a run; the same token again gets the epoch that it got before.

    A part that an earlier run had done is open again: the source may have got more rows behind the watermark.

    Raises:
        Unavailable: the run has claimed it at another node since.
    """
    sql = f"UPDATE {FENCE} SET epoch = epoch + 1, run = ?, claim = ?, fence = ?, done = 0 WHERE claim <> ?"
    db.execute(sql, (by.run, by.token, by.fence, by.token))
    (epoch,) = db.execute(f"SELECT max(epoch) FROM {FENCE}").fetchone()
    require(db, Right(epoch, by.fence))
    rows = db.execute(
        f'SELECT "table", part, after, until, chunks, watermark, rows, bytes, done FROM {FENCE} ORDER BY "table", part'
    )
    return Claim(epoch, [_state(*row) for row in rows])


def _state(
    table: str,
    number: int,
    after: str | None,
    until: int | None,
    chunks: int,
    watermark: str | None,
    rows: int,
    size: int,
    done: int,
) -> PartState:
    part = Part(table, number, read_key(after), until)
    return PartState(part, chunks, read_key(watermark) or part.after, rows, size, bool(done))


def require(db: sqlite3.Connection, right: Right) -> None:
    """See that an attempt may write, and that none of a former owner may from now on.

    Raises:
        Fenced, Unavailable: it may not; see `fencing.require`.
    """
    if not exists(db):
        raise missing()
    epoch, run, fence = db.execute(f"SELECT epoch, run, fence FROM {FENCE} LIMIT 1").fetchone()
    fencing.require(right, epoch, run, fence)
    if fence < right.fence:
        db.execute(f"UPDATE {FENCE} SET fence = ?", (right.fence,))


def committed(db: sqlite3.Connection, right: Right, chunk: Chunk) -> Copied | None:
    """What the chunk's earlier attempt has committed; None: nothing, the chunk is the next one to load.

    Raises:
        Fenced: the target is another run's, or the part is beyond this chunk.
        Unavailable: the run is at another node.
    """
    require(db, right)
    row = db.execute(
        f'SELECT chunks, watermark, chunk_rows, chunk_bytes, done FROM {FENCE} WHERE "table" = ? AND part = ?',
        (chunk.table.name, chunk.part),
    ).fetchone()
    if row is None or not awaits(chunk, row[0]):
        raise misplaced(chunk, row and row[0])
    chunks, watermark, rows, size, done = row
    return Copied(rows, size, read_key(watermark), bool(done)) if chunks == chunk.number else None


def advance(db: sqlite3.Connection, chunk: Chunk, copied: Copied) -> None:
    """Move the part's watermark behind a chunk, in the chunk's own transaction."""
    db.execute(
        f"UPDATE {FENCE} SET chunks = ?, watermark = ?, rows = rows + ?, bytes = bytes + ?, chunk_rows = ?,"
        ' chunk_bytes = ?, done = ? WHERE "table" = ? AND part = ?',
        (
            chunk.number,
            write_key(copied.after),
            copied.rows,
            copied.bytes,
            copied.rows,
            copied.bytes,
            copied.done,
            chunk.table.name,
            chunk.part,
        ),
    )


def drop(db: sqlite3.Connection) -> None:
    db.execute(f"DROP TABLE {FENCE}")
