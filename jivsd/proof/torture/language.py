"""The language of the torturer's programs: JSON that a workflow interprets, and that a model foresees.

Every node that does something has a name of its own, which becomes the last part of its command's path. Programs are
made so that what they come to does not depend on how long anything takes: only one child of a race can return, what
is to expire waits forever, what is not to expire has an hour.
"""

from __future__ import annotations

from typing import Literal

import msgspec

WORKFLOW = "torture"
ADD = "add"
"""The signal that has a handler: it adds to the run's counter."""
PUT = "put"
PERFORM = "perform"
"""The updates: one with a plain handler, one with an async one."""
NOT_YET = "NotYet"
"""The type of the error by which an update is refused that the code does not wait for yet."""
HOUR_MS = 3_600_000


class Node(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="do"):
    """Base of all nodes."""


class Work(Node, frozen=True, tag="work"):
    """A step that is noted in the outside world. `how`: an async one, a plain one in a thread, or an async one whose
    scope waits for it when it is cancelled. Its first `fails` attempts fail, of `attempts` that are allowed.
    `beats`: it tells the next attempt, by a heartbeat, which one it was, and fails if it is not told the same.
    """

    name: str
    how: Literal["async", "plain", "patient"] = "async"
    amount: int = 0
    fails: int = 0
    attempts: int = 4
    undo: bool = False
    ms: int = 0
    pause: int = 10
    """Milliseconds before the second attempt."""
    beats: bool = False

    @property
    def doomed(self) -> bool:
        return self.fails >= self.attempts


class Ledger(Node, frozen=True, tag="ledger"):
    """A transaction step that enters a row; a doomed one enters it and then fails."""

    name: str
    amount: int = 0
    undo: bool = False
    doomed: bool = False


class Late(Node, frozen=True, tag="late"):
    """A step whose time is always up: whether it happened is never known."""

    name: str
    ms: int
    undo: bool = False


class Sleep(Node, frozen=True, tag="sleep"):
    ms: int
    until: bool = False
    """Say when, instead of how long."""


class Await(Node, frozen=True, tag="await"):
    """Wait until signals to the handler have brought the sum of `amounts`; they count for the counter too.

    `limited`: the wait has a time limit, which does not come.
    """

    name: str
    amounts: list[int]
    limited: bool = False


class Receive(Node, frozen=True, tag="receive"):
    """Wait for a signal without a handler; its payload is `amount`. `limited`: see Await."""

    name: str
    amount: int
    limited: bool = False


class Vain(Node, frozen=True, tag="vain"):
    """Wait for what never comes, until the wait ends by itself and raises."""

    ms: int
    what: Literal["signal", "until"]


class Emit(Node, frozen=True, tag="emit"):
    """Publish an event."""

    name: str
    amount: int


class Attribute(Node, frozen=True, tag="attribute"):
    """Give the run's attribute of that name one value after the other; None takes it away. Numbers are read back, and
    count for the counter.
    """

    name: str
    values: list[int | str | None]


class Draw(Node, frozen=True, tag="draw"):
    """Draw a value that is another in every run, and hand it to a step."""

    name: str
    what: Literal["side_effect", "random", "uuid", "now", "version"]


class Fan(Node, frozen=True, tag="fan"):
    """A nursery. `style`: children under keys, without keys, or steps given to start_soon (each child is one Work)."""

    name: str
    children: list[list[Node_]]
    limit: int | None = None
    style: Literal["keys", "names", "steps"] = "keys"


class Map(Node, frozen=True, tag="map"):
    """The same is done with many items, and each result counts as often as its place says.

    `what`: steps (each item is one Work, all of the first one's kind), child runs, or blocks. `keyed`: under names.
    """

    name: str
    items: list[list[Node_]]
    what: Literal["steps", "runs", "blocks"]
    keyed: bool = False
    limit: int | None = None


class Race(Node, frozen=True, tag="race"):
    """Only the child at `winner` ever returns."""

    name: str
    children: list[list[Node_]]
    winner: int


class Saga(Node, frozen=True, tag="saga"):
    nodes: list[Node_]


class Lock(Node, frozen=True, tag="lock"):
    """A part that no two are in at once. Whoever comes in or goes enters that into the ledger.

    Nothing in it waits for another lock, so that nobody ever waits in a circle.
    """

    name: str
    key: int
    nodes: list[Node_]

    @property
    def enter(self) -> Ledger:
        return Ledger(f"enter-{self.key}-{self.name}")

    @property
    def leave(self) -> Ledger:
        return Ledger(f"leave-{self.key}-{self.name}")


class Within(Node, frozen=True, tag="within"):
    """A deadline that does not come."""

    nodes: list[Node_]
    fail: bool


class Expire(Node, frozen=True, tag="expire"):
    """A deadline that comes: what is inside never ends by itself. With `fail` it raises."""

    name: str
    ms: int
    fail: bool
    hold: Literal["sleep", "signal", "until", "async", "plain", "patient", "child"]
    undo: bool = False


class Scope(Node, frozen=True, tag="scope"):
    """A scope that cancels itself; `never` comes after that."""

    nodes: list[Node_]
    never: list[Node_]


class Cleanup(Node, frozen=True, tag="cleanup"):
    """Something that expires, and in its `finally`, shielded, nodes that run nevertheless."""

    ms: int
    nodes: list[Node_]


class Child(Node, frozen=True, tag="child"):
    """A child run, whose counter is added; with `undo` there is a step that undoes it. `rounds`: see Program."""

    nodes: list[Node_]
    undo: bool = False
    rounds: list[list[Node_]] = []


class Hear(Node, frozen=True, tag="hear"):
    """Wait until another run has told this one an amount; it counts for the counter."""

    name: str
    amount: int


class Tell(Node, frozen=True, tag="tell"):
    """Tell the run that has started this one an amount; that one may have ended."""

    name: str
    amount: int


class Launch(Node, frozen=True, tag="launch"):
    """Start a run that lives on by itself, tell it an amount that it waits for, and wait for what it tells."""

    name: str
    nodes: list[Node_]
    there: int
    back: int

    @property
    def launched(self) -> list[Node_]:
        """What that run does."""
        return [Hear(self.name, self.there), *self.nodes, Tell(self.name, self.back)]


class Raise(Node, frozen=True, tag="raise"):
    name: str


class Try(Node, frozen=True, tag="try"):
    """`nodes` raise; `handler` is what is done then."""

    nodes: list[Node_]
    handler: list[Node_]


class Stuck(Node, frozen=True, tag="stuck"):
    """A step that fails until the world is mended; its incident is retried, or resolved with the amount as value."""

    name: str
    amount: int
    decide: Literal["retry", "value"]


class Hold(Node, frozen=True, tag="hold"):
    """Wait for what never comes."""

    how: Literal["sleep", "signal", "until"] = "signal"
    last: bool = False
    """It is the end of the whole program: the query `standing` says so."""


class Ask(Node, frozen=True, tag="ask"):
    """Wait until an update has been answered: with `amount`, or with what its handler raises.

    `nodes`: what an async handler does first; None: the handler is a plain one. `early`: it may come before the code
    waits for it. `rivals`: a second one is sent beside, and one of them is refused.
    """

    name: str
    amount: int
    nodes: list[Node_] | None = None
    early: bool = False
    rivals: bool = False


class Arrive(Node, frozen=True, tag="arrive"):
    """Say that one has come to here."""

    name: str


class Gather(Node, frozen=True, tag="gather"):
    """Wait until so many have arrived."""

    name: str
    count: int


Node_ = (
    Work | Ledger | Late | Sleep | Await | Receive | Vain | Emit | Attribute | Draw | Fan | Map | Race | Saga | Lock
    | Within | Expire | Scope | Cleanup | Child | Launch | Tell | Hear | Raise | Try | Stuck | Hold | Ask | Arrive
    | Gather
)  # fmt: skip
"""Any node."""


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of a run. `world`: the database in which its steps are noted. `home`: the run that has let it go.

    `rounds`: when the nodes are done, the run goes on as new with the first of these as its nodes, and so on. The rest
    is what it takes along: its counter, how often each Await was told, what was drawn, the updates that were taken.
    """

    world: str
    nodes: list[Node_]
    rounds: list[list[Node_]] = []
    counter: int = 0
    added: dict[str, int] = {}
    drawn: dict[str, str] = {}
    taken: dict[str, int] = {}
    home: str = ""


class Result(msgspec.Struct, frozen=True):
    """The output of a run. `drawn`: what each Draw got, by its name."""

    counter: int
    drawn: dict[str, str]


def message(to: str, amount: int) -> dict[str, str | int]:
    """The payload of a signal that adds."""
    return {"to": to, "amount": amount}


def topic_of(node: Emit) -> str:
    """Under which topic a node publishes."""
    return f"torture/{node.name}"


def item_key(node: Map, place: int) -> str:
    """What the place of an item is called, if it has a name."""
    return f"{node.name} item {place}"
