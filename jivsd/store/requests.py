"""Requests: what was asked for in SQL, inside the transaction of a user of the database, and is to be carried out.

`jivsd.start`, `jivsd.signal` and `jivsd.cancel` leave a row each; what was carried out is gone, what cannot be stays
with its incident until somebody decides. See `jivsd.services.requests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jivsd.records import Incident


class Request(msgspec.Struct, frozen=True):
    """One request. `kind`: "start", "signal" or "cancel"; `id` is the run id that a start is to make."""

    id: str
    number: int
    at: int
    tries: int
    """How often it has been refused."""
    kind: str
    workflow: str
    workflow_id: str
    name: str
    """Of a signal."""
    key: str | None
    """The idempotency key of a start, if it has one; or a message id."""
    by: str
    """The user of the database."""
    payload: bytes
    """JSON: a start's input, what a signal says, a text with the reason of a cancellation."""
    options: bytes
    """JSON: a start's options."""


class Asked(NamedTuple):
    """What has become of a request that was not carried out as asked.

    `state`: NEW, REFUSED, CLOSED (somebody has seen that) or EXISTING: `run_id` is that of an earlier start.
    """

    state: str
    run_id: str | None
    why: str | None


class SqlRequests(Protocol):
    """The requests in a database. Every method may raise `StoreError`."""

    async def waiting(self, shards: Collection[int] | None, after: int, limit: int) -> list[Request]:
        """Those to be carried out, of some shards or of all, with a number above `after`, in order."""
        ...

    async def settle(self, done: Sequence[str], existing: Mapping[str, str]) -> None:
        """Forget those that were carried out; note of starts which earlier run answers them."""
        ...

    async def refuse(self, refused: Sequence[tuple[Request, Incident]]) -> list[Incident]:
        """Put requests aside, each with its incident; return the incidents of those that nobody else has put aside."""
        ...

    async def again(self, id: str) -> None:
        """Let one that was refused be tried again."""
        ...

    async def close(self, id: str) -> None:
        """Somebody has seen that it was refused, and wants no more of it."""
        ...

    async def find(self, id: str) -> Asked | None:
        """What has become of one that is still there."""
        ...

    async def forget(self, before: int) -> None:
        """Forget those of which nothing is to be done, from before a time (microseconds)."""
        ...
