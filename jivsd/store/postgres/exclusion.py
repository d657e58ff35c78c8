"""Who may have a database besides others: a daemon alone shuts all others out, a sharer those that do not share.

A session says it by advisory locks, which are gone with it. Behind a pooler nobody keeps a session: there the rows of
`jivsd.lease` say it, and one whose daemon was killed stands in the way until it is over. Fences keep a daemon from
writing what it may not write, whatever happens here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jivsd import logs
from jivsd.store.api import StoreError
from jivsd.store.postgres.connections import sql_of
from jivsd.store.sharing import ALONE, NOTHING, NameTaken

if TYPE_CHECKING:
    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection

log = logs.get(__name__)

LOCK: Final = 0x6A697673
"""The first half of the number of our advisory locks, "jivs", for changes of the schema; the second half is of it."""
DATABASE: Final = LOCK + 1
"""The same for having the database: exclusive, or shared by those who share it."""
NAME: Final = LOCK + 2
"""The same for a node's name; the second half is of schema and name."""
PATIENCE: Final = 5.0
"""Seconds to wait for the session of a daemon that has just ended to be noticed as gone."""
LONGEST: Final = 30.0
"""Seconds to wait for the row of a daemon that has ended, behind a pooler, to be over."""
LOOK_AGAIN: Final = 0.05
FIRST_LEASE: Final = 6.0
"""Seconds that a row is good that was made when the database was opened."""


class Opening(NamedTuple):
    """An opening of a database."""

    node: str
    instance: str
    share: bool
    version: str


async def keep_others_out(connection: Connection, address: Address, opening: Opening) -> None:
    """Have this session keep a second daemon from starting, or one that does not share, or one of this name.

    Raises:
        StoreError: such a one has the database.
    """
    if address.pooled:
        return  # a session is nothing that one could keep there
    for number, what in _locks(address, opening):
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await _has_locked(connection, opening, number, what):
            if asyncio.get_running_loop().time() > deadline:
                raise await _in_use(connection, address, opening, number, what)
            await asyncio.sleep(LOOK_AGAIN)


async def keep_again(connection: Connection, address: Address, opening: Opening) -> None:
    """The same for a session that takes the place of one that was lost, which the server may not have noticed yet.

    Raises:
        StoreError: a daemon that does not share has the database meanwhile.
    """
    if address.pooled:
        return
    for number, what in _locks(address, opening):
        if not await _has_locked(connection, opening, number, what) and _is_shared(opening, number):
            raise await _in_use(connection, address, opening, number, what)


async def enter(connection: Connection, address: Address, opening: Opening) -> None:
    """Give the node its row.

    Raises:
        NameTaken: a node of this name lives.
        StoreError: a daemon has the database that does not share it, or this one would not.
    """
    sql = sql_of(address.schema)
    seen: dict[str, int] = {}
    deadline = asyncio.get_running_loop().time() + LONGEST
    while True:
        async with connection.transaction():
            await connection.fetch("SELECT pg_advisory_xact_lock($1, hashtext($2))", LOCK, address.schema)
            living = [row for row in await connection.fetch(sql["members"]) if row["left"] >= 0]
            others = [] if not address.pooled else [row for row in living if _in_the_way(row, opening)]
            if not others:
                await _make_row(connection, address, opening)
                return
        if not seen:
            log.warning("waiting for leases to be over", nodes=[row["node"] for row in others])
        for row in others:
            renewed = seen.setdefault(row["instance"], row["until"]) != row["until"]
            if renewed or asyncio.get_running_loop().time() > deadline:
                raise _lives(address, opening, row)
        await asyncio.sleep(LOOK_AGAIN)


def _locks(address: Address, opening: Opening) -> list[tuple[int, str]]:
    """What a session locks, by the halves of its number."""
    return [(DATABASE, address.schema), *([(NAME, f"{address.schema}.{opening.node}")] if opening.share else [])]


def _is_shared(opening: Opening, number: int) -> bool:
    """Whether a lock is one that several have."""
    return opening.share and number == DATABASE


async def _has_locked(connection: Connection, opening: Opening, number: int, what: str) -> bool:
    shared = "_shared" if _is_shared(opening, number) else ""
    return await connection.fetchval(f"SELECT pg_try_advisory_lock{shared}($1, hashtext($2))", number, what)


def _in_the_way(row: Any, opening: Opening) -> bool:
    return not opening.share or row["by"] == ALONE or row["node"] == opening.node


async def _make_row(connection: Connection, address: Address, opening: Opening) -> None:
    """Whoever had this name does not live; nor does anybody whom a daemon alone has not been refused for."""
    sql = sql_of(address.schema)
    await connection.execute(sql["remove_rows"], opening.node, opening.share)
    by = NOTHING if opening.share else ALONE
    lease = int(FIRST_LEASE * 1_000_000)
    values = (opening.node, opening.instance, lease, by, False, False, opening.version)
    await connection.execute(sql["beat"], *values)


async def _in_use(connection: Connection, address: Address, opening: Opening, number: int, what: str) -> StoreError:
    """Why a lock cannot be had: the sentence for people."""
    holder = await connection.fetchrow(sql_of(address.schema)["holder"], number, what)
    who = holder["who"] if holder is not None else "which just ends"
    if number == NAME:
        return _same_name(address, opening, who)
    return _refusal(address, opening, who, shares=holder is not None and holder["mode"] == "ShareLock")


def _lives(address: Address, opening: Opening, row: Any) -> StoreError:
    """Why a row cannot be made: the sentence for people."""
    if opening.share and row["by"] != ALONE:
        return _same_name(address, opening, row["node"])
    return _refusal(address, opening, f"node {row['node']}", shares=row["by"] != ALONE)


def _same_name(address: Address, opening: Opening, who: str) -> NameTaken:
    return NameTaken(
        f"the database {address.shown} is shared by another jivsd ({who}) under the name {opening.node}: give each one "
        "a name of its own (node = …)"
    )


def _refusal(address: Address, opening: Opening, who: str, *, shares: bool) -> StoreError:
    start = f"the database {address.shown} is in use by another jivsd ({who})"
    if opening.share and not shares:
        return StoreError(f"{start} that does not share it: give that one a Redis URL, or cluster.share = true, too")
    if shares:
        return StoreError(f"{start} that shares it: stop it, or give this one a Redis URL, or cluster.share = true")
    return StoreError(f"{start}: stop that one, or name another schema, or let both share it (a Redis URL for both)")
