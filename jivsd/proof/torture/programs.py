"""Draws programs, and what is done to their runs, from a seed: the same seed gives the same, whatever happens."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from jivsd.proof.torture import language as say

if TYPE_CHECKING:
    from collections.abc import Callable

Ending = Literal["complete", "fail", "cancel", "terminate", "cancel-anytime", "terminate-anytime", "timeout"]
"""How a run is to end. "cancel" and "terminate" come when it holds; the others at any moment, while it undoes too."""

ENDINGS: Final[dict[Ending, int]] = {
    "complete": 12,
    "fail": 4,
    "cancel": 2,
    "terminate": 1,
    "cancel-anytime": 3,
    "terminate-anytime": 2,
    "timeout": 1,
}
HELD: Final = ("cancel", "terminate", "timeout")
"""The endings of programs that wait at their end for what never comes."""
ANYTIME: Final = ("cancel-anytime", "terminate-anytime")
LOCKS: Final = 3
"""How many lock keys the runs with one share."""
SECTIONS: Final = 5
"""How many lock keys the parts of runs share."""
DEEPEST: Final = 3
MOST_ATTRIBUTES: Final = 16
"""How many attributes the runs of a program share; a run may have 32."""
NEVER_AMOUNT: Final = 1_000_000
"""What a step would add that is never reached."""


class Scenario(msgspec.Struct, frozen=True):
    """A program and what is done to its run; times in milliseconds after its start, None: not at all."""

    number: int
    nodes: list[say.Node_]
    ending: Ending
    rounds: list[list[say.Node_]] = []
    """With what the run goes on as new."""
    timeout: int | None = None
    lock: int | None = None
    """Which of the lock keys it takes."""
    end_after: int | None = None
    """When it is cancelled or terminated."""
    pauses: list[tuple[int, int]] = []
    """When it is paused, and for how long."""
    again: bool = False
    """Whether starts and signals are sent twice, though they were acknowledged."""
    ask: bool = False
    """Whether it is queried while it runs and after its end."""
    delay: int | None = None
    """How much later it begins; 0: as soon as there is room."""
    attributes: dict[str, int | str] = {}
    """Those that it starts with."""


def draw(seed: int, number: int) -> Scenario:
    """The scenario of a number."""
    rng = Random(f"{seed}/{number}")
    ending = rng.choices(list(ENDINGS), list(ENDINGS.values()))[0]
    maker = _Maker(rng, size=rng.randint(5, 22))
    nodes = maker.block(0, most=6)
    rounds = maker.rounds(0)
    last = rounds[-1] if rounds else nodes
    if ending == "fail" or (ending in ANYTIME and rng.random() < 0.4):
        last += maker.failing(1)
    elif ending in HELD:
        last += [say.Hold(rng.choice(("signal", "sleep", "until")), last=True), *maker.never()]
    scenario = Scenario(
        number=number,
        nodes=nodes,
        ending=ending,
        rounds=rounds,
        timeout=rng.randint(100, 2000) if ending == "timeout" else None,
        lock=rng.randrange(LOCKS) if rng.random() < 0.08 else None,
        end_after=rng.randint(0, 1500) if ending in ANYTIME else None,
        pauses=[(rng.randint(0, 600), rng.randint(20, 400)) for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))],
        again=rng.random() < 0.2,
        ask=rng.random() < 0.3,
        delay=rng.choice((0, 50, 400, 1500)) if rng.random() < 0.15 else None,
        attributes={"seed": seed, "scenario": f"{seed}/{number}"} if rng.random() < 0.3 else {},
    )
    return msgspec.structs.replace(scenario, pauses=[]) if maker.outlasts else scenario


class _Maker:
    """`left` nodes more or less are still to be made."""

    def __init__(self, rng: Random, *, size: int) -> None:
        self._rng = rng
        self._left = size
        self._names = 0
        self._early = True
        """Whether updates may come before the code waits for them: not to a run that will not wait for them."""
        self._attributes = 0
        self.outlasts = False
        """Whether a thread is to be overtaken by a deadline: which of them is first depends on when a run is paused."""

    def block(self, depth: int, most: int = 3) -> list[say.Node_]:
        """Nodes that end by themselves, without an exception."""
        made: list[say.Node_] = []
        for _ in range(self._rng.randint(1, most)):
            makers = {**_LEAVES, **_BRANCHES} if depth < DEEPEST and self._left > 0 else _LEAVES
            self._left -= 1
            make = self._rng.choices(list(makers), list(makers.values()))[0]
            made.append(make(self, depth + 1))
        return made

    def rounds(self, depth: int) -> list[list[say.Node_]]:
        """With what a run goes on as new, now and then. What is still to be made belongs to it too."""
        count = self._rng.choice((0, 0, 0, 1, 2))
        self._early = self._early and not count
        return [self.block(depth, most=3) for _ in range(count)]

    def failing(self, depth: int) -> list[say.Node_]:
        """Nodes of which the last but for some that are never reached raises."""
        makers = _SIMPLE_RAISERS if depth > DEEPEST else {**_SIMPLE_RAISERS, **_RAISERS}
        raiser = self._rng.choices(list(makers), list(makers.values()))[0]
        return [*self.block(depth, most=2), raiser(self, depth + 1), *self.never()]

    def never(self) -> list[say.Node_]:
        """What is never reached, now and then."""
        return [say.Work(self._name(), amount=NEVER_AMOUNT, undo=self._chance(0.5))] if self._chance(0.5) else []

    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _amount(self) -> int:
        return self._rng.randint(1, 99)

    def work(self, depth: int) -> say.Node_:
        return say.Work(
            self._name(),
            how=self._rng.choice(("async", "async", "plain", "patient")),
            amount=self._amount(),
            fails=self._rng.choice((0, 0, 0, 1, 2, 3)),
            undo=self._chance(0.4),
            ms=self._rng.choice((0, 0, 1, 20, 150)),
            pause=self._rng.choice((0, 10, 50, 500)),
            beats=self._chance(0.4),
        )

    def ledger(self, depth: int) -> say.Node_:
        return say.Ledger(self._name(), self._amount(), undo=self._chance(0.5))

    def sleep(self, depth: int) -> say.Node_:
        return say.Sleep(self._rng.choice((0, 5, 30, 150)), until=self._chance(0.4))

    def wait(self, depth: int) -> say.Node_:
        amounts = [self._amount() for _ in range(self._rng.randint(1, 3))]
        return say.Await(self._name(), amounts, limited=self._chance(0.3))

    def receive(self, depth: int) -> say.Node_:
        return say.Receive(self._name(), self._amount(), limited=self._chance(0.3))

    def emit(self, depth: int) -> say.Node_:
        return say.Emit(self._name(), self._amount())

    def attribute(self, depth: int) -> say.Node_:
        if self._attributes >= MOST_ATTRIBUTES:
            return self.emit(depth)
        self._attributes += 1
        count = self._rng.randint(1, 3)
        return say.Attribute(self._name(), [self._rng.choice((self._amount(), "text", None)) for _ in range(count)])

    def draw(self, depth: int) -> say.Node_:
        return say.Draw(self._name(), self._rng.choice(("side_effect", "random", "uuid", "now", "version")))

    def ask(self, depth: int) -> say.Node_:
        early, rivals = self._early and self._chance(0.5), self._chance(0.3)
        return say.Ask(self._name(), self._amount(), early=early, rivals=rivals)

    def perform(self, depth: int) -> say.Node_:
        nodes = self.failing(depth) if self._chance(0.3) else self.block(depth)
        return say.Ask(self._name(), self._amount(), nodes, early=self._early and self._chance(0.5))

    def stuck(self, depth: int) -> say.Node_:
        return say.Stuck(self._name(), self._amount(), self._rng.choice(("retry", "value")))

    def fan(self, depth: int) -> say.Node_:
        style = self._rng.choice(("keys", "names", "steps"))
        limit = self._rng.choice((None, None, 1, 2))
        count = self._rng.randint(1, 4)
        children = [[self.work(depth)] if style == "steps" else self.block(depth, most=2) for _ in range(count)]
        return say.Fan(self._name(), children, limit, style)

    def map(self, depth: int) -> say.Node_:
        what = self._rng.choice(("steps", "runs", "blocks"))
        count = self._rng.randint(0, 4)
        if what == "steps":
            first = say.Work(self._name(), how=self._rng.choice(("async", "plain")), undo=self._chance(0.4))
            items: list[list[say.Node_]] = [[self._alike(first)] for _ in range(count)]
        else:
            items = [self.block(depth, most=2) for _ in range(min(count, 2) if what == "runs" else count)]
        keyed = what != "runs" and self._chance(0.5)
        return say.Map(self._name(), items, what, keyed=keyed, limit=self._rng.choice((None, None, 1, 2)))

    def _alike(self, work: say.Work) -> say.Work:
        """Another of the same kind, which takes its own time."""
        fails, ms = self._rng.choice((0, 0, 1)), self._rng.choice((0, 1, 20))
        return msgspec.structs.replace(work, name=self._name(), amount=self._amount(), fails=fails, ms=ms)

    def race(self, depth: int) -> say.Node_:
        count = self._rng.randint(1, 3)
        winner = self._rng.randrange(count)
        children = [
            self.block(depth, most=2) if number == winner else [*self._unsure(), say.Hold(), *self.never()]
            for number in range(count)
        ]
        return say.Race(self._name(), children, winner)

    def _unsure(self) -> list[say.Node_]:
        """Nodes that may be cancelled before they are done; so they count for nothing."""
        made: list[say.Node_] = []
        for _ in range(self._rng.randint(0, 2)):
            match self._rng.randrange(6):
                case 0:
                    made.append(say.Sleep(self._rng.choice((0, 5, 30))))
                case 3:
                    made.append(say.Emit(self._name(), self._amount()))
                case 5:
                    made.append(self._locked([say.Sleep(self._rng.choice((0, 5, 30)))]))
                case 4 if self._attributes < MOST_ATTRIBUTES:
                    self._attributes += 1
                    made.append(say.Attribute(self._name(), ["unsure"]))
                case 1:
                    made.append(say.Ledger(self._name(), undo=self._chance(0.5)))
                case _:
                    how = self._rng.choice(("async", "plain", "patient"))
                    fails = self._rng.choice((0, 0, 1)) if how != "patient" else 0
                    made.append(say.Work(self._name(), how=how, fails=fails, undo=self._chance(0.5), ms=5))
        return made

    def saga(self, depth: int) -> say.Node_:
        return say.Saga(self.block(depth))

    def lock(self, depth: int) -> say.Node_:
        return self._locked(self._brief(depth))

    def _brief(self, depth: int) -> list[say.Node_]:
        """What others may wait for."""
        made = (self._rng.choice((self.work, self.ledger, self.sleep)) for _ in range(self._rng.randint(0, 2)))
        return [make(depth) for make in made]

    def _locked(self, nodes: list[say.Node_]) -> say.Node_:
        return say.Lock(self._name(), self._rng.randrange(SECTIONS), nodes)

    def within(self, depth: int) -> say.Node_:
        return say.Within(self.block(depth), fail=self._chance(0.5))

    def _expiring(self, *, fail: bool) -> say.Node_:
        hold = self._rng.choice(("sleep", "signal", "until", "async", "plain", "patient", "child"))
        self.outlasts |= hold == "plain"
        undo = self._chance(0.4)
        return say.Expire(self._name(), self._rng.choice((10, 40, 120)), fail=fail, hold=hold, undo=undo)

    def expire(self, depth: int) -> say.Node_:
        return self._expiring(fail=False)

    def scope(self, depth: int) -> say.Node_:
        return say.Scope(self.block(depth), [say.Work(self._name(), amount=NEVER_AMOUNT)])

    def cleanup(self, depth: int) -> say.Node_:
        return say.Cleanup(self._rng.choice((10, 40)), self.block(depth, most=2))

    def child(self, depth: int) -> say.Node_:
        return self._child(depth, fails=False)

    def launch(self, depth: int) -> say.Node_:
        return say.Launch(self._name(), self.block(depth, most=2), self._amount(), self._amount())

    def attempt(self, depth: int) -> say.Node_:
        return say.Try(self.failing(depth), self.block(depth, most=2))

    # ---- what raises

    def deliberate(self, depth: int) -> say.Node_:
        return say.Raise(self._name())

    def doomed(self, depth: int) -> say.Node_:
        attempts = self._rng.randint(1, 3)
        how = self._rng.choice(("async", "plain"))
        return say.Work(self._name(), how=how, fails=attempts, attempts=attempts, undo=self._chance(0.5))

    def broken(self, depth: int) -> say.Node_:
        return say.Ledger(self._name(), self._amount(), undo=self._chance(0.5), doomed=True)

    def late(self, depth: int) -> say.Node_:
        return say.Late(self._name(), self._rng.choice((10, 50)), undo=self._chance(0.5))

    def too_late(self, depth: int) -> say.Node_:
        return self._expiring(fail=True)

    def vain(self, depth: int) -> say.Node_:
        return say.Vain(self._rng.choice((10, 40)), self._rng.choice(("signal", "until")))

    def failing_saga(self, depth: int) -> say.Node_:
        return say.Saga(self.failing(depth))

    def failing_lock(self, depth: int) -> say.Node_:
        raiser = self._rng.choices(list(_SIMPLE_RAISERS), list(_SIMPLE_RAISERS.values()))[0]
        return self._locked([*self._brief(depth), raiser(self, depth), *self.never()])

    def failing_child(self, depth: int) -> say.Node_:
        return self._child(depth, fails=True)

    def _child(self, depth: int, *, fails: bool) -> say.Node_:
        early = self._early
        nodes = self.block(depth)
        rounds = self.rounds(depth)
        if fails:
            last = rounds[-1] if rounds else nodes
            last += self.failing(depth)
        self._early = early
        return say.Child(nodes, undo=self._chance(0.5), rounds=rounds)

    def failing_fan(self, depth: int) -> say.Node_:
        """One child raises while the others hold; half the time it waits until they have come to that."""
        name = self._name()
        count = self._rng.randint(1, 3)
        if self._chance(0.5):
            children = [[*self.block(depth, most=2), say.Arrive(name), say.Hold(), *self.never()] for _ in range(count)]
            raising: list[say.Node_] = [say.Gather(name, count), *self.failing(depth)]
        else:
            children = [[*self._unsure(), say.Hold(), *self.never()] for _ in range(count)]
            raising = self.failing(depth)
        children.insert(self._rng.randint(0, count), raising)
        return say.Fan(name, children, None, self._rng.choice(("keys", "names")))


_LEAVES: Final[dict[Callable[[_Maker, int], say.Node_], int]] = {
    _Maker.work: 12,
    _Maker.ledger: 5,
    _Maker.sleep: 4,
    _Maker.wait: 2,
    _Maker.receive: 3,
    _Maker.draw: 3,
    _Maker.stuck: 1,
    _Maker.emit: 3,
    _Maker.attribute: 2,
    _Maker.ask: 2,
}
_BRANCHES: Final[dict[Callable[[_Maker, int], say.Node_], int]] = {
    _Maker.fan: 4,
    _Maker.map: 3,
    _Maker.race: 2,
    _Maker.saga: 2,
    _Maker.lock: 3,
    _Maker.within: 2,
    _Maker.expire: 2,
    _Maker.scope: 1,
    _Maker.cleanup: 1,
    _Maker.child: 2,
    _Maker.launch: 2,
    _Maker.perform: 2,
    _Maker.attempt: 4,
}
_SIMPLE_RAISERS: Final[dict[Callable[[_Maker, int], say.Node_], int]] = {
    _Maker.deliberate: 2,
    _Maker.doomed: 3,
    _Maker.broken: 1,
    _Maker.late: 2,
    _Maker.too_late: 2,
    _Maker.vain: 2,
}
_RAISERS: Final[dict[Callable[[_Maker, int], say.Node_], int]] = {
    _Maker.failing_saga: 3,
    _Maker.failing_lock: 2,
    _Maker.failing_child: 2,
    _Maker.failing_fan: 4,
}
