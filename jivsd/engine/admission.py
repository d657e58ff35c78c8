"""Admission: whether a start is accepted, and what its caller is told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jivsd.engine import starts
from jivsd.engine.api import Conflict, EngineError, Gone, Invalid, Start, StartOptions, Unavailable
from jivsd.journal.verdicts import verdict_on
from jivsd.store.api import Existing, NewRun, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.host import Host
    from jivsd.records import Event, Run
    from jivsd.store.api import Verdict


class Admission:
    """Starts runs on a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def start(self, workflow: str, input: bytes, options: StartOptions, by: str) -> Start:
        """See `Engine.start`."""
        self.check()
        await self._host.holding.some()
        gate, found = self._host.gate, self._host.workflow(workflow)
        new, event = self._prepared(found, input, options, by)
        self._host.quarantine.check(workflow)
        arrive = partial(gate.arrive, workflow)
        if new.run.options.start_at is not None:
            arrive = nothing  # it waits for room when it is due
        elif new.run.shard not in self._host.holding.shards:
            self._host.holding.check_room(new)
            arrive = nothing
        elif not gate.enter(found):
            await gate.wait(found, options.priority)
            new, event = self._prepared(found, input, options, by)  # its time begins now
        verdict = await self.commit(new, [event], arrive)
        return Start(verdict.run, existing=True) if isinstance(verdict, Existing) else Start(new.run, existing=False)

    def _prepared(
        self, workflow: Workflow[..., Any], input: bytes, options: StartOptions, by: str
    ) -> tuple[NewRun, Event]:
        host = self._host
        run_id = host.holding.id_for(options)
        return starts.prepare(workflow, input, options, run_id=run_id, now=host.clock.now(), by=by)

    def check(self) -> None:
        """Raises Unavailable when nothing new is accepted."""
        if self._host.stopping:
            self._host.metrics.starts_rejected.inc()
            raise Unavailable("the daemon is shutting down")

    async def commit(self, new: NewRun, journal: list[Event], arrive: Callable[[], None]) -> Verdict:
        """Have a run and its first events written, and bring it to life.

        It lives as soon as it is committed, also when the caller is cancelled while it waits here. `arrive` is called
        then, or when it will never live.

        Raises:
            Conflict, Gone, Invalid, Unavailable: it was refused.
        """
        run = new.run

        def submit(told: Callable[[Verdict], None]) -> None:
            def done(verdict: Verdict) -> None:
                told(verdict)
                arrive()

            try:
                self._host.holding.submit(new, journal, done)
            except Unavailable:
                arrive()
                raise

        verdict = await verdict_on(submit)
        if isinstance(verdict, Refused):
            raise refusal(verdict, run)
        return verdict


def nothing() -> None:
    """What happens when a run arrives that the gate has not let in."""


def refusal(refused: Refused, run: Run) -> EngineError:
    """What a door is told when the store refuses a start or a message."""
    facts = {"run_id": refused.run_id} if refused.run_id else {}
    other = f" (run {refused.run_id})" if refused.run_id else ""
    match refused.why:
        case "open" | "exists":
            return Conflict(f"workflow id {run.workflow_id!r} has an open run{other}", code="open", **facts)
        case "key_reused":
            return Conflict(f"the idempotency key was used with another input{other}", code="key_reused", **facts)
        case "locked":
            return Conflict(f"lock {run.options.lock_key!r} is held{other}", code="locked", **facts)
        case "ended" | "not_found":
            return Conflict(f"run {run.run_id} has ended", code="ended", run_id=run.run_id)
        case "gone":
            return Gone(f"the run of this idempotency key was pruned{other}", **facts)
        case "invalid":
            return Invalid(f"it cannot be stored: {refused.detail}")
        case _:
            return Unavailable(f"the journal cannot take it now: {refused.detail or refused.why}")
