"""The fence: a table in the target that says which run may write and how far each part of each table is.

A chunk's transaction locks its part's row, compares the epoch, and moves the watermark forward, so that rows and
watermark are committed together. A claim changes all rows: it waits for the chunks under way, and those of the run
before find another epoch. (See `sqlite.fence`, which does the same.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..fencing import awaits, misplaced, missing, read_key, require_epoch, write_key
from ..model import Claim, Copied, Part, PartState
from .catalogue import FENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Chunk

_create = f"""
CREATE TABLE {FENCE} (
    "table"      text    NOT NULL,
    part         integer NOT NULL,
    run          text    NOT NULL,
    epoch        bigint  NOT NULL,
    claim        text    NOT NULL,
    job          text    NOT NULL,
    after        text,
    until        bigint,
    watermark    text,
    chunks       bigint  NOT NULL DEFAULT 0,
    rows         bigint  NOT NULL DEFAULT 0,
    bytes        bigint  NOT NULL DEFAULT 0,
    chunk_rows   bigint  NOT NULL DEFAULT 0,
    chunk_bytes  bigint  NOT NULL DEFAULT 0,
    done         boolean NOT NULL DEFAULT false,
    PRIMARY KEY ("table", part)
)
"""


async def exists(session: Any) -> bool:
    return await session.fetchval("SELECT to_regclass($1)", FENCE) is not None


async def job_of(session: Any) -> tuple[str, str]:
    """The fingerprint of the job that the fence was made for, and the run that claimed it last."""
    job, run = await session.fetchrow(f"SELECT job, run FROM {FENCE} LIMIT 1")
    return job, run


async def make(session: Any, job: str, run: str, claim: str, parts: Sequence[Part]) -> None:
    """Make the fence, for a run with epoch 1."""
    await session.execute(_create)
    await session.executemany(
        f'INSERT INTO {FENCE} ("table", part, run, epoch, claim, job, after, until)'
        " VALUES ($1, $2, $3, 1, $4, $5, $6, $7)",
        [(it.table, it.number, run, claim, job, write_key(it.after), it.until) for it in parts],
    )


async def claim(session: Any, run: str, token: str) -> Claim:
    """Raise the epoch for `run`; the same `token` again gets the epoch that it got before.

    A part that an earlier run had done is open again: the source may have got more rows behind the watermark.
    """
    sql = f"UPDATE {FENCE} SET epoch = epoch + 1, run = $1, claim = $2, done = false WHERE claim <> $2"
    await session.execute(sql, run, token)
    epoch = await session.fetchval(f"SELECT max(epoch) FROM {FENCE}")
    rows = await session.fetch(
        f'SELECT "table", part, after, until, chunks, watermark, rows, bytes, done FROM {FENCE} ORDER BY "table", part'
    )
    return Claim(epoch, [_state(row) for row in rows])


def _state(row: Any) -> PartState:
    part = Part(row["table"], row["part"], read_key(row["after"]), row["until"])
    after = read_key(row["watermark"]) or part.after
    return PartState(part, row["chunks"], after, row["rows"], row["bytes"], row["done"])


async def require(session: Any, epoch: int) -> None:
    """Keep the target this epoch's to the end of the transaction. Raises Fenced when it is another's."""
    if not await exists(session):
        raise missing()
    row = await session.fetchrow(f'SELECT epoch, run FROM {FENCE} ORDER BY "table", part LIMIT 1 FOR SHARE')
    require_epoch(epoch, row["epoch"], row["run"])


async def committed(session: Any, epoch: int, chunk: Chunk) -> Copied | None:
    """Lock the chunk's part. What its earlier attempt has committed; None: nothing, the chunk is the next one to load.

    Raises:
        Fenced: the epoch is not the target's, or the part is beyond this chunk.
    """
    if not await exists(session):
        raise missing()
    sql = f'SELECT * FROM {FENCE} WHERE "table" = $1 AND part = $2 FOR UPDATE'
    row = await session.fetchrow(sql, chunk.table.name, chunk.part)
    if row is not None:
        require_epoch(epoch, row["epoch"], row["run"])
    if row is None or not awaits(chunk, row["chunks"]):
        raise misplaced(chunk, row and row["chunks"])
    if row["chunks"] < chunk.number:
        return None
    return Copied(row["chunk_rows"], row["chunk_bytes"], read_key(row["watermark"]), row["done"])


async def advance(session: Any, chunk: Chunk, copied: Copied) -> None:
    """Move the part's watermark behind a chunk, in the chunk's own transaction."""
    await session.execute(
        f"UPDATE {FENCE} SET chunks = $1, watermark = $2, rows = rows + $3, bytes = bytes + $4, chunk_rows = $3,"
        ' chunk_bytes = $4, done = $5 WHERE "table" = $6 AND part = $7',
        chunk.number,
        write_key(copied.after),
        copied.rows,
        copied.bytes,
        copied.done,
        chunk.table.name,
        chunk.part,
    )


async def drop(session: Any) -> None:
    await session.execute(f"DROP TABLE {FENCE}")
