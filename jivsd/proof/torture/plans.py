"""Plans: what the model says that a run comes to, and each thing in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from jivsd.proof.torture.language import Ask
from jivsd.records import Kind, Status, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.programs import Ending

Matter = Literal["work", "draw", "ledger", "late", "expire", "stuck", "child"]

DONE: Final = frozenset({Kind.STEP_DONE})
FAILED: Final = frozenset({Kind.STEP_FAILED})
CANCELLED: Final = frozenset({Kind.STEP_CANCELLED})
ENDED: Final = frozenset({Kind.CHILD_ENDED})

CONTINUED: Final = "!continued"
"""Of what, beside the run it goes on for, the id of a run is made."""

HELD_STATUS: Final[dict[Ending, Status]] = {
    "cancel": Status.CANCELLED,
    "terminate": Status.TERMINATED,
    "timeout": Status.TIMED_OUT,
}
ANYTIME_STATUS: Final[dict[Ending, Status]] = {
    "cancel-anytime": Status.CANCELLED,
    "terminate-anytime": Status.TERMINATED,
    "timeout": Status.TIMED_OUT,
}


class Send(msgspec.Struct, frozen=True):
    """A signal that the run waits for. `serial`: its number among those of the run."""

    serial: int
    name: str
    payload: dict[str, str | int] | int


class Question(msgspec.Struct, frozen=True):
    """An update that the run waits for. `answer`: None if its handler raises."""

    ask: Ask
    answer: int | None

    @property
    def message_ids(self) -> list[str]:
        """Those under which it is sent; of two one is refused."""
        return [f"u-{self.ask.name}", f"r-{self.ask.name}"] if self.ask.rivals else [f"u-{self.ask.name}"]


class Fate(msgspec.Struct, eq=False):
    """What becomes of one step or child run. `outcomes`: which events may record it.

    `sure`: the code certainly comes to it and waits for it; else it may also be cancelled, or never begun.
    `failures`: how many failed attempts are recorded before it is done; None: that is not foreseen.
    `undo`: it has a compensation. `undone`: its saga is left by an exception.
    """

    path: str
    name: str
    matter: Matter
    outcomes: frozenset[Kind]
    sure: bool
    amount: int = 0
    failures: int | None = 0
    undo: bool = False
    undone: bool = False
    plan: Plan | None = None
    """A child's own."""
    decide: str = ""
    """For what an incident holds: "retry" or "value"."""
    what: str = ""
    """For what is drawn: which kind of value."""


class Mark(msgspec.Struct, frozen=True):
    """Something that a run says to the outside, which a Marker records. `sure`: see Fate.

    `value`: what must stand there: topic and payload of what it publishes, or how its attributes change.
    """

    path: str
    what: Literal["publish", "attributes", "launch", "signal"]
    sure: bool
    value: Any


class Launched(msgspec.Struct, frozen=True):
    """A run that lives on by itself: where it is started, where it is told something, and what that is."""

    path: str
    told: str
    message: dict[str, str | int]
    plan: Plan


class Plan(msgspec.Struct, eq=False):
    """What a run comes to; `following` is the plan of the run in which it goes on as new.

    `status`: COMPENSATED stands for FAILED too, when there turns out to have been nothing to undo. `otherwise`: the
    status if the run is cut short at some moment; None: it never is. `groups`: what is undone together, in order.
    """

    status: Status = Status.COMPLETED
    otherwise: Status | None = None
    counter: int = 0
    fates: dict[str, Fate] = {}
    groups: list[list[Fate]] = []
    sends: list[Send] = []
    asks: list[Question] = []
    heard: int = 0
    """What it is sent, and how often other runs tell it something; the first plan has that of those that follow too."""
    launched: list[Launched] = []
    drawn: list[Fate] = []
    marks: dict[str, Mark] = {}
    attributes: dict[str, Any] = {}
    """Those that it starts with."""
    holds: bool = False
    commands: Counter[str] = msgspec.field(default_factory=Counter)
    following: Plan | None = None

    @property
    def chain(self) -> list[Plan]:
        """This plan and those that follow."""
        return [self] if self.following is None else [self, *self.following.chain]

    def family(self, run_id: str) -> Iterator[tuple[str, Plan]]:
        """This plan, those that follow, and those of the child runs that surely are started, each with its run id."""
        yield run_id, self
        if self.following is not None:
            yield from self.following.family(derived_id(run_id, CONTINUED))
        for fate in self.fates.values():
            if fate.plan is not None and fate.sure:
                yield from fate.plan.family(derived_id(run_id, fate.path))

    def let_go(self, *origins: str) -> Iterator[tuple[tuple[str, ...], Launched]]:
        """What this plan, those that follow and their child runs let go, each with the runs that lead to it.

        `origins`: those that lead to this one, and its own run id; each has started the next.
        """
        for launched in self.launched:
            yield origins, launched
        if self.following is not None:
            yield from self.following.let_go(*origins, derived_id(origins[-1], CONTINUED))
        for fate in self.fates.values():
            if fate.plan is not None:
                yield from fate.plan.let_go(*origins, derived_id(origins[-1], fate.path))
