"""The model: what a program must come to, worked out without running it.

It walks through the nodes as the code would, with no clock and no interruptions. Where the moment of a cancellation
decides, it says so: a fate that is not `sure` may have come about or not, and the journal has to be consistent with
either.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from jivsd.authoring.commands import ATTRIBUTES
from jivsd.proof.torture import language as say
from jivsd.proof.torture.counting import counted_as
from jivsd.proof.torture.language import item_key, topic_of
from jivsd.proof.torture.plans import (
    ANYTIME_STATUS,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    HELD_STATUS,
    Fate,
    Launched,
    Mark,
    Plan,
    Question,
    Send,
)
from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.proof.torture.programs import Ending, Scenario


def foresee(scenario: Scenario) -> Plan:
    """The plan of a scenario."""
    plan = plan_of(scenario.nodes, scenario.ending, scenario.rounds)
    plan.attributes = scenario.attributes
    plan.commands.update(
        {
            "lock_key": scenario.lock is not None,
            "timeout": scenario.timeout is not None,
            "delayed start": scenario.delay is not None,
            "cancel": scenario.ending in ("cancel", "cancel-anytime"),
            "terminate": scenario.ending in ("terminate", "terminate-anytime"),
            "pause": len(scenario.pauses),
            "query": scenario.ask,
            "attributes": bool(scenario.attributes),
        }
    )
    return plan


def plan_of(
    nodes: list[say.Node_],
    ending: Ending,
    rounds: list[list[say.Node_]] | None = None,
    before: list[Plan] | None = None,
) -> Plan:
    """The plan of a run of these nodes, which then goes on with these rounds; `before` are those it goes on for."""
    before = before or []
    plan = Plan(otherwise=ANYTIME_STATUS.get(ending), counter=before[-1].counter if before else 0)
    root = _Branch("")
    walk = _Walk(plan, root.saga, before[0] if before else plan)
    try:
        walk.block(nodes, root)
    except _Raised:
        plan.status = Status.COMPENSATED
    except _Held:
        plan.holds = True
        plan.status = HELD_STATUS[ending]
    if plan.status in (Status.COMPENSATED, Status.CANCELLED, Status.TIMED_OUT):
        walk.undo(root.saga)
    if plan.status is Status.COMPLETED and rounds:
        plan.status = Status.CONTINUED
        plan.following = plan_of(rounds[0], ending, rounds[1:], [*before, plan])
        plan.commands += plan.following.commands
        plan.commands["continue_as_new"] += 1
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
    """Walks through the nodes of one run; `first` is the plan of the run with which its chain begins."""

    def __init__(self, plan: Plan, saga: list[Fate], first: Plan) -> None:
        self._plan = plan
        self._run_saga = saga
        self._first = first

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
        plan.commands[counted_as(node)] += 1
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
                    self._send(say.ADD, say.message(node.name, amount))
                plan.counter += sum(node.amounts)
            case say.Receive():
                self._send(node.name, node.amount)
                plan.counter += node.amount
            case say.Emit():
                self._mark(branch, "emit", "publish", [topic_of(node), node.amount])
            case say.Attribute():
                for value in node.values:
                    self._mark(branch, ATTRIBUTES, "attributes", {node.name: value})
                    plan.counter += value if isinstance(value, int) else 0
            case say.Ask():
                self._ask(node, branch)
            case say.Child():
                self._child(plan_of(node.nodes, "complete", node.rounds), branch, undo=node.undo)
            case say.Launch():
                self._launch(node, branch)
            case say.Hear():
                self._first.heard += 1
                plan.counter += node.amount
            case say.Tell():
                self._mark(branch, "signal", "signal", None)
            case say.Raise() | say.Vain():
                raise _Raised
            case say.Hold():
                raise _Held
            case _:
                self._structure(node, branch)

    def _launch(self, node: say.Launch, branch: _Branch) -> None:
        plan = plan_of(node.launched, "complete")
        path = self._mark(branch, say.WORKFLOW, "launch", None)
        told = self._mark(branch, "signal", "signal", None)
        self._plan.launched.append(Launched(path, told, say.message(node.name, node.there), plan))
        self._plan.commands += plan.commands
        self._plan.commands["signal"] += 1
        self._step(say.Hear(node.name, node.back), branch)

    def _mark(
        self, branch: _Branch, name: str, what: Literal["publish", "attributes", "launch", "signal"], value: Any
    ) -> str:
        path = branch.place(name)
        self._plan.marks[path] = Mark(path, what, branch.sure, value)
        return path

    def _work(self, node: say.Work, branch: _Branch, name: str = "") -> None:
        failures = node.attempts - 1 if node.doomed else node.fails
        self._fate(
            branch,
            Fate(
                branch.place(name or node.name),
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

    def _ask(self, node: say.Ask, branch: _Branch) -> None:
        question = Question(node, node.amount)
        if node.nodes is not None:
            handler = _Branch(f"!update[{question.message_ids[0]}]", self._run_saga, sure=branch.sure)
            try:
                self.block(node.nodes, handler)
            except _Raised:
                question = Question(node, None)
        self._plan.counter += question.answer or 0
        self._first.asks.append(question)

    def _send(self, name: str, payload: dict[str, str | int] | int) -> None:
        self._first.sends.append(Send(len(self._first.sends), name, payload))

    def _child(self, child: Plan, branch: _Branch, *, undo: bool = False, times: int = 1) -> None:
        """A child run, whose counter counts so many times."""
        self._fate(
            branch,
            Fate(branch.place(say.WORKFLOW), say.WORKFLOW, "child", ENDED, branch.sure, undo=undo, plan=child),
        )
        self._plan.commands.update(child.commands)
        last = child.chain[-1]
        if last.status is not Status.COMPLETED:
            raise _Raised
        self._plan.counter += times * last.counter

    def _structure(self, node: say.Node_, branch: _Branch) -> None:
        match node:
            case say.Fan():
                self._fan(node, branch)
            case say.Map():
                self._map(node, branch)
            case say.Race():
                self._race(node, branch)
            case say.Saga():
                self._saga(node, branch)
            case say.Lock():
                try:
                    self.block([node.enter, *node.nodes], branch)
                finally:
                    self._step(node.leave, branch)
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

    def _map(self, node: say.Map, branch: _Branch) -> None:
        path = branch.place(node.name)
        plan = self._plan
        for place, nodes in enumerate(node.items):
            key = item_key(node, place) if node.keyed else str(place)
            item = _Branch(f"{path}[{key}]", branch.saga, sure=branch.sure)
            match node.what, nodes:
                case "steps", [say.Work() as work]:
                    self._work(work, item, name=_name(node.items[0][0]))
                    plan.counter += place * work.amount
                case "runs", _:
                    self._child(plan_of(nodes, "complete"), item, times=place + 1)
                case _:
                    self.block(nodes, item)
                    plan.counter += (place + 1) * place

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
