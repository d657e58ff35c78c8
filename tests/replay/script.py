"""A journal written by hand, delivered as it is written: for tests that say event by event what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from jivsd.authoring import commands
from jivsd.engine.replay import Machine, Open
from jivsd.records import (
    AttemptFailed,
    CancelRequested,
    ChildEnded,
    CodeChanged,
    ErrorRecord,
    Event,
    Kind,
    LockGranted,
    Marker,
    Options,
    Recovered,
    Reset,
    Signal,
    Started,
    Status,
    StepCancelled,
    StepDone,
    StepFailed,
    TimerFired,
    encode,
)
from replay.world import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.authoring.workflows import Workflow

START = 1_700_000_000_000_000
"""When Started is written, in microseconds; each later event comes a second later unless said otherwise."""


class Script:
    """A machine and the journal that it gets. Methods append one event each; `issued` are the paths asked for."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        input: Any = None,
        options: Options | None = None,
        *,
        probe: Callable[[], object] = lambda: None,
    ) -> None:
        self.workflow = workflow
        self.journal: list[Event] = []
        self.issued: list[str] = []
        self.machine = self.new_machine((), probe)
        self.deliver(Kind.STARTED, "", Started(Raw(encode(input)), "hash", "seed", options or Options()))

    def new_machine(self, journal: Iterable[Event], probe: Callable[[], object] = lambda: None) -> Machine:
        return Machine(
            self.workflow, RUN_ID, "id", journal=journal, probe=probe, on_issue=lambda one: self.issued.append(one.path)
        )

    def deliver(self, kind: Kind, path: str, payload: Any, attempt: int = 0) -> Machine:
        seq = len(self.journal) + 1
        event = Event(RUN_ID, seq, kind, path, encode(payload), START + seq * 1_000_000, attempt)
        self.journal.append(event)
        self.machine.deliver(event)
        return self.machine

    def again(self, workflow: Workflow[..., Any] | None = None, upto: int | None = None) -> Machine:
        """Replay the journal, or its first events, on this code or another; the script goes on with that machine."""
        self.workflow = workflow or self.workflow
        self.journal = self.journal[:upto]
        self.issued = []
        self.machine = self.new_machine(self.journal)
        for event in self.journal:
            self.machine.deliver(event)
        return self.machine

    def entry(self, path: str) -> Open:
        return self.machine.open[path]

    def _hash(self, path: str) -> str:
        entry = self.machine.open.get(path)
        return entry.command.args_hash if entry is not None else ""

    def done(self, path: str, result: Any = None) -> Machine:
        return self.deliver(Kind.STEP_DONE, path, StepDone(self._hash(path), Raw(encode(result))))

    def failed(self, path: str, message: str = "no", *, unknown: bool = False) -> Machine:
        error = ErrorRecord("ValueError", message)
        return self.deliver(Kind.STEP_FAILED, path, StepFailed(self._hash(path), error, unknown))

    def try_failed(self, path: str, attempt: int, *, next_at: int | None = START, unknown: bool = False) -> Machine:
        error = ErrorRecord("ValueError", "no")
        payload = AttemptFailed(self._hash(path), error, next_at, unknown)
        return self.deliver(Kind.ATTEMPT_FAILED, path, payload, attempt)

    def cancelled(self, path: str, started: str = "unknown") -> Machine:
        return self.deliver(Kind.STEP_CANCELLED, path, StepCancelled(self._hash(path), started))

    def fire(self, path: str) -> Machine:
        return self.deliver(Kind.TIMER_FIRED, path, TimerFired())

    def marker(self, path: str, value: Any = None) -> Machine:
        return self.deliver(Kind.MARKER, path, Marker(Raw(encode(value))))

    def signal(self, name: str, value: Any = None) -> Machine:
        return self.deliver(Kind.SIGNAL, "", Signal(name, f"message {len(self.journal)}", Raw(encode(value))))

    def cancel(self) -> Machine:
        return self.deliver(Kind.CANCEL_REQUESTED, "", CancelRequested())

    def granted(self, path: str) -> Machine:
        return self.deliver(Kind.LOCK_GRANTED, path, LockGranted(1))

    def child_ended(self, path: str, status: Status, output: Any = None, args_hash: str | None = None) -> Machine:
        ended = ChildEnded("child", status, Raw(encode(output)), args_hash=args_hash)
        return self.deliver(Kind.CHILD_ENDED, path, ended)

    def recovered(self, *paths: str) -> Machine:
        return self.deliver(Kind.RECOVERED, "", Recovered(list(paths)))

    def code_changed(self) -> Machine:
        return self.deliver(Kind.CODE_CHANGED, "", CodeChanged("other"))

    def reset(self, seed: str) -> Machine:
        return self.deliver(Kind.RESET, "", Reset("other", seed))

    def step(self, path: str) -> commands.StepCall:
        command = self.entry(path).command
        assert isinstance(command, commands.StepCall)
        return command
