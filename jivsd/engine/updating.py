"""Updates from outside: checked against the run's state, sent like a signal, answered from the journal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from jivsd.engine.ahead import settled
from jivsd.engine.api import Conflict, Gone, Invalid, NotFound, Receipt, Updated, UpdateFailed
from jivsd.engine.looking import replayed
from jivsd.engine.replay.updates import path_of
from jivsd.records import ENDED, Kind, Run, Status, Update, UpdateDone, encode, payload_of

if TYPE_CHECKING:
    from jivsd.authoring.updates import UpdateHandler
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.engine.messages import Messages
    from jivsd.engine.replay import Machine


class Updating:
    """Sends updates to the runs of a host."""

    def __init__(self, host: Host, looking: Looking, messages: Messages) -> None:
        self._host = host
        self._looking = looking
        self._messages = messages

    async def update(
        self, ref: str, name: str, payload: bytes, message_id: str | None, wait: float, by: str
    ) -> Updated:
        """See `Engine.update`."""
        run = await self._looking.show(ref)
        message_id = message_id or self._host.ids()
        receipt = await self._repeated(run, message_id)
        if receipt is None:
            if run.status is Status.CONTINUED:
                run = await self._host.store.continued(run.run_id) or run
            await self._check(run, name, payload)
            body = encode(Update(name, message_id, msgspec.Raw(payload)))
            receipt = await self._messages.send(
                run, Kind.UPDATE, body, by, message_id, by_run=":" not in ref, path=path_of(message_id)
            )
        deadline = trio.current_time() + wait
        while True:
            left = max(deadline - trio.current_time(), 0)
            look = partial(self._outcome, run, receipt)
            again = self._host.holding.glances
            done = await self._host.answers.until(receipt.run_id, message_id, left, look, again)
            if not isinstance(done, Receipt):
                break
            receipt = done
        if done is None:
            return Updated(receipt.run_id, message_id, duplicate=receipt.duplicate, answered=False)
        if done.error is not None:
            raise UpdateFailed(
                f"update {name!r} failed: {done.error.type}: {done.error.message}",
                run_id=receipt.run_id,
                message_id=message_id,
                error=done.error,
            )
        return Updated(receipt.run_id, message_id, duplicate=receipt.duplicate, answered=True, value=done.result)

    async def _repeated(self, run: Run, message_id: str) -> Receipt | None:
        """The receipt of a message that has been sent before; its answer is what it was, whatever holds now."""
        seen = await self._host.store.seen_message(run.workflow, run.workflow_id, message_id)
        if seen is None:
            return None
        run_id, kind = seen
        if kind is not Kind.UPDATE:
            raise Conflict(f"message id {message_id!r} was used for a {kind.lower()}", run_id=run_id)
        return Receipt(run_id, message_id, duplicate=True)

    async def _check(self, run: Run, name: str, payload: bytes) -> None:
        """Raises NotFound, Invalid, Conflict: the run has no such update, or would refuse this one."""
        workflow = await self._looking.code_of(run)
        handler = workflow.updates.get(name)
        if handler is None:
            known = ", ".join(sorted(workflow.updates)) or "none"
            raise NotFound(f"workflow {run.workflow!r} has no update {name!r}; it has: {known}", update=name)
        try:
            arguments = handler.signature.decode_input(payload, strict=True)
        except ValueError as error:
            raise Invalid(str(error), update=name) from None
        if run.status in ENDED:
            raise Conflict(f"run {run.run_id} has ended: {run.status}", code="ended", run_id=run.run_id)
        if handler.check is None:
            return
        actor = self._host.actors.get(run.run_id)
        if actor is not None and await settled(actor):  # what is not recorded may never be, on a node that stood still
            _ask(actor.machine, handler, arguments)
            return
        async with replayed(workflow, run, await self._host.store.events(run.run_id)) as machine:
            _ask(machine, handler, arguments)

    async def _outcome(self, asked: Run, receipt: Receipt) -> UpdateDone | Receipt | None:
        """The answer; or the receipt of the run that has the update now, as it goes on for the one that had it."""
        store, run_id = self._host.store, receipt.run_id
        run = await store.run(run_id)  # before the event: what is not there after the end never will be
        event = await store.find_event(run_id, Kind.UPDATE_DONE, path_of(receipt.message_id))
        if event is not None:
            return payload_of(event)
        if run is None:
            raise Gone(f"run {run_id}, which had this update, was pruned", run_id=run_id)
        if run.status is Status.CONTINUED:
            seen = await store.seen_message(asked.workflow, asked.workflow_id, receipt.message_id)
            if seen is not None and seen[0] != run_id:
                return msgspec.structs.replace(receipt, run_id=seen[0])
        if run.status in ENDED:
            raise Conflict(f"run {run_id} has ended before it answered", code="ended", run_id=run_id)
        return None


def _ask(machine: Machine, handler: UpdateHandler, arguments: tuple[Any, ...]) -> None:
    try:
        machine.check_update(handler, arguments)
    except (Exception, SystemExit) as error:  # the author's own
        what = f"update {handler.name!r} is refused: {type(error).__name__}: {error}"
        raise Invalid(what, update=handler.name) from None
