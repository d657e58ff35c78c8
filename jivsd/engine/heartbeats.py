"""Heartbeats of long steps: whether an attempt is at work, how far it is, and what the next one may go on from.

What is said is kept in memory, where people see it. Now and then, what is new of all steps is written together, into a
table beside the journal, for the time after the process has died; so it is when an attempt fails or is cut short. A
step that says nothing has nothing of all this, and times here are trio's: setting the host's clock disturbs nothing.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.authoring import commands
from jivsd.authoring.errors import Cancelled
from jivsd.authoring.steps import StepContext, checked
from jivsd.clock import SECOND, TrioClock
from jivsd.engine.timers import Timers
from jivsd.records import NULL, Kind, Progress
from jivsd.store.api import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jivsd.clock import Clock
    from jivsd.engine.actor import Actor
    from jivsd.engine.attempts import Attempt
    from jivsd.engine.timers import Timer

WRITE_EVERY: Final = 5.0
"""Seconds between two writes of what steps have said; a step that is over sooner writes nothing of it."""


Said = tuple[msgspec.Raw, float | None, float | None]


class LiveContext(StepContext):
    """The context of a step that runs.

    A failed step's error may keep it for a while, so it does not know the actor, which would stay in memory with it.
    """

    __slots__ = ("_attempt", "_pulses")
    _attempt: Attempt
    _pulses: Pulses

    @classmethod
    def of(cls, actor: Actor, attempt: Attempt, silent: Callable[[Actor, Attempt, str], None]) -> LiveContext:
        """The context of an attempt; `silent` is called, once, when it has not beaten for as long as it should."""
        entry = attempt.entry
        call = entry.command
        assert isinstance(call, commands.StepCall)
        context = cls(
            run_id=actor.run.run_id,
            workflow_id=actor.run.workflow_id,
            path=entry.path,
            attempt=attempt.number,
            idempotency_key=actor.machine.idempotency_key(entry.path),
            outcome_unknown=call.unknown,
            correlation_id=actor.run.options.correlation_id,
            fence=actor.services.committer.epochs[actor.run.shard],
        )
        context._attempt = attempt
        context._pulses = actor.services.pulses
        if call.step.heartbeat_timeout is not None:
            context._heart.watch(call.step.heartbeat_timeout, silent)
        return context

    def heartbeat(self, details: Any = None, *, done: float | None = None, total: float | None = None) -> None:
        """See `StepContext.heartbeat`."""
        self._heart.beat(checked(details, done, total), done, total)

    def last_details(self, type: Any = Any, /) -> Any:
        """See `StepContext.last_details`."""
        before = self._heart.before
        return None if before == NULL else msgspec.json.decode(before, type=type)

    @property
    def _heart(self) -> Heart:
        heart = self._attempt.heart
        if heart is None:
            heart = self._attempt.heart = Heart(self._pulses, self.run_id, self._attempt)
        return heart


class Heart:
    """The heartbeats of one attempt. What the step calls may be called in any thread."""

    __slots__ = (
        "_in_thread",
        "_limit",
        "_pulses",
        "_run_id",
        "_silent",
        "_watch",
        "attempt",
        "beaten_at",
        "before",
        "said",
        "written",
    )

    def __init__(self, pulses: Pulses, run_id: str, attempt: Attempt) -> None:
        call = attempt.entry.command
        assert isinstance(call, commands.StepCall)
        self.attempt = attempt
        self._pulses = pulses
        self._run_id = run_id
        self._in_thread = call.step.mode == "plain"
        earlier = pulses.noted_of(run_id).get(attempt.entry.path)
        self.before = NULL if earlier is None else earlier.details
        """The details that an earlier attempt has given last."""
        self.beaten_at = inf
        """When it was heard of last, in trio's seconds; inf before it has begun."""
        self.said: Said | None = None
        """Details, done, total; None until it has beaten."""
        self.written: Said | None = None
        """Those that have been written."""
        self._watch: Timer | None = None
        self._limit = 0.0
        self._silent: Callable[[Actor, Attempt, str], None] | None = None

    # ---- in the step's thread

    def beat(self, details: bytes | None, done: float | None, total: float | None) -> None:
        """See `StepContext.heartbeat`."""
        now = self._pulses.now()
        if self._in_thread and self.attempt.is_over(now):
            raise Cancelled
        self.beaten_at = now
        if (last := self.said) is None:
            last = self.before, None, None
            self._pulses.begin(self)
        self.said = (
            last[0] if details is None else msgspec.Raw(details),
            last[1] if done is None else done,
            last[2] if total is None else total,
        )

    def follow(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plain step's function; its silence counts from now on, not while it waits for a thread."""
        self.beaten_at = self._pulses.now()
        return function(*arguments)

    # ---- in the engine's thread

    def watch(self, limit: int, silent: Callable[[Actor, Attempt, str], None]) -> None:
        """Call `silent` when nothing is heard of the attempt for `limit` microseconds."""
        self._limit, self._silent = limit / SECOND, silent
        if not self._in_thread:
            self.beaten_at = self._pulses.now()
        self._look_at(self._pulses.now() + self._limit)

    def _look_at(self, moment: float) -> None:
        self._watch = self._pulses.timers.add(round(moment * SECOND), self._look)

    def _look(self) -> None:
        actor = self.actor
        if actor is not None:
            actor.guard(self._look_with, actor)

    def _look_with(self, actor: Actor) -> None:
        assert self._silent is not None
        left = self._limit - self.silence
        if left > 1 / SECOND:
            self._look_at(self._pulses.now() + min(left, self._limit))
        else:
            self._watch = None
            self._silent(actor, self.attempt, f"not heard of for {self._limit:g} s")

    @property
    def actor(self) -> Actor | None:
        """Whose attempt it is; None if it is not under way any more."""
        actor = self._pulses.actors.get(self._run_id)
        under_way = actor is not None and actor.attempts.get(self.attempt.entry.path) is self.attempt
        return actor if under_way else None

    @property
    def silence(self) -> float:
        """Seconds since it was heard of last, or has begun."""
        return self._pulses.now() - self.beaten_at

    def progress(self) -> Progress:
        """What it has said last."""
        said = self.said or (self.before, None, None)
        at = self._pulses.clock.now() - round(self.silence * SECOND)
        return Progress(self.attempt.entry.path, self.attempt.number, at, *said)

    def close(self) -> None:
        """The attempt is over."""
        if self._watch is not None:
            self._watch.cancel()
        self._pulses.end(self)


class Pulses:
    """The heartbeats of all steps of a host, whose actors these are. Made in trio's thread."""

    def __init__(self, clock: Clock, actors: Mapping[str, Actor]) -> None:
        self.clock = clock
        self.actors = actors
        self.timers = Timers(TrioClock(0), look_again=inf)
        self._token = trio.lowlevel.current_trio_token()
        self._trio = trio.lowlevel.current_clock()
        self._noted: dict[str, dict[str, Progress]] = {}
        self._hearts: dict[Heart, None] = {}
        self._writing: Timer | None = None

    def now(self) -> float:
        """Trio's time, in any thread."""
        return self._trio.current_time()

    async def run(self) -> None:
        """Watch and write until cancelled."""
        await self.timers.run()

    # ---- what is written, of the runs in memory

    def noted_of(self, run_id: str) -> dict[str, Progress]:
        """What is written of how far the steps of a run are, by path."""
        return self._noted.get(run_id, {})

    def arrived(self, run_id: str, progress: Sequence[Progress]) -> None:
        """A run has come to memory, of which this is written."""
        if progress:
            self._noted[run_id] = {one.path: one for one in progress}

    def left(self, run_id: str) -> None:
        """A run has left memory."""
        self._noted.pop(run_id, None)

    def note(self, actor: Actor, progress: Progress) -> list[Progress]:
        """What is to be written so that this, and nothing of settled steps, is written of an actor's run."""
        noted = self._noted.setdefault(actor.run.run_id, {})
        gone = [path for path in noted if path not in actor.machine.open]
        changes = [progress, *(Progress(path) for path in gone if path != progress.path)]
        for one in changes:
            if one.attempt:
                noted[one.path] = one
            else:
                noted.pop(one.path, None)
        return changes

    def over(self, actor: Actor) -> list[Progress]:
        """What is to be written so that nothing is written of a run that ends."""
        return [Progress(path) for path in self._noted.pop(actor.run.run_id, ())]

    # ---- attempts

    def begin(self, heart: Heart) -> None:
        """An attempt has beaten for the first time; called in its thread."""
        with suppress(trio.RunFinishedError):  # the process ends, and a thread of the step's own goes on
            self._token.run_sync_soon(self._begin, heart)

    def _begin(self, heart: Heart) -> None:
        if heart.actor is not None:
            self._hearts[heart] = None
            self._plan()

    def end(self, heart: Heart) -> None:
        """An attempt is over."""
        self._hearts.pop(heart, None)

    def tell_all(self) -> None:
        """Have every attempt that beats stop: threads are told so with their next heartbeat."""
        for heart in list(self._hearts):
            heart.attempt.cancel()

    def _plan(self) -> None:
        if self._hearts and self._writing is None:
            self._writing = self.timers.add(round((self.now() + WRITE_EVERY) * SECOND), self._write)

    def _write(self) -> None:
        self._writing = None
        for heart in list(self._hearts):
            if (actor := heart.actor) is not None:
                actor.guard(keep, actor, heart.attempt)
        self._plan()


def keep(actor: Actor, attempt: Attempt) -> None:
    """Have written what an attempt has said since that was done last, if anything."""
    heart = attempt.heart
    if heart is not None and (said := heart.said) != heart.written:
        heart.written = said
        changes = actor.services.pulses.note(actor, heart.progress())
        actor.submit(Entry(**actor.address(), progress=changes))


def append(actor: Actor, attempt: Attempt, kind: Kind, path: str, payload: msgspec.Struct) -> None:
    """Append what has become of an attempt that has, or could have, beaten: the next one is told what it said last."""
    heart, pulses = attempt.heart, actor.services.pulses
    assert heart is not None
    changes: list[Progress] = []
    if kind == Kind.ATTEMPT_FAILED:
        if heart.said != heart.written:
            changes = pulses.note(actor, heart.progress())
    elif path in pulses.noted_of(actor.run.run_id):
        changes = pulses.note(actor, Progress(path))
    actor.append(kind, path, payload, attempt=attempt.number, progress=changes)


def shown(actor: Actor) -> list[Progress]:
    """How far the steps of a run are that are under way, or are to be tried again; by path."""
    noted = actor.services.pulses.noted_of(actor.run.run_id)
    found = {path: progress for path, progress in noted.items() if path in actor.machine.open}
    for path, attempt in actor.attempts.items():
        if attempt.heart is not None and attempt.heart.said is not None:
            found[path] = attempt.heart.progress()
    return [found[path] for path in sorted(found)]
