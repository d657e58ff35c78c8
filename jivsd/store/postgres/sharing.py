"""How nodes share a PostgreSQL journal: the rows of `jivsd.lease` and `jivsd.shard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from jivsd.store.sharing import Member, NameTaken, Owner, View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from jivsd.store.postgres.claiming import Claim
    from jivsd.store.postgres.connections import Connection, Sql
    from jivsd.store.postgres.exclusion import Opening

    class Ask(Protocol):
        """Lets work have a connection for some seconds at most; errors are those of stores."""

        async def __call__(self, work: Callable[[Connection], Awaitable[T]], timeout: float, /) -> T: ...


T = TypeVar("T")

ANSWER: Final = 5.0
"""Seconds within which the database has to answer."""
CLAIMED: Final = 10.0
"""Seconds that a claim may take: it waits for transactions, and may have to end their sessions."""
FORGOTTEN: Final = 600.0
"""Seconds for which a node that is gone is still shown."""


class PostgresSharing:
    """Keeps the contract `store.sharing.Sharing`, on a connection that has nothing else to do."""

    def __init__(self, opening: Opening, sql: Sql, ask: Ask, claim: Claim) -> None:
        """Prepare.

        Args:
            opening: who shares.
            sql: the statements.
            ask: lends the connection.
            claim: changes epochs.
        """
        self._opening = opening
        self._sql = sql
        self._ask = ask
        self._claim = claim
        self._unsure: dict[int, int] = {}
        """Shards of which nobody knows whether they were claimed, and the epoch before."""

    async def database(self) -> str:
        """See `Sharing.database`."""

        async def look(connection: Connection) -> str:
            oid = await connection.fetchval("SELECT oid::text FROM pg_database WHERE datname = current_database()")
            known = await connection.fetchval("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
            cluster = "SELECT system_identifier::text FROM pg_control_system()"
            made = await connection.fetchval(cluster if known else self._sql["meta"], *([] if known else ["id"]))
            return f"{made}-{oid}-{self._sql.schema}"

        return await self._ask(look, ANSWER)

    async def beat(self, lease: float, *, by: str, leaving: bool, full: bool) -> None:
        """See `Sharing.beat`."""
        node, instance, _, version = self._opening
        values = (node, instance, int(lease * 1_000_000), by, leaving, full, version)
        if not await self._ask(lambda db: db.fetch(self._sql["beat"], *values), ANSWER):
            raise NameTaken(f"another node of the name {node} lives: give each one a name of its own (node = …)")

    async def view(self) -> View:
        """See `Sharing.view`."""

        async def look(connection: Connection) -> View:
            # Owners first: whoever owned a shard then had a row, unless all of it was given up since.
            owners = [Owner(*row) for row in await connection.fetch(self._sql["owners"])]
            found = await connection.fetch(self._sql["members"])
            return View(owners, [_member(row) for row in found])

        view = await self._ask(look, ANSWER)
        if any(member.left < -FORGOTTEN for member in view.members):
            await self._ask(lambda db: db.execute(self._sql["forget_nodes"], int(FORGOTTEN * 1_000_000)), ANSWER)
        return view

    async def claim(self, shards: Mapping[int, int]) -> dict[int, int]:
        """See `Sharing.claim`."""
        before = dict(self._unsure)
        self._unsure.update(shards)
        claimed = await self._ask(lambda db: self._claim.take(db, shards, before), CLAIMED)
        for shard in shards:
            self._unsure.pop(shard, None)
        return claimed

    async def release(self, shards: Mapping[int, int]) -> None:
        """See `Sharing.release`."""
        known = (list(shards), list(shards.values()), self._opening.node, self._opening.instance)
        await self._ask(lambda db: db.execute(self._sql["release_shards"], *known), ANSWER)

    async def leave(self) -> None:
        """See `Sharing.leave`."""
        node, instance, _, _ = self._opening
        await self._ask(lambda db: db.execute(self._sql["leave"], node, instance), ANSWER)


def _member(row: Any) -> Member:
    return Member(
        node=row["node"],
        instance=row["instance"],
        joined_at=row["joined_at"],
        left=row["left"] / 1_000_000,
        by=row["by"],
        leaving=row["leaving"],
        full=row["full"],
        version=row["version"],
    )
