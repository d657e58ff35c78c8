"""Messages to runs: signals, and what people tell a run to do. Each goes through the inbox, durable once it is sent."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from jivsd import sizes
from jivsd.engine.admission import refusal
from jivsd.engine.api import Conflict, Invalid, NotFound, Receipt, Unavailable
from jivsd.engine.ends import end_entry, to_child
from jivsd.engine.incidents import resolved
from jivsd.records import (
    ENDED,
    CancelRequested,
    Ended,
    ErrorRecord,
    Event,
    Incident,
    Kind,
    Message,
    PauseChanged,
    Run,
    Signal,
    Status,
    encode,
)
from jivsd.store.api import DamagedRow, Delivered, Duplicate, Post, Refused, RunFilter, Written

if TYPE_CHECKING:
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.store.api import Verdict

CHANGE_WAIT = 5.0
"""Seconds that pause, resume and terminate wait to see their effect before they answer."""


class Messages:
    """Sends messages to the runs of a host."""

    def __init__(self, host: Host, looking: Looking) -> None:
        self._host = host
        self._looking = looking
        self._switching: set[str] = set()

    async def signal(self, ref: str, name: str, payload: bytes, message_id: str | None, by: str) -> Receipt:
        """See `Engine.signal`."""
        return await self.signal_to(await self._looking.show(ref), ref, name, payload, message_id, by)

    async def signal_to(
        self, run: Run, ref: str, name: str, payload: bytes, message_id: str | None, by: str
    ) -> Receipt:
        """The same for a run that has just been looked up."""
        self._check_signal(run, name, payload)
        note = await self._note_on(run, name, message_id)
        message_id = message_id or self._host.ids()
        body = encode(Signal(name, message_id, msgspec.Raw(payload)))
        receipt = await self.send(run, Kind.SIGNAL, body, by, message_id, by_run=":" not in ref)
        return msgspec.structs.replace(receipt, note=note) if note else receipt

    async def _note_on(self, run: Run, name: str, message_id: str | None) -> str:
        """What is to be said of a signal that nothing may take. Raises NotFound if certainly nothing ever does."""
        if run.status is Status.CONTINUED:
            run = await self._host.store.continued(run.run_id) or run
        workflow = self._host.code.resolve(run.workflow, run.code_hash)
        if workflow is None or run.status in ENDED or name in workflow.signals or name in workflow.messages:
            return ""
        awaited = self._host.code.awaited(run.code_hash)
        if awaited is not None and name in awaited:
            return ""
        known = ", ".join(sorted({*workflow.signals, *workflow.messages, *(awaited or ())})) or "none"
        if awaited is None:
            said = f"workflow {run.workflow!r} declares no signal {name!r} (it has: {known})"
            return f"{said}: it is kept until the code waits for it"
        if message_id is not None and await self._host.store.seen_message(run.workflow, run.workflow_id, message_id):
            return ""
        raise NotFound(
            f"workflow {run.workflow!r} has no signal {name!r}; it has: {known} (what code outside of its plugin waits "
            f"for is declared: @workflow(..., signals={{{name!r}: type}}))",
            signal=name,
            run_id=run.run_id,
        )

    def _check_signal(self, run: Run, name: str, payload: bytes) -> None:
        workflow = self._host.code.resolve(run.workflow, run.code_hash)
        handler = workflow.signals.get(name) if workflow is not None else None
        codec = workflow.messages.get(name) if workflow is not None else None
        try:
            if handler is not None:
                handler.signature.decode_input(payload, strict=True)
            elif codec is not None:
                codec.decode(payload)
            else:
                msgspec.json.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            said = str(error) if handler is not None else f"signal {name!r}: {error}"  # a handler's has its name
            raise Invalid(said, signal=name) from None

    async def send(
        self, run: Run, kind: Kind, payload: bytes, by: str, message_id: str, *, by_run: bool = True, path: str = ""
    ) -> Receipt:
        """Put a message into a run's inbox; when this returns, it is durable.

        Raises:
            Conflict, Invalid, Unavailable: it was refused.
        """
        if len(payload) > sizes.LARGEST:
            raise Invalid(sizes.too_large(f"the {kind.lower()}", len(payload)), run_id=run.run_id)
        message = Message(
            workflow=run.workflow,
            workflow_id=run.workflow_id,
            message_id=message_id,
            kind=kind,
            path=path,
            payload=payload,
            at=self._host.clock.now(),
            by=by,
            run_id=run.run_id if by_run else None,
        )

        def done(verdict: Verdict) -> None:
            if isinstance(verdict, Delivered):
                self._host.deliver(msgspec.structs.replace(message, run_id=verdict.run_id))

        match await self._host.committer.submit_and_wait(Post(message), done):
            case Delivered(run_id):
                return Receipt(run_id, message_id, duplicate=False)
            case Duplicate(run_id):
                self._host.metrics.inbox_duplicates.inc()
                return Receipt(run_id, message_id, duplicate=True)
            case Refused() as refused:
                raise refusal(refused, run)
            case other:
                raise AssertionError(f"a message cannot be answered with {other!r}")

    async def cancel(self, ref: str, by: str, reason: str, message_id: str | None = None) -> Run:
        """See `Engine.cancel`."""
        if message_id is not None:
            run = await self._looking.show(ref)
            if await self._host.store.seen_message(run.workflow, run.workflow_id, message_id):
                return run
        run = await self._open(ref)
        return await self._control(run, Kind.CANCEL_REQUESTED, encode(CancelRequested(reason)), by, message_id)

    async def terminate(self, ref: str, by: str, reason: str) -> Run:
        """See `Engine.terminate`."""
        run = await self._open(ref)
        if self._host.forwarding.is_elsewhere(run):
            await self._host.forwarding.ask(run, "terminate", ref=run.run_id, by=by, reason=reason)
            return await self._looking.show(run.run_id)
        return await self._terminate(run, by, reason)

    async def terminate_here(self, ref: str, by: str, reason: str) -> Run:
        """The same for a run that lives on this node."""
        return await self._terminate(await self._open(ref), by, reason)

    async def _terminate(self, run: Run, by: str, reason: str) -> Run:
        ended = Ended(Status.TERMINATED, error=ErrorRecord("Terminated", reason) if reason else None)
        run = await self._control(run, Kind.ENDED, encode(ended), by)
        if (suspension := self._host.suspended.get(run.run_id)) is not None:
            await self._end_suspended(run, suspension.incident, ended, by, reason)
        return await self._looking.result(run.run_id, CHANGE_WAIT)

    async def _control(self, run: Run, kind: Kind, payload: bytes, by: str, message_id: str | None = None) -> Run:
        await self.send(run, kind, payload, by, message_id or self._host.ids())
        return await self._looking.show(run.run_id)

    async def _open(self, ref: str) -> Run:
        run = await self._looking.show(ref)
        if run.status is Status.CONTINUED:
            run = await self._host.store.continued(run.run_id) or run
        if run.status in ENDED:
            raise Conflict(
                f"run {run.run_id} has ended: {run.status}", code="ended", run_id=run.run_id, status=run.status
            )
        return run

    async def _end_suspended(self, run: Run, incident: Incident, ended: Ended, by: str, reason: str) -> None:
        """End a run that has no actor; its life notices when it wakes."""
        host = self._host
        last = await self._last_event(run.run_id)
        now = host.clock.now()
        event = Event(run.run_id, last.seq + 1, Kind.ENDED, "", encode(ended), max(now, last.at), 0, by)
        own = incident.run_id is not None
        closed = (resolved(incident, "terminated", by=by, why=reason, at=now),) if own else ()
        children = await host.store.runs(RunFilter(parent=run.run_id, open_only=True), 10_000)
        told = [
            to_child(run, child.workflow, child.workflow_id, child.run_id, Kind.ENDED, event.payload, now)
            for child in children.items
        ]
        entry = end_entry(run, event, ended, children=told, incidents=closed)

        def done(verdict: Verdict) -> None:
            if isinstance(verdict, Written):
                for message in entry.inbox:
                    host.deliver(message)
            if (suspension := host.suspended.get(run.run_id)) is not None:
                suspension.over.set()

        await host.committer.submit_and_wait(entry, done)

    async def _last_event(self, run_id: str) -> Event:
        """The last event of a journal, of which others may be damaged."""
        last = Event(run_id, 0, Kind.STARTED, "", b"", 0)
        while True:
            try:
                events = await self._host.store.events(run_id, last.seq)
            except DamagedRow as damage:
                last = Event(run_id, damage.seq, Kind.STARTED, "", b"", last.at)
            else:
                return events[-1] if events else last

    async def switch(self, ref: str, by: str, reason: str, *, paused: bool) -> Run:
        """See `Engine.pause` and `Engine.resume`."""
        run = await self._open(ref)
        if self._host.forwarding.is_elsewhere(run):
            await self._host.forwarding.ask(run, "switch", ref=run.run_id, by=by, reason=reason, paused=paused)
            return await self._looking.show(run.run_id)
        return await self._switch(run, by, reason, paused=paused)

    async def switch_here(self, ref: str, by: str, reason: str, *, paused: bool) -> Run:
        """The same for a run that lives on this node."""
        return await self._switch(await self._open(ref), by, reason, paused=paused)

    async def _switch(self, run: Run, by: str, reason: str, *, paused: bool) -> Run:
        if (suspension := self._host.suspended.get(run.run_id)) is not None:
            held = suspension.incident
            raise Conflict(
                f"run {run.run_id} is held by incident {held.incident_id}; retry that or terminate the run",
                run_id=run.run_id,
                status=run.status,
                incident=held.incident_id,
            )
        if run.paused is paused or run.run_id in self._switching:
            state = "being paused or resumed" if run.run_id in self._switching else "paused" if paused else "not paused"
            raise Conflict(f"run {run.run_id} is {state}", run_id=run.run_id, status=run.status)
        self._switching.add(run.run_id)
        try:
            kind = Kind.PAUSED if paused else Kind.RESUMED
            with self._host.passivation.keeping(run.run_id):
                await self.send(run, kind, encode(PauseChanged(reason)), by, self._host.ids())
                with trio.move_on_after(CHANGE_WAIT), suppress(Unavailable):  # it is recorded, and will have its effect
                    await self._until_switched(run.run_id, paused=paused)
        finally:
            self._switching.discard(run.run_id)
        metrics = self._host.metrics
        (metrics.runs_paused if paused else metrics.runs_resumed).labels(run.workflow).inc()
        return await self._looking.show(run.run_id)

    async def _until_switched(self, run_id: str, *, paused: bool) -> None:
        while (actor := await self._host.present(run_id)) is not None:
            if actor.run.paused is paused or actor.run.status in ENDED:
                return
            await actor.changed()
