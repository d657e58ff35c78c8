"""The fence: a table in the target that says which run may write and how far each part of each table is.

A chunk's transaction locks its part's row, compares epoch and fence, and moves the watermark forward, so that rows and
watermark are committed together. A claim, and the first attempt at a node to which the run has come, change all rows:
what is under way for a run or a node before is waited for, ended if that takes long, and finds another epoch or a
higher fence when it tries again. (See `sqlite.fence`, which does the same.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from .. import fencing
from ..errors import Unavailable
from ..fencing import awaits, misplaced, missing, read_key, write_key
from ..model import Claim, Copied, Part, PartState, Right
from .catalogue import FENCE
from .connect import APPLICATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Chunk, Claimant

_create = f"""
CREATE TABLE {FENCE} (
    "table"      text    NOT NULL,
    part         integer NOT NULL,
    run          text    NOT NULL,
    epoch        bigint  NOT NULL,
    claim        text    NOT NULL,
    fence        bigint  NOT NULL,
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
_lock = "1785296499, 1"
"""The advisory lock of who changes whose the target is."""
_ours = f"pid <> pg_backend_pid() AND application_name LIKE '{APPLICATION}%'"
_changing = f"""
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND ({_lock}, 2) = (classid::bigint, objid::bigint, objsubid) AND granted AND {_ours}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_writing = f"""
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE relation = to_regclass('{FENCE}') AND granted AND {_ours}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Behind(Unavailable):
    """The target has not seen yet that the run has come to the node of this attempt: that goes first."""


async def exists(session: Any) -> bool:
    return await session.fetchval("SELECT to_regclass($1)", FENCE) is not None


async def job_of(session: Any) -> tuple[str, str]:
    """The fingerprint of the job that the fence was made for, and the run that claimed it last."""
    job, run = await session.fetchrow(f"SELECT job, run FROM {FENCE} LIMIT 1")
    return job, run


async def make(session: Any, job: str, by: Claimant, parts: Sequence[Part]) -> None:
    """Make the fence, for a run with epoch 1."""
    await session.execute(_create)
    await session.executemany(
        f'INSERT INTO {FENCE} ("table", part, run, epoch, claim, fence, job, after, until)'
        " VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8)",
        [(it.table, it.number, by.run, by.token, by.fence, job, write_key(it.after), it.until) for it in parts],
    )


async def claim(session: Any, by: Claimant) -> Claim:
    """Raise the epoch for a run; the same token again gets the epoch that it got before.

    A part that an earlier run had done is open again: the source may have got more rows behind the watermark. The
    transaction is `alone`.

    Raises:
        Unavailable: the run has claimed it at another node since.
    """
    await _shut_out_others(session)
    sql = f"UPDATE {FENCE} SET epoch = epoch + 1, run = $1, claim = $2, fence = $3, done = false WHERE claim <> $2"
    await session.execute(sql, *by)
    epoch = await session.fetchval(f"SELECT max(epoch) FROM {FENCE}")
    await _raise(session, Right(epoch, by.fence))
    rows = await session.fetch(
        f'SELECT "table", part, after, until, chunks, watermark, rows, bytes, done FROM {FENCE} ORDER BY "table", part'
    )
    return Claim(epoch, [_state(row) for row in rows])


def _state(row: Any) -> PartState:
    part = Part(row["table"], row["part"], read_key(row["after"]), row["until"])
    after = read_key(row["watermark"]) or part.after
    return PartState(part, row["chunks"], after, row["rows"], row["bytes"], row["done"])


async def take(session: Any, right: Right) -> None:
    """The run has come to another node: nobody writes by a lower fence from now on. In a transaction of its own.

    Raises:
        Fenced, Unavailable: it is not so; see `fencing.require`.
    """
    await alone(session)
    try:
        await _shut_out_others(session)
    except asyncpg.UndefinedTableError:
        raise missing() from None
    await _raise(session, right)


async def alone(session: Any) -> None:
    """Be the only one who changes whose the target is, to the end of the transaction."""
    await _insist(session, f"SELECT pg_advisory_xact_lock({_lock})", _changing, "2s")


async def _shut_out_others(session: Any) -> None:
    """Lock all rows: nobody else writes any more."""
    await _insist(session, f'SELECT FROM {FENCE} ORDER BY "table", part FOR UPDATE', _writing, "250ms")


async def _insist(session: Any, lock: str, holders: str, patience: str) -> None:
    """Take a lock. Who keeps it for long is a former owner, that may stand still: its session is ended."""
    usual = await session.fetchval("SELECT current_setting('lock_timeout')")
    try:
        async with session.transaction():
            await session.execute(f"SET LOCAL lock_timeout = '{patience}'")
            await session.execute(lock)
    except asyncpg.LockNotAvailableError:
        await session.execute(holders)
        await session.execute(lock)
    await session.execute(f"SET LOCAL lock_timeout = '{usual}'")


async def _raise(session: Any, right: Right) -> None:
    row = await session.fetchrow(f"SELECT epoch, run, fence FROM {FENCE} LIMIT 1")
    fencing.require(right, *row)
    await session.execute(f"UPDATE {FENCE} SET fence = $1 WHERE fence < $1", right.fence)


def _require(right: Right, row: Any) -> None:
    fencing.require(right, row["epoch"], row["run"], row["fence"])
    if row["fence"] < right.fence:
        raise Behind(f"the target has not seen fence {right.fence} yet")


async def _look(session: Any, right: Right) -> None:
    """See, without waiting for anybody, whether an attempt may write."""
    _require(right, await _row(session, f"SELECT epoch, run, fence FROM {FENCE} LIMIT 1"))


async def _row(session: Any, sql: str, *arguments: Any) -> Any:
    """A row of the fence. Somebody may finish the migration while it is waited for."""
    try:
        return await session.fetchrow(sql, *arguments)
    except asyncpg.UndefinedTableError:
        raise missing() from None


async def require(session: Any, right: Right) -> None:
    """Keep the target this right's to the end of the transaction.

    Raises:
        Fenced, Unavailable: it is another's; see `fencing.require`.
        Behind: `take` has to come first.
    """
    await _look(session, right)
    sql = f'SELECT epoch, run, fence FROM {FENCE} ORDER BY "table", part LIMIT 1 FOR SHARE'
    _require(right, await _row(session, sql))


async def committed(session: Any, right: Right, chunk: Chunk) -> Copied | None:
    """Lock the chunk's part. What its earlier attempt has committed; None: nothing, the chunk is the next one to load.

    Raises:
        Fenced: the target is another run's, or the part is beyond this chunk.
        Unavailable: the run is at another node.
        Behind: `take` has to come first.
    """
    await _look(session, right)
    sql = f'SELECT * FROM {FENCE} WHERE "table" = $1 AND part = $2 FOR UPDATE'
    row = await _row(session, sql, chunk.table.name, chunk.part)
    if row is not None:
        _require(right, row)
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
