"""Stuck: steps that run far longer than they should, and runs that do not move although they should.

A sweep looks at what is in memory now and then: a step costs nothing for it. What it finds is an incident that holds
nothing, and closes when it has gone by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.authoring import commands
from jivsd.clock import SECOND
from jivsd.engine import incidents, troubles
from jivsd.engine.effects import THREAD_GRACE

if TYPE_CHECKING:
    from jivsd.engine.actor import Actor
    from jivsd.engine.attempts import Attempt
    from jivsd.engine.host import Host

SAMPLES: Final = 20
"""How often a step must have run here before it has a usual time."""


class Patience(msgspec.Struct, frozen=True):
    """What is too long; times in microseconds."""

    every: int = 10 * SECOND
    """Between two sweeps."""
    factor: int = 10
    """A step without a timeout is stuck when it takes so many times its usual time,"""
    least: int = 60 * SECOND
    """but at least this long."""
    still: int = 60 * SECOND
    """A run should move within this time, when it could."""


class Stuck:
    """Sweeps over the runs of a host."""

    def __init__(self, host: Host, patience: Patience) -> None:
        self._host = host
        self._patience = patience
        self._begun: dict[Attempt, int] = {}
        self._standing: dict[Actor, tuple[int, int]] = {}

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await trio.sleep(self._patience.every / SECOND)
            self.run_once()

    def run_once(self) -> None:
        """Look at every run in memory once."""
        now = self._host.clock.now()
        begun: dict[Attempt, int] = {}
        standing: dict[Actor, tuple[int, int]] = {}
        for actor in list(self._host.actors.values()):
            if not actor.live or actor.leaving:
                continue
            for path, attempt in list(actor.attempts.items()):
                if attempt.turn is None:
                    since = begun[attempt] = self._begun.get(attempt, now)
                    actor.guard(self._look_at_attempt, actor, path, attempt, now - since)
            if (why := self._should_move(actor, now)) is not None:
                seq, since = self._standing.get(actor, (actor.seq, now))
                standing[actor] = (seq, since) if seq == actor.seq else (actor.seq, now)
                if now - standing[actor][1] >= self._patience.still:
                    actor.guard(_warn_of_stillness, actor, why, now)
            elif actor.incidents and (gone := actor.incidents.get("still ")) is not None:
                actor.guard(troubles.close, actor, gone, "gone")
        self._begun, self._standing = begun, standing

    def _look_at_attempt(self, actor: Actor, path: str, attempt: Attempt, took: int) -> None:
        call = attempt.entry.command
        assert isinstance(call, commands.StepCall)
        known = actor.incidents.get(f"stuck {path}")
        if self._beats(attempt, call.step.heartbeat_timeout):
            if known is not None:
                troubles.close(actor, known, "gone")
            return
        if known is not None:
            return
        timeout, limit = call.step.timeout, call.step.heartbeat_timeout
        if limit is not None and attempt.heart is not None:
            silent = attempt.heart.silence * SECOND
            if call.step.mode == "async" and silent > limit + THREAD_GRACE:
                _warn(actor, path, took, "does not beat, and does not let itself be stopped")
            return
        if timeout is not None:
            if call.step.mode == "async" and took > timeout + THREAD_GRACE:
                _warn(actor, path, took, f"has a timeout of {timeout / SECOND:g} s and does not let itself be stopped")
            return
        usual = self._usual(actor.run.workflow, call.step.name)
        if usual is not None and took > max(self._patience.factor * usual, self._patience.least):
            _warn(actor, path, took, f"usually takes {usual / SECOND:.3g} s")

    def _beats(self, attempt: Attempt, limit: int | None) -> bool:
        """Whether an attempt has been heard of not long ago, and nobody waits for it to stop."""
        heart = attempt.heart
        if heart is None or heart.said is None or attempt.stopping:
            return False
        return heart.silence * SECOND < (limit or self._patience.least)

    def _usual(self, workflow: str, step: str) -> float | None:
        """How long a step takes on the average, in microseconds, if it has run often enough."""
        found = self._host.metrics.step_duration.series.get((workflow, step))
        count = sum(found.counts) if found is not None else 0
        return None if found is None or count < SAMPLES else found.total / count * SECOND

    def _should_move(self, actor: Actor, now: int) -> str | None:
        """Why a run should move, if it should."""
        if self._host.committer.away is not None or actor.machine.blocked is not None:
            return None
        if actor.pending:
            return "the journal does not answer what was appended for it"
        if actor.run.paused:
            return None
        late = now - self._patience.still
        for entry in actor.machine.open.values():
            if isinstance(entry.command, commands.Sleep) and entry.command.deadline < late and entry.branch is not None:
                return f"the timer {entry.path} is overdue"
        return None


def _warn(actor: Actor, path: str, took: int, why: str) -> None:
    said = f"runs for {took / SECOND:.0f} s; it {why}"
    troubles.open_(actor, incidents.stuck(actor.run, path, said, actor.services.clock.now()))


def _warn_of_stillness(actor: Actor, why: str, now: int) -> None:
    if "still " not in actor.incidents:
        troubles.open_(actor, incidents.still(actor.run, why, now))
