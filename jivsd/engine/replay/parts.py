"""The parts that the replay machine is made of: branches, scopes, open commands."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.records import ErrorRecord, Status

if TYPE_CHECKING:
    from random import Random

    from jivsd.engine.replay.nursery import Nursery
    from jivsd.engine.replay.saga import Entry, Saga  # noqa: TC004 -- nobody decodes an open command
    from jivsd.engine.replay.updates import Updates


class Park:
    """What a context call yields: the branch waits for an event. There is one, `PARK`."""

    __slots__ = ()


PARK: Final = Park()

TIMEOUT: Final = "!timeout"
"""The path of the run's own deadline. No name that an author gives can have the exclamation mark."""
START: Final = "!start"
"""The path at which a run waits for its time to begin."""
LOCK: Final = "!lock"
"""The path at which the run waits for its lock key."""
LOCK_WAIT: Final = "!lock/wait"
"""The path of the deadline of that wait."""

Body = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]
"""What a branch drives with `send` and `throw`."""


class Scope:
    """A node of the tree of cancellation. A branch stands in one; cancelling it reaches the branches below.

    `members` and `children` are dicts used as ordered sets: what is iterated must have an order.
    """

    __slots__ = ("cancelled", "children", "members", "parent", "shield")

    def __init__(self, parent: Scope | None, *, shield: bool = False) -> None:
        self.parent = parent
        self.shield = shield
        self.cancelled = False
        self.members: dict[Branch, None] | None = None
        self.children: dict[Scope, None] | None = None
        if parent is not None:
            if parent.children is None:
                parent.children = {}
            parent.children[self] = None

    @property
    def effective(self) -> bool:
        """Whether calls made here raise Cancelled."""
        scope: Scope | None = self
        while scope is not None:
            if scope.cancelled:
                return True
            if scope.shield:
                return False
            scope = scope.parent
        return False

    @property
    def cancelled_outside(self) -> bool:
        """Whether a cancellation from further out reaches this scope: then it is not this one that catches it."""
        return not self.shield and self.parent is not None and self.parent.effective

    def close(self) -> None:
        if self.parent is not None and self.parent.children is not None:
            self.parent.children.pop(self, None)

    def reached(self) -> list[Branch]:
        """The branches that cancelling this scope reaches, in the order of their creation."""
        found: list[Branch] = []
        pending: list[Scope] = [self]
        while pending:
            scope = pending.pop()
            found.extend(scope.members or ())
            pending.extend(child for child in (scope.children or ()) if not child.shield)
        return sorted(found, key=lambda branch: branch.serial)


class Branch:
    """A plain coroutine of the run and where it stands: its path, its scope, its saga.

    `parked`: what it waits for; None while it is runnable or has ended.
    """

    __slots__ = ("_counts", "body", "key", "nursery", "parked", "path", "raised", "random", "saga", "scope", "serial")

    def __init__(self, path: str, body: Body, scope: Scope, saga: Saga, serial: int) -> None:
        self.path = path
        self.body = body
        self.scope = scope
        self.saga = saga
        self.serial = serial
        self.key = ""
        self.nursery: Nursery | Updates | None = None
        self.parked: Any = None
        self.raised = 0
        self.random: Random | None = None
        self._counts: dict[str, int] | None = None
        self.enter(scope)

    def enter(self, scope: Scope) -> None:
        """Stand in another scope."""
        if self.scope.members is not None:
            self.scope.members.pop(self, None)
        if scope.members is None:
            scope.members = {}
        scope.members[self] = None
        self.scope = scope

    def leave(self) -> None:
        if self.scope.members is not None:
            self.scope.members.pop(self, None)

    def allocate(self, name: str) -> str:
        """The path of the next command of a name in this branch."""
        if self._counts is None:
            self._counts = {}
        count = self._counts[name] = self._counts.get(name, 0) + 1
        name = name if count == 1 else f"{name}#{count}"
        return f"{self.path}/{name}" if self.path else name

    def count(self, name: str) -> int:
        """How often `name` has been drawn in this branch, this time included."""
        if self._counts is None:
            self._counts = {}
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return count


class Open(msgspec.Struct, eq=False):
    """A command that was issued and whose outcome is not in the journal yet."""

    command: Any
    """A `Command`."""
    branch: Branch | None
    """Who is parked on it; None once it is abandoned."""
    issued_at: int
    """The seq of the turn that issued it."""
    path: str
    target: Any = None
    """For a deadline, the scope that it cancels."""
    cancelling: bool = False
    """Its scope was cancelled and the branch waits until it has settled."""
    failures: int = 0
    """Recorded failed attempts."""
    retry_at: int | None = None
    """When the next attempt is due, in microseconds since the epoch; None: at once."""
    held: bool = False
    """An incident holds it."""
    last_error: str | None = None
    tainted: bool = False
    """An attempt's outcome is unknown."""
    entry: Entry | None = None
    """Its place in the saga, if it has a compensation."""

    @property
    def abandoned(self) -> bool:
        return self.branch is None and self.target is None

    def __repr__(self) -> str:
        return f"<open {self.command.kind} {self.path}>"


class ForeignYield(msgspec.Struct, frozen=True):
    """A branch yielded something that is not ours (a trio trap, say). Whoever drives must let it be undone.

    `before`: what the probe said before; undoing must bring it back. A body that has ended yielded None.
    """

    body: Any
    yielded: Any
    before: object


class Phase(StrEnum):
    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    DONE = "DONE"


class Outcome(msgspec.Struct, frozen=True):
    """How the run is to end."""

    status: Status
    output: msgspec.Raw | None = None
    error: ErrorRecord | None = None
    raised_at: str = ""


class Block(msgspec.Struct, frozen=True):
    """Why the run cannot go on: an incident for a person.

    `kind`: "replay", "foreign", "handler", "cancelled-loop", "version", "result", "compensation" or "damage".
    """

    kind: str
    message: str
    path: str = ""
    expected: str = ""
    found: str = ""
