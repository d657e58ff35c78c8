"""What must hold of every life (DESIGN.md section 4): the one check that properties and mutation tests share."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

from jivsd.records import NULL, Kind, Status, encode, payload_of
from replay.simulator import Life
from replay.world import Incarnation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.records import Event


def check(program: list[Any], seed: int) -> None:
    """Live a program in every way: undisturbed, leaving memory, crashing after every append and once or twice more."""
    for life in lives(program, seed):
        verify(life.run())


def check_instants(program: list[Any], seed: int) -> None:
    """A timer, an outcome and a cancel request at one instant, in every order, at every point of the run's life."""
    undisturbed = Life(program, seed).run()
    for action in range(1, undisturbed.actions + 1):
        for order in permutations(range(3)):
            verify(Life(program, seed, instant=(action, order), lazy=True).run())
            verify(Life(program, seed, instant=(action, order), crashes=(action + 1, action + 3)).run())


def check_forks(program: list[Any], seed: int) -> None:
    """A reset at every event of a life lives on as any other run does."""
    source = Life(program, seed).run()
    for cut in range(1, len(source.journal)):
        fork = Life.fork(source, cut, seed).run_on()
        verify_replay(fork)


def lives(program: list[Any], seed: int) -> Iterator[Life]:
    undisturbed = Life(program, seed)
    yield undisturbed
    yield Life(program, seed, evict=True)
    yield Life(program, seed, lazy=True)
    for seq in range(1, len(undisturbed.journal)):
        yield Life(program, seed, crashes=(seq, seq + 1, seq + 4), lazy=seq % 2 == 0, evict=seq % 3 == 0)


def verify(life: Life) -> None:
    full = verify_replay(life)
    undone_or_done(life, full)


def verify_replay(life: Life) -> Incarnation:
    full = replayed(life)
    for incarnation in life.incarnations:
        same_prefix(incarnation.trace, full.trace)
        same_prefix(incarnation.turns, full.turns)
    recorded_once(life.journal)
    signals_are_kept(life, full)
    updates_are_answered(life.journal)
    nothing_is_left(full)
    return full


def replayed(life: Life) -> Incarnation:
    """The whole journal, replayed once more from nothing."""
    full = Incarnation(life.workflow, life.journal)
    for event in life.journal:
        full.deliver(event)
    assert full.machine.blocked is None, full.machine.blocked
    return full


def same_prefix(part: list[Any], whole: list[Any]) -> None:
    for number, (left, right) in enumerate(zip(part, whole, strict=False)):
        assert left == right, f"differs at {number}: {left} and {right}"
    assert len(part) <= len(whole)


def recorded_once(journal: list[Event]) -> None:
    settled: set[str] = set()
    kinds = {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED, Kind.TIMER_FIRED, Kind.MARKER}
    for event in journal:
        if event.kind in kinds:
            assert event.path not in settled, f"{event.path} settled twice"
            settled.add(event.path)


def nothing_is_left(full: Incarnation) -> None:
    """The code's end leaves no branch behind, and nothing that is waited for."""
    machine = full.machine
    left = [machine._branches, machine.predicates, machine.listeners, machine.root.members, machine.root.children]
    assert not any(left)
    assert [path for path in machine.open if not path.startswith("version:")] == []
    assert not machine.saga_root.entries or machine.outcome.status is Status.COMPLETED


def updates_are_answered(journal: list[Event]) -> None:
    """Each update gets one answer, and before the end."""
    updates = [payload_of(event).message_id for event in journal if event.kind == Kind.UPDATE]
    answers = [payload_of(event).message_id for event in journal if event.kind == Kind.UPDATE_DONE]
    assert sorted(updates) == sorted(answers)
    assert journal[-1].kind == Kind.ENDED


def signals_are_kept(life: Life, full: Incarnation) -> None:
    """Each signal was read once, or put aside, or is unread at the end."""
    machine = full.machine
    read = list(machine.instance.received)
    unread = [message_id for name in ("go", "come") for message_id, _, _ in machine.unread.get(name, ())]
    aside = [message_id for message_id, _ in machine.misfits]
    assert sorted(read + unread + aside) == sorted(life.sent)


def undone_or_done(life: Life, full: Incarnation) -> None:
    """Every compensable step that was executed is completed, definitely failed or undone, and with what it returned."""
    machine = full.machine
    assert machine.outcome is not None
    expected = set(machine.instance.undone)
    if machine.outcome.status is not Status.COMPLETED:
        expected.update(machine.instance.frame.tags)
    results = {event.path: payload_of(event).result for event in life.journal if event.kind == Kind.STEP_DONE}
    issued = {path for _, path, _, _ in full.trace}
    for path, call in life.world.applied.items():
        if call.step.compensation is None:
            continue
        tag = call.step.signature.decode(call.args)[0]
        undo = f"{path}!undo"
        if tag in expected:
            assert path in life.world.undone, f"{path} was executed and not undone"
        else:
            assert undo not in issued, f"{path} was undone, but nothing failed"
    for path, call in life.world.undone.items():
        arguments = call.step.signature.decode(call.args)
        if path in life.world.attempts:
            assert encode(arguments[0]) == bytes(results.get(path, NULL)), f"{path} was undone with another result"
            assert call.unknown == (path not in results)
    in_order(life, full)


def in_order(life: Life, full: Incarnation) -> None:
    """Within the run's own saga, what settled last is undone first."""
    settled: dict[str, int] = {}
    for event in life.journal:
        if event.kind in {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED}:
            settled[event.path] = event.seq
    own = set(full.machine.instance.frame.tags) - set(full.machine.instance.undone)
    order: list[int] = []
    for _, path, kind, _ in full.trace:
        if kind == "step" and path.endswith("!undo") and path.removesuffix("!undo") in life.world.applied:
            step = life.world.applied[path.removesuffix("!undo")]
            if step.step.signature.decode(step.args)[0] in own:
                order.append(settled[path.removesuffix("!undo")])
    assert order == sorted(order, reverse=True), "undone in another order"
