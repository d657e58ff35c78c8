"""Transaction steps: what a plugin writes in jivsd's own database, committed together with the step's record."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from jivsd.records import Event

if TYPE_CHECKING:
    from collections.abc import Coroutine


class TxStep(msgspec.Struct, frozen=True):
    """A transaction step: `body` is driven by the writer inside a savepoint; its result becomes the event.

    `body` gets the transaction and returns the event to write. When it raises, the savepoint is rolled back and
    `failed` turns the error into the event that is written instead (an AttemptFailed or StepFailed).
    Both are called in the store's own thread. When the batch around it has to be written again, the body is run
    again after all that it did has been rolled back.
    """

    seq: int
    """The seq of the event that it will yield: if that event is there already, the body is not run again."""
    body: Callable[[Any], Event]
    failed: Callable[[BaseException], Event]


class OpenTx(Protocol):
    """The transaction of a step whose body has returned `value`: it is still open."""

    value: Any

    async def abandon(self) -> None:
        """Roll it back."""
        ...

    def drop(self) -> None:
        """Roll it back soon; nobody waits for it."""
        ...


class TxDone(msgspec.Struct, eq=False):
    """A transaction step whose body has run, in a transaction of its own: its commit writes `event`, too.

    Nothing else goes with it in its entry. When it cannot commit, the event is written instead that `failed` makes of
    the error; or `again`, when nothing of it is there through no fault of its own and it has to be run again.
    """

    open: OpenTx
    event: Event
    failed: Callable[[BaseException], Event]
    again: Event
    instead: Event | None = None
    """What is written in the place of `event`, once that is known."""

    @property
    def seq(self) -> int:
        return self.event.seq


class Transactions(Protocol):
    """Runs transaction steps apart from batches: how a store does it that can hold several transactions at once."""

    async def open(self, body: Callable[[Any], Coroutine[Any, Any, Any]], limit: float | None) -> OpenTx:
        """Run a step's body, which gets its transaction, and leave that open, for a `TxDone` in an entry.

        Waits for a connection; a server that is away is waited for. Cancelled, it returns when all is rolled back.

        Args:
            body: makes the coroutine; called in the store's own thread, as that is.
            limit: seconds that it may take, from when it has a connection; None: as long as the store thinks right.

        Raises:
            TransactionLate: the time is up; all is rolled back.
            NotDurable: it awaited something else than its transaction.
            BaseException: whatever the body raised; all is rolled back.
        """
        ...

    async def abandon_all(self) -> None:
        """Roll back all that is open, as the death of the process would."""
        ...
