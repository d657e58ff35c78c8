"""What nodes ask of one another, in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.store.forwarded import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from jivsd.store.postgres.connections import Connection, Sql


class PostgresRequests:
    """Keeps the contract `store.forwarded.Requests`."""

    def __init__(
        self, sql: Sql, write: Callable[[Callable[[Connection], Awaitable[list[Any]]]], Awaitable[list[Any]]]
    ) -> None:
        """`write` lends a connection that may write."""
        self._sql = sql
        self._write = write

    async def put(self, shard: int, body: bytes, at: int) -> int:
        """See `Requests.put`."""
        ((number,),) = await self._run("put_forwarded", shard, body, at)
        return number

    async def take(self, shards: Collection[int], since: int) -> list[Request]:
        """See `Requests.take`."""
        return [Request(*row) for row in await self._run("take_forwarded", list(shards), since)]

    async def answer(self, number: int, body: bytes) -> None:
        """See `Requests.answer`."""
        await self._run("answer_forwarded", number, body)

    async def answered(self, number: int) -> bytes | None:
        """See `Requests.answered`."""
        found = await self._run("take_answer", number)
        return found[0][0] if found else None

    async def withdraw(self, number: int) -> bool:
        """See `Requests.withdraw`."""
        return bool(await self._run("withdraw_forwarded", number))

    async def _run(self, statement: str, *arguments: Any) -> list[Any]:
        return await self._write(lambda db: db.fetch(self._sql[statement], *arguments))
