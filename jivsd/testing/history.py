"""Histories: a run's journal as one JSON document, which any code can be replayed over, without a database.

What a replay compares is what a running workflow depends on: which commands the code issues at which event (path,
kind, hash of the arguments), the keys and child run ids derived from them, and how the run ends. Histories that are
kept beside the code guard it (the idea is Temporal's `Replayer` and its golden journals).
"""

from __future__ import annotations

import threading
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio

from jivsd.authoring import commands
from jivsd.authoring.workflows import Workflow
from jivsd.engine import unwind
from jivsd.engine.replay import Block, Machine, Outcome
from jivsd.records import Ended, ErrorRecord, Event, Kind, Status, derived_id, payload_of
from jivsd.registry.registry import Registry
from jivsd.store.api import Plugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.records import Run

T = TypeVar("T")

FORMAT: Final = 1
"""The version of the document. Later versions of jivsd read it too."""

MISFITS: Final = frozenset({"replay", "version", "result", "damage"})
"""The kinds of incident by which the machine says that code and journal do not match."""


class NotAHistory(ValueError):
    """A file that holds no history; the message says why."""


class Mismatch(AssertionError):
    """The code does not do what the journal says.

    `seq`: at which event that showed; `path`, `expected` and `found`: where and what.
    """

    def __init__(self, workflow: str, seq: int, path: str, expected: str, found: str, why: str = "") -> None:
        place = f" at {path}" if path else ""
        super().__init__(
            f"workflow {workflow!r} does not match its history, event {seq}{place}: "
            f"expected {expected}; found {found}" + (f" ({why})" if why else "")
        )
        self.seq = seq
        self.path = path
        self.expected = expected
        self.found = found


class Issued(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command that the code issued. `seq`: the event that woke the code.

    `key`: of a step its idempotency key, of a child run its run id.
    """

    seq: int
    kind: str
    path: str
    args_hash: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" with arguments {self.args_hash}" if self.args_hash else "")


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event, its payload as JSON in its place."""

    seq: int
    kind: str
    at: int
    payload: msgspec.Raw
    path: str = ""
    attempt: int = 0
    by: str = ""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A run and all that is needed to replay it.

    `issued` are the commands that its code has issued; None: nobody looked. `plugin` is its code's source; without
    it, a replay needs the code from elsewhere.
    """

    format: int = FORMAT
    workflow: str
    workflow_id: str
    run_id: str
    status: Status
    code_hash: str
    events: list[Line]
    issued: list[Issued] | None = None
    plugin: Plugin | None = None

    @classmethod
    def of(cls, run: Run, events: list[Event], plugin: Plugin | None = None) -> History:
        """The history of a run, from its journal."""
        lines = [Line(it.seq, it.kind, it.at, msgspec.Raw(it.payload), it.path, it.attempt, it.by) for it in events]
        return cls(
            workflow=run.workflow,
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            status=run.status,
            code_hash=run.code_hash,
            events=lines,
            plugin=plugin,
        )

    @classmethod
    def read(cls, file: Path | str) -> History:
        """Read a history from a file.

        Raises:
            NotAHistory: it holds none, or one of a later version of jivsd. OSError.
        """
        return cls.decode(Path(file).read_bytes(), str(file))

    @classmethod
    def decode(cls, data: bytes, name: str) -> History:
        """Read a history from its document; `name` is what errors call it.

        Raises:
            NotAHistory: as `read`.
        """
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotAHistory(
                f"{name} is not a history that `jivsd export` or History.write has made: {error}"
            ) from None
        if found.format > FORMAT:
            raise NotAHistory(f"{name} is a history of a later version of jivsd (format {found.format})")
        return found

    def write(self, file: Path | str) -> None:
        """Write it to a file, as indented JSON."""
        Path(file).write_bytes(self.encode())

    def encode(self) -> bytes:
        """The document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def journal(self) -> list[Event]:
        """Its events, as the journal has them."""
        return [
            Event(self.run_id, it.seq, it.kind, it.path, bytes(it.payload), it.at, it.attempt, it.by)
            for it in self.events
        ]

    def ended(self) -> Ended | None:
        """How the run has ended; None if it has not."""
        for event in reversed(self.journal()):
            if event.kind == Kind.ENDED:
                return payload_of(event)
        return None


class Replay(msgspec.Struct, frozen=True):
    """A replay that matched. `outcome` is None when the code still waits for something.

    `blocked`: an incident that the code itself brings about, in life as in the replay.
    """

    issued: list[Issued]
    outcome: Outcome | None
    blocked: Block | None


Code = Workflow[..., Any] | ModuleType | Path | str | None
"""The code to replay: a workflow, a plugin's module or path, or None for the source that the history brings along."""


def replay(history: History, code: Code = None, *, observer: Observer | None = None) -> Replay:
    """Run code over a history and see that it does just what the journal says. Nothing is executed, no step runs.

    May be called anywhere, inside and outside of trio.

    Raises:
        Mismatch: the code does something else. LookupError: the workflow is not in the plugin, or the history brings
            no source along. PluginProblem: the plugin cannot be loaded.
    """
    workflow = workflow_of(history, code)
    return _apart(lambda: _replay(history, workflow, observer or Observer()))


def record(history: History, code: Code = None) -> History:
    """The history with the commands that the code issues, which later code has to issue too.

    Raises:
        Mismatch, LookupError, PluginProblem: as `replay`.
    """
    found = replay(msgspec.structs.replace(history, issued=None), code)
    return msgspec.structs.replace(history, issued=found.issued)


class Observer:
    """Watches a replay; the debugger is one."""

    def issuing(self, machine: Machine, command: commands.Command) -> None:
        """The code issues a command; its frames are on the stack."""

    def at_the_end(self, machine: Machine) -> None:
        """All events are delivered."""


def workflow_of(history: History, code: Code) -> Workflow[..., Any]:
    """The workflow of a history, found in some code.

    Raises:
        LookupError, PluginProblem: see `replay`.
    """
    if isinstance(code, Workflow):
        return code
    name = history.workflow
    registry = Registry()
    if code is None:
        if history.plugin is None:
            raise LookupError(f"the history of {name!r} brings no source along: say which plugin to replay")
        found = registry.load_source(history.plugin).workflows
    elif isinstance(code, ModuleType):
        found = registry.add_module(code).workflows
    else:
        report = registry.load([Path(code)], bundled=False, installed=False, trusted=True)
        if report.problems:
            raise report.problems[0]
        found = {workflow.name: workflow for workflow in registry.workflows}
    if name not in found:
        raise LookupError(f"there is no workflow {name!r} in the plugin; it has: {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _apart(function: Callable[[], Awaitable[T]]) -> T:
    """Call a function in a trio loop of its own, so that trio calls in a workflow's code are found and undone."""

    if not trio.lowlevel.in_trio_run():
        return trio.run(function)
    outcome: list[T] = []
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            outcome.append(trio.run(function))
        except BaseException as error:  # carried over to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


async def _replay(history: History, workflow: Workflow[..., Any], observer: Observer) -> Replay:
    journal = history.journal()
    issued: list[Issued] = []

    def note(command: commands.Command) -> None:
        issued.append(Issued(machine.seq, command.kind, command.path, command.args_hash, _key(machine, command)))
        observer.issuing(machine, command)

    task: Any = trio.lowlevel.current_task()
    machine = Machine(
        workflow, history.run_id, history.workflow_id, journal=journal, probe=lambda: task._cancel_status, on_issue=note
    )
    try:
        for event in journal:
            before = len(issued)
            machine.deliver(event)
            _check_commands(history, event.seq, before, issued)
            if (block := machine.blocked) is not None and block.kind in MISFITS:
                expected, found = block.expected or "code that fits", block.found or "code that does not"
                raise Mismatch(history.workflow, event.seq, block.path, expected, found, block.message)
        if machine.blocked is None:
            _check_end(history, machine)
        observer.at_the_end(machine)
        return Replay(issued, machine.outcome, machine.blocked)
    finally:
        for foreign in machine.freeze():
            await unwind.undo(foreign)


def _key(machine: Machine, command: commands.Command) -> str:
    match command:
        case commands.StepCall():
            return machine.idempotency_key(command.path)
        case commands.ChildCall():
            return derived_id(machine.run_id, command.path)
        case _:
            return ""


def _check_commands(history: History, seq: int, before: int, issued: list[Issued]) -> None:
    """Compare what the code issued at one event with what it issued when the history was recorded."""
    if history.issued is None:
        return
    expected = [it for it in history.issued[before:] if it.seq == seq]
    for place, (one, other) in enumerate(zip_longest(expected, issued[before:])):
        if one == other:
            continue
        path = (one or other).path
        if one is not None and other is not None and str(one) == str(other):
            raise Mismatch(history.workflow, seq, path, f"key {one.key}", f"key {other.key}")
        raise Mismatch(
            history.workflow,
            seq,
            path,
            str(one or "no command"),
            str(other or "no command"),
            f"command {place + 1} there",
        )


def _check_end(history: History, machine: Machine) -> None:
    """Compare how the code ends with how the run ended. One that was terminated was not asked."""
    ended = history.ended()
    if ended is None or ended.status in (Status.TERMINATED, Status.CONTINUED):
        return
    seq = history.events[-1].seq
    outcome = machine.outcome
    if outcome is None:
        waits = ", ".join(machine.open) or "something else"
        raise Mismatch(history.workflow, seq, "", f"the run to end {ended.status}", f"code that waits for {waits}")
    expected = _Ending(ended.status, _value(ended.output), ended.error)
    found = _Ending(outcome.status, _value(outcome.output), outcome.error)
    if expected != found:
        raise Mismatch(history.workflow, seq, "", str(expected), str(found))


class _Ending(msgspec.Struct, frozen=True):
    status: Status
    output: Any
    error: ErrorRecord | None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.status} with {self.error.type}: {self.error.message}"
        return f"{self.status} with {msgspec.json.encode(self.output).decode()}"


def _value(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
