"""Trials: after a process ended by a fault of some run's, which is not known, the suspects come back one at a time.

A run that takes the process down when it is the only one on trial is the culprit, and is held; all others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import logs
from jivsd.engine import incidents
from jivsd.engine.lastwords import Trial
from jivsd.records import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.host import Host
    from jivsd.engine.lastwords import LastWords
    from jivsd.records import Incident, Run
    from jivsd.store.api import Store

log = logs.get(__name__)

PATIENCE: Final = 10.0
"""Seconds that a trial lasts when the run neither gets on nor comes to a rest; ten times that in every later turn."""
LOOK: Final = 0.05
"""Seconds between two looks at the run on trial."""
HOUR: Final = 3600 * 1_000_000


class Suspicion(msgspec.Struct, frozen=True):
    """Who may have ended the process: these runs, or (None) all that were there on some code."""

    runs: frozenset[str] | None
    code_hash: str
    turn: int

    def falls_on(self, run: Run) -> bool:
        """Whether a run is a suspect."""
        return run.run_id in self.runs if self.runs is not None else run.code_hash.startswith(self.code_hash)


class Trials:
    """Brings suspects back one at a time; the data folder says who is on trial."""

    def __init__(self, host: Host, suspicion: Suspicion, note: Callable[[Trial | None], None]) -> None:
        self._host = host
        self._suspicion = suspicion
        self._note = note
        self._free = trio.Semaphore(1)
        self._on_trial: list[str] = []
        self._known = host.clock.now()

    def concern(self, run: Run) -> bool:
        """Whether a run has to wait for its turn: those that have begun since are none of the suspects."""
        return run.created_at < self._known and self._suspicion.falls_on(run)

    async def turn(self, run: Run) -> None:
        """Wait for a run's turn. When this returns it is on trial: bring it back."""
        await self._free.acquire()
        self._on_trial.append(run.run_id)
        self._note(Trial(self._on_trial, self._suspicion.turn))
        log.warning(
            "run on trial: its code may have ended the process before", run_id=run.run_id, workflow=run.workflow
        )
        self._host.nursery.start_soon(self._watch, run.run_id)

    async def _watch(self, run_id: str) -> None:
        """End a trial when the run has got on, rests or has left; when it takes too long, let the next begin."""
        with trio.move_on_after(PATIENCE * 10**self._suspicion.turn):
            while not self._acquitted(run_id):  # noqa: ASYNC110 -- nothing tells when a run has come to a rest
                await trio.sleep(LOOK)
            self._on_trial.remove(run_id)
            self._note(Trial(self._on_trial, self._suspicion.turn) if self._on_trial else None)
        self._free.release()

    def _acquitted(self, run_id: str) -> bool:
        actor = self._host.actors.get(run_id)
        if actor is None:
            return run_id in self._host.suspended or run_id not in self._host.living
        return actor.moved or (actor.live and not actor.attempts and not actor.pending)


async def judge(store: Store, words: LastWords, *, now: int, most: int, period: int) -> Suspicion | None:
    """Read a process's last words: hold who is guilty, and say who is a suspect.

    A workflow of which `most` runs were held for that within `period` microseconds is quarantined.
    """
    said, stack, trial = words.words(), words.stack(), words.trial()
    suspicion: Suspicion | None = None
    if said is not None:
        await _convict(store, said.blame.run_id, said.what, said.blame.where, now, most, period)
    elif stack is not None and trial is not None and len(trial.runs) == 1:
        await _convict(store, trial.runs[0], stack.what, stack.where, now, most, period)
    elif stack is not None and trial is not None:
        suspicion = Suspicion(frozenset(trial.runs), "", trial.turn + 1)
    elif stack is not None and stack.code_hash:
        suspicion = Suspicion(None, stack.code_hash, 0)
    if stack is not None:
        log.error("the process before ended by itself", how=stack.what, where=stack.where or "unknown")
    words.forget()
    return suspicion


async def _convict(store: Store, run_id: str, what: str, where: str, now: int, most: int, period: int) -> None:
    run = await store.run(run_id)
    if run is None or run.status in ENDED:
        return
    incident = incidents.took_down(run, what, where, now)
    log.critical("a run has ended the process before; it is held", run_id=run_id, workflow=run.workflow, why=what)
    await store.put_incident(incident)
    guilty = await _guilty(store, run.workflow, now - period)
    if guilty >= most:
        why = f"{guilty} of its runs ended the process within {period / HOUR:g} h; last: it {what} at {where}"
        await store.put_incident(incidents.quarantine(run.workflow, why, now))


async def _guilty(store: Store, workflow: str, since: int) -> int:
    """How many runs of a workflow were held lately because they ended the process, since it was quarantined last."""
    count, cursor = 0, None
    while True:
        page: list[Incident]
        page, cursor = await store.incidents(None, None, 500, cursor)
        for one in page:
            if one.workflow == workflow and one.at > since:
                if one.kind == "quarantine":
                    return count
                count += one.kind == "takedown"
        if cursor is None or page[-1].at <= since:
            return count
