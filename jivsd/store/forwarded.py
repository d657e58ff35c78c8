"""What one node asks of another through the database: what only the owner of a shard can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection


class Request(NamedTuple):
    """Something that the owner of a shard is asked; `body` is JSON."""

    number: int
    body: bytes


class Requests(Protocol):
    """The requests in a database that several nodes share. Raises what `Store` does."""

    async def put(self, shard: int, body: bytes, at: int) -> int:
        """Ask the owner of a shard; return the number of the request. `at`: now, in microseconds since the epoch."""
        ...

    async def take(self, shards: Collection[int], since: int) -> list[Request]:
        """Take those over that are for some shards, in order. They are not given to anybody again.

        Those from before `since` are removed: nobody waits for them any more.
        """
        ...

    async def answer(self, number: int, body: bytes) -> None:
        """Answer one that was taken over."""
        ...

    async def answered(self, number: int) -> bytes | None:
        """The answer to one, which is removed with that; None: there is none yet."""
        ...

    async def withdraw(self, number: int) -> bool:
        """Ask no more. False: it was taken over meanwhile."""
        ...
