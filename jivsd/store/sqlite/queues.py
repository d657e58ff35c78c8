"""The queues for locks, as a batch changes them inside its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.store.tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from jivsd.store.statements import Statements
    from jivsd.store.tickets import Tickets


class Queues:
    """Draws tickets and gives them back. The lowest one of a key has the lock."""

    def __init__(self, run: Callable[..., Any], sql: Statements) -> None:
        self._run = run
        self._sql = sql
        self.drawn: set[str] = set()
        """The runs that have drawn a ticket in this batch."""

    def holder(self, key: str) -> tuple[str, str] | None:
        """The run that has a lock, and for which path in its code."""
        found = self._run(self._sql["lock_holder"], (key,)).fetchall()
        return found[0] if found else None

    def change(self, run_id: str, tickets: Tickets) -> str | None:
        """Do what an entry wants; return the run that stands in the way of a ticket that was to be drawn at once."""
        if tickets.gives is not None:
            self._give_back(self._ticket(run_id, tickets.gives))
        if tickets.keeps is not None:
            self.release(run_id, keep={"", *tickets.keeps})
        if tickets.granted is not None:
            self._run(self._sql["grant_ticket"], (run_id, tickets.granted))
        ticket = tickets.draws
        if ticket is None or self._ticket(run_id, ticket.path):
            return None
        if ticket.at_once and (holder := self.holder(ticket.key)) is not None:
            return holder[0]
        self.draw(run_id, ticket)
        return None

    def draw(self, run_id: str, ticket: Ticket) -> None:
        """Put a run at the end of a queue."""
        ((number,),) = self._run(self._sql["next_ticket"], (ticket.key,)).fetchall()
        self._run(self._sql["insert_ticket"], (ticket.key, number, run_id, ticket.path, ticket.since))
        self.drawn.add(run_id)

    def release(self, run_id: str, *, keep: Collection[str] = ()) -> None:
        """Leave the queues, but for some paths; when a holder leaves, the next one gets a higher fence number."""
        mine = self._run(self._sql["tickets"], (run_id,)).fetchall()
        self._give_back(one for one in mine if one[0] not in keep)

    def _give_back(self, tickets: Iterable[tuple[Any, ...]]) -> None:
        for _, key, number, holds in tickets:
            self._run(self._sql["delete_ticket"], (key, number))
            if holds:
                self._run(self._sql["raise_fence"], (key,)).fetchall()

    def hand_on(self, run_id: str, successor: str, key: str, since: int) -> None:
        """The run that goes on for one that is continued as new has its own lock from the beginning."""
        if any(held == key for _, held, *_ in self._ticket(run_id, "")):
            self._run(self._sql["hand_on_ticket"], (run_id, successor, key))
        else:
            self.draw(successor, Ticket(key, "", since))

    def _ticket(self, run_id: str, path: str) -> list[tuple[Any, ...]]:
        return self._run(self._sql["ticket"], (run_id, path)).fetchall()
