"""The model: what a program must come to, worked out without running it.

It walks through the nodes as the code would, with no clock and no interruptions. Where the moment of a cancellation
decides, it says so: a fate that is not `sure` may have come about or not, and the journal has to be consistent with
either.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from jivsd.proof.torture import language as say
from jivsd.records import Kind, Status, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.programs import Ending, Scenario

Matter = Literal["work", "draw", "ledger", "late", "expire", "stuck", "child"]

DONE: Final = frozenset({Kind.STEP_DONE})
FAILED: Final = frozenset({Kind.STEP_FAILED})
CANCELLED: Final = frozenset({Kind.STEP_CANCELLED})
ENDED: Final = frozenset({Kind.CHILD_ENDED})

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


class Plan(msgspec.Struct, eq=False):
    """What a run comes to.

    `status`: COMPENSATED stands for FAILED too, when there turns out to have been nothing to undo. `otherwise`: the
    status if the run is cut short at some moment; None: it never is. `groups`: what is undone together, in order.
    """

    status: Status = Status.COMPLETED
    otherwise: Status | None = None
    counter: int = 0
    fates: dict[str, Fate] = {}
    groups: list[list[Fate]] = []
    sends: list[Send] = []
    drawn: list[Fate] = []
    holds: bool = False
    commands: Counter[str] = msgspec.field(default_factory=Counter)

    def family(self, run_id: str) -> Iterator[tuple[str, Plan]]:
        """This plan and those of the child runs that surely are started, each with its run id."""
        yield run_id, self
        for fate in self.fates.values():
            if fate.plan is not None and fate.sure:
                yield from fate.plan.family(derived_id(run_id, fate.path))


def foresee(scenario: Scenario) -> Plan:
    """The plan of a scenario."""
    plan = plan_of(scenario.nodes, scenario.ending)
    plan.commands.update(
        {
            "lock_key": scenario.lock is not None,
            "timeout": scenario.timeout is not None,
            "delayed start": scenario.delay is not None,
            "cancel": scenario.ending in ("cancel", "cancel-anytime"),
            "terminate": scenario.ending in ("terminate", "terminate-anytime"),
            "pause": len(scenario.pauses),
            "query": scenario.ask,
        }
    )
    return plan


def plan_of(nodes: list[say.Node_], ending: Ending) -> Plan:
    """The plan of a run of these nodes."""
    plan = Plan(otherwise=ANYTIME_STATUS.get(ending))
    walk = _Walk(plan)
    root = _Branch("")
    try:
        walk.block(nodes, root)
    except _Raised:
        plan.status = Status.COMPENSATED
    except _Held:
        plan.holds = True
        plan.status = HELD_STATUS[ending]
    if plan.status in (Status.COMPENSATED, Status.CANCELLED, Status.TIMED_OUT):
        walk.undo(root.saga)
    return plan


class _Raised(Exception):
    """The code is left by an exception here."""


class _Held(Exception):
    """The code waits here for ever."""


class _Branch:
    """Where the walk stands: the path of a branch, what is counted in it, the saga that its steps belong to."""

    def __init__(self, path: str, saga: list[Fate] | None = None, *, sure: bool = True) -> None:
        self.path = path
        self.saga: list[Fate] = [] if saga is None else saga
        self.sure = sure
        self._counts: Counter[str] = Counter()

    def place(self, name: str) -> str:
        """The path of the next command of a name."""
        self._counts[name] += 1
        count = self._counts[name]
        name = name if count == 1 else f"{name}#{count}"
        return f"{self.path}/{name}" if self.path else name


class _Walk:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def undo(self, saga: list[Fate]) -> None:
        for fate in saga:
            fate.undone = True
        self._plan.groups.append(saga)

    def block(self, nodes: list[say.Node_], branch: _Branch) -> None:
        for node in nodes:
            self._step(node, branch)

    def _fate(self, branch: _Branch, fate: Fate) -> Fate:
        if not branch.sure:
            fate.outcomes |= CANCELLED
            fate.failures = None
        self._plan.fates[fate.path] = fate
        if fate.undo:
            branch.saga.append(fate)
        return fate

    def _step(self, node: say.Node_, branch: _Branch) -> None:
        plan = self._plan
        plan.commands[_counted_as(node)] += 1
        match node:
            case say.Work():
                self._work(node, branch)
            case say.Ledger():
                outcomes = FAILED if node.doomed else DONE
                path = branch.place(node.name)
                self._fate(
                    branch,
                    Fate(path, node.name, "ledger", outcomes, branch.sure, node.amount, None, undo=node.undo),
                )
                if node.doomed:
                    raise _Raised
                plan.counter += node.amount
            case say.Late():
                path = branch.place(node.name)
                self._fate(branch, Fate(path, node.name, "late", FAILED, branch.sure, undo=node.undo))
                raise _Raised
            case say.Stuck():
                path = branch.place(node.name)
                self._fate(
                    branch,
                    Fate(path, node.name, "stuck", DONE, branch.sure, node.amount, None, decide=node.decide),
                )
                plan.counter += node.amount
            case say.Draw():
                self._draw(node, branch)
            case say.Await():
                for amount in node.amounts:
                    self._send(say.ADD, {"to": node.name, "amount": amount})
                plan.counter += sum(node.amounts)
            case say.Receive():
                self._send(node.name, node.amount)
                plan.counter += node.amount
            case say.Child():
                self._child(node, branch)
            case say.Raise():
                raise _Raised
            case say.Hold():
                raise _Held
            case _:
                self._structure(node, branch)

    def _work(self, node: say.Work, branch: _Branch) -> None:
        failures = node.attempts - 1 if node.doomed else node.fails
        self._fate(
            branch,
            Fate(
                branch.place(node.name),
                node.name,
                "work",
                FAILED if node.doomed else DONE,
                branch.sure,
                node.amount,
                failures,
                undo=node.undo,
            ),
        )
        if node.doomed:
            raise _Raised
        self._plan.counter += node.amount

    def _draw(self, node: say.Draw, branch: _Branch) -> None:
        fate = Fate(branch.place(node.name), node.name, "draw", DONE, branch.sure, what=node.what)
        if node.what == "version":  # it takes a name in its branch itself
            fate.path = branch.place(node.name)
        self._plan.drawn.append(self._fate(branch, fate))

    def _send(self, name: str, payload: dict[str, str | int] | int) -> None:
        self._plan.sends.append(Send(len(self._plan.sends), name, payload))

    def _child(self, node: say.Child, branch: _Branch) -> None:
        child = plan_of(node.nodes, "complete")
        self._fate(
            branch,
            Fate(branch.place(say.WORKFLOW), say.WORKFLOW, "child", ENDED, branch.sure, undo=node.undo, plan=child),
        )
        self._plan.commands.update(child.commands)
        if child.status is not Status.COMPLETED:
            raise _Raised
        self._plan.counter += child.counter

    def _structure(self, node: say.Node_, branch: _Branch) -> None:
        match node:
            case say.Fan():
                self._fan(node, branch)
            case say.Race():
                self._race(node, branch)
            case say.Saga():
                self._saga(node, branch)
            case say.Expire():
                self._expire(node, branch)
            case say.Within() | say.Scope() | say.Cleanup():
                self.block(node.nodes, branch)
            case say.Try():
                try:
                    self.block(node.nodes, branch)
                except _Raised:
                    self.block(node.handler, branch)
            case _:
                pass

    def _saga(self, node: say.Saga, branch: _Branch) -> None:
        outer, branch.saga = branch.saga, []
        try:
            self.block(node.nodes, branch)
        except _Raised:
            self.undo(branch.saga)
            raise
        else:
            outer.extend(branch.saga)
        finally:
            branch.saga = outer

    def _fan(self, node: say.Fan, branch: _Branch) -> None:
        path = branch.place(node.name)
        keys: Counter[str] = Counter()
        held = any(isinstance(inner, say.Hold) for nodes in node.children for inner in nodes)
        gathered = any(isinstance(inner, say.Gather) for nodes in node.children for inner in nodes)
        failed = False
        for number, nodes in enumerate(node.children):
            key = {"keys": str(number), "names": "_block", "steps": _name(nodes[0])}[node.style]
            keys[key] += 1
            key = key if keys[key] == 1 else f"{key}#{keys[key]}"
            holds = any(isinstance(inner, say.Hold) for inner in nodes)
            sure = branch.sure and (not held or gathered or not holds)
            try:
                self.block(nodes, _Branch(f"{path}[{key}]", branch.saga, sure=sure))
            except _Held:
                pass
            except _Raised:
                failed = True
        if failed:
            raise _Raised

    def _race(self, node: say.Race, branch: _Branch) -> None:
        path = branch.place(node.name)
        for number, nodes in enumerate(node.children):
            sure = branch.sure and number == node.winner
            with suppress(_Held):
                self.block(nodes, _Branch(f"{path}[{number}]", branch.saga, sure=sure))
        self._plan.counter += node.winner

    def _expire(self, node: say.Expire, branch: _Branch) -> None:
        match node.hold:
            case "child":
                inner: list[say.Node_] = [say.Work(node.name, undo=node.undo), say.Hold()]
                plan = plan_of(inner, "cancel")
                plan.otherwise = Status.CANCELLED
                place = branch.place(say.WORKFLOW)
                self._fate(branch, Fate(place, say.WORKFLOW, "child", ENDED, branch.sure, plan=plan))
                self._plan.commands.update(plan.commands)
            case "async" | "patient" | "plain":
                outcomes = CANCELLED | DONE if node.hold == "plain" else CANCELLED
                fate = Fate(branch.place(node.name), node.name, "expire", outcomes, branch.sure, undo=node.undo)
                self._fate(branch, fate)
            case _:
                pass
        if node.fail:
            raise _Raised


def _name(node: say.Node_) -> str:
    return node.name if isinstance(node, say.Work) else ""


def _counted_as(node: say.Node_) -> str:
    """Which kind of command a node is, for the report."""
    match node:
        case say.Work(how="plain"):
            return "plain step"
        case say.Work(how="patient"):
            return "step that waits when cancelled"
        case say.Work() if node.doomed:
            return "step that fails for good"
        case say.Work() if node.fails:
            return "step that is retried"
        case say.Work() if node.undo:
            return "step with compensation"
        case say.Expire():
            return "fail_after" if node.fail else "move_on_after"
        case say.Within():
            return "fail_after" if node.fail else "move_on_after"
        case say.Sleep():
            return "sleep_until" if node.until else "sleep"
        case say.Draw():
            return node.what
        case _:
            return _KINDS[type(node)]


_KINDS: Final[dict[type[say.Node], str]] = {
    say.Work: "step",
    say.Ledger: "transaction step",
    say.Late: "step that times out",
    say.Await: "wait_until",
    say.Receive: "wait_signal",
    say.Fan: "nursery",
    say.Race: "race",
    say.Saga: "saga",
    say.Scope: "cancel_scope",
    say.Cleanup: "shield",
    say.Child: "child run",
    say.Raise: "raise",
    say.Try: "try",
    say.Stuck: "step that a person decides",
    say.Hold: "hold",
    say.Arrive: "wait_until",
    say.Gather: "wait_until",
}
