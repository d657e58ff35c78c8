"""Updates: each gets one answer, derived from the journal like everything else, then recorded and given.

A plain handler answers in the turn of its update. An async one is a branch of the run, beside the run's own code,
which does not end before it: as if all of them were in one nursery whose children's errors go to their callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.authoring import commands
from jivsd.authoring.context import Context
from jivsd.authoring.errors import Cancelled, Failure, record_error
from jivsd.authoring.paths import escape_key
from jivsd.engine.replay.nursery import only_cancelled
from jivsd.engine.replay.parts import Branch, Open, Phase, Scope
from jivsd.records import UpdateDone

if TYPE_CHECKING:
    from jivsd.authoring.updates import UpdateHandler
    from jivsd.engine.replay.machine import Machine
    from jivsd.records import Update

OVER: Final = "the run has come to its end"


def path_of(message_id: str) -> str:
    """Where an update stands: what its handler does is below."""
    return f"!update[{escape_key(message_id)}]"


class Updates:
    """The updates of a run."""

    __slots__ = ("_closed", "_early", "_machine", "_scope", "_under_way")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._scope: Scope | None = None
        self._under_way: dict[Branch, Open] = {}
        self._early: list[tuple[Open, Update]] = []
        """Those that came before the run's code has begun: it waits for its lock."""
        self._closed = False

    def take(self, path: str, update: Update) -> None:
        """An update has come."""
        machine = self._machine
        command = commands.Answer(update.name, update.message_id)
        command.path = path
        entry = machine.open[path] = Open(command, None, machine.seq, path)
        entry.target = self
        if self._closed or machine.phase is not Phase.RUNNING or machine.continuing is not None:
            self._answer(entry, Failure(OVER))
        elif machine.begun:
            self._apply(entry, update)
        else:
            self._early.append((entry, update))

    def begin(self) -> None:
        """The run's code is about to begin."""
        early, self._early = self._early, []
        for entry, update in early:
            self._apply(entry, update)

    def end(self) -> None:
        """The run ends without that its code has begun."""
        early, self._early = self._early, []
        for entry, _ in early:
            self._answer(entry, Failure(OVER))

    def _apply(self, entry: Open, update: Update) -> None:
        machine = self._machine
        handler = machine.workflow.updates.get(update.name)
        try:
            if handler is None:
                raise Failure(f"workflow {machine.workflow.name!r} has no update {update.name!r}")
            arguments = handler.signature.decode_input(bytes(update.payload))
            machine.check_update(handler, arguments)
            if handler.working:
                self._begin(entry, handler, arguments)
            else:
                self._answer_with(entry, machine.call_handler(handler.function, arguments), handler)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the author's own: the answer
            self._answer(entry, error)

    def _begin(self, entry: Open, handler: UpdateHandler, arguments: tuple[Any, ...]) -> None:
        machine = self._machine
        if self._scope is None:
            self._scope = Scope(machine.root)
        body = handler.function(machine.instance, Context(machine), *arguments)
        branch = machine.new_branch(entry.path, body, self._scope, machine.saga_root)
        branch.nursery = self
        self._under_way[branch] = entry
        machine.ready(branch)

    def child_ended(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """An async handler has ended."""
        entry = self._under_way.pop(branch)
        command = entry.command
        assert isinstance(command, commands.Answer)
        if error is None:
            self._answer_with(entry, value, self._machine.workflow.updates[command.update])
        else:
            self._answer(entry, Cancelled(OVER) if only_cancelled(error) else error)
        if not self._under_way:
            self._machine.joined(self)

    def _answer_with(self, entry: Open, value: Any, handler: UpdateHandler) -> None:
        try:
            result = msgspec.Raw(msgspec.json.encode(value))
            handler.signature.result.decode(result)
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            misfit = f"the result of update {handler.name!r} does not fit its annotation: {error}"
            self._answer(entry, TypeError(misfit))
        else:
            self._give(entry, result=result)

    def _answer(self, entry: Open, error: BaseException) -> None:
        self._give(entry, error=record_error(error))

    def _give(self, entry: Open, **outcome: Any) -> None:
        command = entry.command
        assert isinstance(command, commands.Answer)
        command.outcome = UpdateDone(command.message_id, **outcome)
        self._machine.issue(entry)

    async def finish(self) -> None:
        """The run's code has returned: take no more, and wait for those under way.

        Raises:
            Cancelled: the run was cancelled meanwhile.
        """
        self._closed = True
        await self._join()
        if self._machine.root.cancelled:
            raise Cancelled

    async def stop(self) -> None:
        """The run's code has failed: cancel those under way, and wait for them."""
        if self._scope is not None:
            self._machine.cancel(self._scope)
        await self._join()

    async def _join(self) -> None:
        while self._under_way:
            await self._machine.join(self)
        if self._scope is not None:
            self._scope.close()
