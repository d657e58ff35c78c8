"""What actors use of the engine around them, so that neither has to know the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from jivsd.authoring import commands
    from jivsd.authoring.workflows import Workflow
    from jivsd.clock import Clock
    from jivsd.cluster.locks import Locks
    from jivsd.engine.actor import Actor
    from jivsd.engine.answers import Answers
    from jivsd.engine.api import Receipt
    from jivsd.engine.gate import Gate
    from jivsd.engine.heartbeats import Pulses
    from jivsd.engine.holding import Holding
    from jivsd.engine.slots import Slots
    from jivsd.engine.timers import Timers
    from jivsd.journal.committer import Committer
    from jivsd.metrics import Metrics
    from jivsd.records import Event, Message, Run
    from jivsd.store.api import NewRun, Verdict
    from jivsd.store.txstep import Transactions


class Services(Protocol):
    """The engine, as an actor sees it."""

    @property
    def node(self) -> str: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def committer(self) -> Committer: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def locks(self) -> Locks: ...

    @property
    def gate(self) -> Gate: ...

    @property
    def pulses(self) -> Pulses: ...

    @property
    def holding(self) -> Holding: ...

    @property
    def slots(self) -> Slots: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def threads(self) -> trio.CapacityLimiter | None: ...

    @property
    def transactions(self) -> Transactions | None:
        """Who runs transaction steps; None: the journal's writer."""
        ...

    @property
    def answers(self) -> Answers: ...

    @property
    def troubled(self) -> set[str]:
        """Runs that may have open incidents; whoever opens one adds its run."""
        ...

    @property
    def nursery(self) -> trio.Nursery:
        """Where steps run."""
        ...

    def prepare_child(
        self, actor: Actor, path: str, call: commands.ChildCall, *, attached: bool
    ) -> tuple[NewRun, Event]:
        """The row and the Started event of a child run: one that waits until there is room, or one that was let in.

        That one has to arrive at the gate, unless it lives on another node. One that is not attached knows no parent.

        Raises:
            EngineError: there is no such workflow, or the input does not fit it.
        """
        ...

    def rests(self, actor: Actor) -> None:
        """A run waits, and nothing is under way for it."""
        ...

    def newest(self, name: str) -> Workflow[..., Any] | None:
        """The newest code of a workflow, if there is any."""
        ...

    def adopt(self, run: Run, journal: list[Event] | None) -> None:
        """A run's start has been committed: bring it to life. `journal` is None when more may be recorded already."""
        ...

    def deliver(self, message: Message) -> None:
        """A message is in the inbox: tell the run's actor, if it is here."""
        ...

    def post(self, message: Message, done: Callable[[Verdict], None]) -> None:
        """Put a message into the inbox and deliver it; `done` gets the verdict, never that the store is away."""
        ...

    async def signal(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, by: str = ""
    ) -> Receipt:
        """See `Engine.signal`."""
        ...

    async def knows_letter(self, run: Run, message_id: str) -> bool:
        """Whether a message that cannot be applied has its incident already."""
        ...
