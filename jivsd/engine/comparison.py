"""Whether a run can go on with other code: both are run over its journal and must ask for the same (rule 13).

What is compared is every command by its path, with its kind and the hash of its arguments, those that are still open
included, and whether each is waited for, abandoned or over. Nothing is carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.authoring import commands
from jivsd.engine import unwind
from jivsd.engine.replay import Machine
from jivsd.records import CodeChanged, Event, Kind, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.authoring.workflows import Workflow
    from jivsd.records import Run

BREATH: Final = 200
"""After so many events others have their turn."""


class Difference(msgspec.Struct, frozen=True):
    """Why a run stays on its code: at which path, what its own code does there, what the other does."""

    path: str
    expected: str
    found: str
    why: str


class Unsettled(Exception):
    """The journal ends where nothing can be compared: the record of a version is on its way."""


class Comparison:
    """The two codes of a run over its journal. `machine` is the new code's, as it stands behind the last event.

    Close it, or `take` that machine.
    """

    def __init__(self, run: Run, old: Workflow[..., Any] | None, new: Workflow[..., Any], events: list[Event]) -> None:
        """`old` is None if that code cannot be loaded: then the journal alone says what the new one has to do."""
        self.events = events
        self.seq = events[-1].seq
        moved = Event(run.run_id, self.seq + 1, Kind.CODE_CHANGED, "", encode(CodeChanged(new.code_hash)), 0)
        self._new = _Course(run, new, [*events, moved])
        self._old = None if old is None else _Course(run, old, events)
        self._taken = False

    async def run(self) -> None:
        """Run both codes over the journal."""
        if self._old is not None:
            await self._old.go(self.events)
            if self._old.strayed:
                await self._old.close()
                self._old = None
        await self._new.go(self.events)

    @property
    def has_ended(self) -> bool:
        """Whether the run's own code has come to its end, which is about to be recorded."""
        return self._old is not None and self._old.machine.outcome is not None

    def difference(self, *, additions: bool) -> Difference | None:
        """Why the run cannot go on with the new code; None: it can.

        Args:
            additions: whether the new code may ask for more than the old: for commands under paths that the old code
                has not come to, as long as all that it did ask for is there, in the same state. (So it may also have
                come past a `wait_until`, whose end is no event, and to its end.)

        Raises:
            Unsettled: nobody can say just now.
        """
        old, new = self._old, self._new
        if (refusal := new.refusal()) is not None:
            return refusal
        if old is None:
            return None
        if old.stopped is None and any(
            isinstance(it.command, commands.VersionCall) for it in old.machine.open.values()
        ):
            raise Unsettled
        return next(_differences(old, new, additions=additions), None)

    def take(self) -> Machine:
        """The new code's machine, to live on. `close` leaves it alone then."""
        self._taken = True
        machine = self._new.machine
        machine.misfits = ()
        machine.slow = ()
        return machine

    async def close(self) -> None:
        """Unwind both codes."""
        if self._old is not None:
            await self._old.close()
        if not self._taken:
            await self._new.close()


async def retire(machine: Machine) -> None:
    """Unwind a machine that nobody drives any more, in a task of its own."""
    task: Any = trio.lowlevel.current_task()
    machine.driven_by(lambda: task._cancel_status)
    for foreign in machine.freeze():
        await unwind.undo(foreign)


class _Asked(msgspec.Struct, frozen=True):
    """A command that code has asked for, and the event at which it did."""

    seq: int
    kind: str
    args_hash: str

    def __str__(self) -> str:
        return f"{self.kind} with arguments {self.args_hash}" if self.args_hash else self.kind


class _Course:
    """One code on its way through the journal. `stopped`: the event at which it could not go on."""

    def __init__(self, run: Run, workflow: Workflow[..., Any], journal: list[Event]) -> None:
        task: Any = trio.lowlevel.current_task()
        self.asked: dict[str, _Asked] = {}
        self.stopped: int | None = None
        self._crash: Exception | None = None
        self.machine = Machine(
            workflow,
            run.run_id,
            run.workflow_id,
            journal=journal,
            probe=lambda: task._cancel_status,
            on_issue=self._note,
        )

    def _note(self, command: commands.Command) -> None:
        self.asked[command.path] = _Asked(self.machine.seq, command.kind, command.args_hash)

    async def go(self, events: list[Event]) -> None:
        machine = self.machine
        for event in events:
            try:
                machine.deliver(event)
            except Exception as error:  # code that brings its actor down: that is what is to be mended
                self._crash = error
            if self._crash is not None or machine.blocked is not None:
                self.stopped = event.seq
                return  # it may have to be unwound before any await
            if event.seq % BREATH == 0:
                await trio.lowlevel.checkpoint()

    @property
    def strayed(self) -> bool:
        """Whether a replay does not say what the code has done in life: only the journal does."""
        blocked = self.machine.blocked
        return blocked is not None and blocked.kind in ("replay", "damage")

    @property
    def awaits_a_version(self) -> bool:
        return any(isinstance(entry.command, commands.VersionCall) for entry in self.machine.open.values())

    def refusal(self) -> Difference | None:
        """Why this code does not come through the journal."""
        if self._crash is not None:
            why = f"the code raised {type(self._crash).__name__} at event {self.stopped}: {self._crash}"
            return Difference("", "code that goes on", "code that fails", why)
        if (block := self.machine.blocked) is None:
            return None
        expected, found = block.expected or "code that fits the journal", block.found or "code that does not"
        return Difference(block.path, expected, found, block.message)

    def before(self, seq: int | None) -> dict[str, _Asked]:
        """What was asked for before an event, which can be that of a turn that came to nothing."""
        if seq is None:
            return self.asked
        return {path: asked for path, asked in self.asked.items() if asked.seq < seq}

    def states(self) -> dict[str, str]:
        """The state of each command that is not over."""
        machine = self.machine
        waiting = [entry.path for listeners in machine.listeners.values() for entry in listeners]
        waiting += [command.path for command in machine.predicates.values()]
        states = dict.fromkeys(waiting, "waited for")
        for path, entry in machine.open.items():
            states[path] = "cancelling" if entry.cancelling else "abandoned" if entry.abandoned else "waited for"
        states |= dict.fromkeys(machine.locks or (), "held")
        return states

    async def close(self) -> None:
        for foreign in self.machine.freeze():
            await unwind.undo(foreign)


def _differences(old: _Course, new: _Course, *, additions: bool) -> Iterator[Difference]:
    """In what the new code does otherwise than the old, up to where that one could not go on."""
    before, now = old.before(old.stopped), new.before(old.stopped)
    for path, asked in before.items():
        found = now.get(path)
        if found is None:
            yield Difference(path, str(asked), "nothing", "the new code does not ask for it")
        elif (found.kind, found.args_hash) != (asked.kind, asked.args_hash):
            yield Difference(path, str(asked), str(found), "the new code asks for something else there")
    if not additions:
        for path, asked in now.items():
            if path not in before and asked.kind != "version":  # which is what it is for
                yield Difference(path, "nothing", str(asked), "the new code asks for more (an addition)")
    if old.stopped is None:
        yield from _other_states(old, new, additions=additions)
    else:
        for path in (new.machine.locks or {}).keys() - (old.machine.locks or {}).keys():
            yield Difference(path, "lock, over", "lock, held", "the new code holds a lock that the run has given back")
    known = {message_id for message_id, _ in old.machine.misfits}
    for message_id, why in new.machine.misfits:
        if message_id not in known:
            yield Difference(f"message:{message_id}", "a message that fits", "one that does not", why)


def _other_states(old: _Course, new: _Course, *, additions: bool) -> Iterator[Difference]:
    then, now = old.states(), new.states()
    for path, asked in old.asked.items():
        state, found = then.get(path, "over"), now.get(path, "over")
        if state != found and not (additions and asked.kind == "until" and found == "over"):
            yield Difference(path, f"{asked.kind}, {state}", f"{asked.kind}, {found}", "it stands otherwise there")
    if new.machine.outcome is not None and not additions:
        yield Difference("", "a run that goes on", "its end", "the new code comes to its end")
