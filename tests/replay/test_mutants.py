"""Machines that break one rule each: the check that the properties share must find every one of them out."""

from __future__ import annotations

import gc
from random import Random
from typing import Any

import msgspec
import pytest

from jivsd.authoring.signature import Codec, Signature
from jivsd.engine.replay import Machine, delivery, parts, saga
from jivsd.engine.replay.driving import Driving
from jivsd.engine.replay.nursery import Nursery
from jivsd.records import Kind
from replay import simulator, world
from replay.checks import check
from replay.programs import Maker

ENOUGH = 150
"""Within how many programs a mutant must be found out."""


def spawns_shuffled(patch: pytest.MonkeyPatch) -> None:
    """Children start in any order, as trio would have it."""
    rng, start = Random(1), Nursery.start

    def shuffled(self: Nursery, *args: Any, **kwargs: Any) -> Any:
        job = start(self, *args, **kwargs)
        rng.shuffle(self._machine._ready)
        return job

    def popping(self: Machine) -> None:
        while True:
            while self._ready:
                self._resume(*self._ready.pop(0))
            if not self._wake_a_predicate():
                return

    patch.setattr(Machine, "_run_dry", popping)
    patch.setattr(Nursery, "start", shuffled)


def cancellations_shuffled(patch: pytest.MonkeyPatch) -> None:
    """A cancelled scope wakes its branches in any order, as iterating a set would have it."""
    rng, reached = Random(1), parts.Scope.reached
    patch.setattr(parts.Scope, "reached", lambda self: rng.sample(found := reached(self), len(found)))


def events_batched(patch: pytest.MonkeyPatch) -> None:
    """In life, events that were committed together are one turn."""
    run_dry, turn = Machine._run_dry, simulator.Life.turn

    def batched(self: simulator.Life, event: Any) -> None:
        if self.queue:
            patch.setattr(Machine, "_run_dry", lambda _: None)
        try:
            turn(self, event)
        finally:
            patch.setattr(Machine, "_run_dry", run_dry)

    patch.setattr(simulator.Life, "turn", batched)


def compensations_in_life_only(patch: pytest.MonkeyPatch) -> None:
    """What was reached in an earlier life is not known to the saga of this one."""
    register, replay = Driving._register, simulator.Life.replay

    def replaying(self: simulator.Life) -> None:
        patch.setattr(Driving, "_register", lambda *_: None)
        try:
            replay(self)
        finally:
            patch.setattr(Driving, "_register", register)

    patch.setattr(simulator.Life, "replay", replaying)


def raw_results(patch: pytest.MonkeyPatch) -> None:
    """In life the caller gets the very object that the step returned."""
    returned: dict[bytes, Any] = {}
    apply, finish, decode = world.World.apply, simulator.Life.finish, Codec.decode

    def remembering(self: world.World, path: str, call: Any) -> Any:
        result = apply(self, path, call)
        returned[msgspec.json.encode(result)] = result
        return result

    def finishing(self: simulator.Life, path: str) -> None:
        finish(self, path)
        self.deliver_all()
        returned.clear()

    patch.setattr(world.World, "apply", remembering)
    patch.setattr(simulator.Life, "finish", finishing)
    patch.setattr(Codec, "decode", lambda self, data: returned.get(bytes(data)) or decode.__get__(self)(data))


def raw_arguments(patch: pytest.MonkeyPatch) -> None:
    """In life a step gets the very objects that the workflow holds."""
    passed: dict[bytes, Any] = {}
    encode, decode = Signature.encode, Signature.decode

    def encoding(self: Any, args: Any, kwargs: Any) -> bytes:
        data = encode(self, args, kwargs)
        passed[data] = args
        return data

    patch.setattr(Signature, "encode", encoding)
    patch.setattr(Signature, "decode", lambda self, data: passed.get(data) or decode(self, data))


def taint_left_out(patch: pytest.MonkeyPatch) -> None:
    """A step that failed for good is not compensated, though an attempt of it died with the process."""
    patch.setitem(delivery.HANDLERS, Kind.RECOVERED, lambda *_: None)


def unknown_forgotten(patch: pytest.MonkeyPatch) -> None:
    """An attempt that timed out is taken for one that did nothing."""
    attempt_failed = delivery.HANDLERS[Kind.ATTEMPT_FAILED]

    def forgetful(machine: Machine, event: Any) -> None:
        attempt_failed(machine, event)
        if (entry := machine.open.get(event.path)) is not None:
            entry.tainted = False

    patch.setitem(delivery.HANDLERS, Kind.ATTEMPT_FAILED, forgetful)


def compensation_beside_its_step(patch: pytest.MonkeyPatch) -> None:
    """Compensation does not wait for what still runs."""
    patch.setattr(saga.Saga, "open", lambda _: False)


def compensation_in_order_of_reach(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        saga.Saga, "last_first", lambda self: sorted(self.entries.values(), key=lambda one: one.reach, reverse=True)
    )


MUTANTS = [
    spawns_shuffled,
    cancellations_shuffled,
    events_batched,
    compensations_in_life_only,
    raw_results,
    raw_arguments,
    taint_left_out,
    unknown_forgotten,
    compensation_beside_its_step,
    compensation_in_order_of_reach,
]


@pytest.fixture
def _aborted_lives():
    """A life that is broken off leaves branches behind that never began."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.usefixtures("_aborted_lives")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_found_out(mutant, monkeypatch):
    mutant(monkeypatch)
    for seed in range(ENOUGH):
        rng = Random(seed)
        try:
            check(Maker(rng, size=rng.randint(5, 30)).program(), seed)
        except AssertionError:
            return
    pytest.fail(f"{mutant.__doc__} Nobody noticed.")
