"""The queues for locks, as a batch changes them inside its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.store.tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.api import Entry
    from jivsd.store.postgres.connections import Connection, Sql
    from jivsd.store.tickets import Tickets


class Queues:
    """Draws tickets and gives them back. The lowest one of a key has the lock.

    A key's row stays locked until the batch is committed, so that tickets are drawn in the order of commits.
    """

    def __init__(self, connection: Connection, sql: Sql) -> None:
        self._connection = connection
        self._sql = sql

    async def holder(self, key: str) -> str | None:
        """The run that has a lock."""
        return await self._connection.fetchval(self._sql["lock_holder"], key)

    async def change(self, run_id: str, tickets: Tickets) -> str | None:
        """Do what an entry wants; return the run that stands in the way of a ticket that was to be drawn at once."""
        if tickets.gives is not None:
            await self._run("give_back", run_id, [tickets.gives])
        if tickets.keeps is not None:
            await self.release(run_id, keep=["", *tickets.keeps])
        if tickets.granted is not None:
            await self._run("grant_ticket", run_id, tickets.granted)
        ticket = tickets.draws
        if ticket is None or await self._connection.fetchval(self._sql["has_ticket"], run_id, ticket.path):
            return None
        if ticket.at_once and (holder := await self.holder(ticket.key)) is not None:
            return holder
        await self.draw(run_id, ticket)
        return None

    async def draw(self, run_id: str, ticket: Ticket) -> None:
        """Put a run at the end of a queue."""
        await self._run("draw_ticket", ticket.key, run_id, ticket.path, ticket.since)

    async def release(self, run_id: str, *, keep: Sequence[str] = ()) -> None:
        """Leave the queues, but for some paths; when a holder leaves, the next one gets a higher fence number."""
        await self._run("give_back_others", run_id, list(keep))

    async def hand_on(self, run_id: str, successor: str, key: str, since: int) -> None:
        """The run that goes on for one that is continued as new has its own lock from the beginning."""
        if not await self._run("hand_on_ticket", run_id, successor, key):
            await self.draw(successor, Ticket(key, "", since))

    async def _run(self, statement: str, *parameters: Any) -> list[Any]:
        return await self._connection.fetch(self._sql[statement], *parameters)


def concerns_queues(entry: Entry) -> bool:
    """Whether an entry may change who waits for a lock other than by ending."""
    if entry.tickets is not None:
        return True
    if entry.successor is not None and entry.successor.run.options.lock_key is not None:
        return True
    return entry.new is not None and entry.new.run.options.lock_key is not None
