"""The state of a run's code: its branches, what they wait for, and what cancelling and settling do to that.

Every branch that is woken goes through one queue; what is asked of the outside stands in `fresh` and `dropped`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.authoring import commands
from jivsd.authoring.errors import Cancelled
from jivsd.engine.replay.locks import Held
from jivsd.engine.replay.parts import LOCK, Block, Body, Branch, Open, Scope
from jivsd.engine.replay.place import place_of
from jivsd.engine.replay.saga import Saga

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.replay.nursery import Nursery
    from jivsd.engine.replay.updates import Updates

NONE: Final[frozenset[str]] = frozenset()


class State:
    """What `Driving` and the handlers of events change. `open` and `closed`: the commands by their paths."""

    __slots__ = (
        "_branches",
        "_changed_at",
        "_current",
        "_in_handler",
        "_joining",
        "_markers",
        "_nobody",
        "_on_issue",
        "_reached",
        "_ready",
        "_serial",
        "_settling",
        "at",
        "attributes",
        "blocked",
        "closed",
        "compensated",
        "continuing",
        "dropped",
        "fresh",
        "frozen",
        "listeners",
        "locks",
        "misfits",
        "open",
        "own_lock",
        "predicates",
        "relocking",
        "root",
        "run_id",
        "saga_root",
        "seed",
        "seq",
        "unread",
        "versions",
        "workflow",
        "workflow_id",
    )

    def __init__(
        self,
        workflow: Workflow[..., Any],
        run_id: str,
        workflow_id: str,
        on_issue: Callable[[commands.Command], None] | None,
    ) -> None:
        self.workflow = workflow
        self.run_id = run_id
        self.workflow_id = workflow_id
        self.compensated = False
        """Whether any step was ever undone, in an inner saga too."""
        self.seq = 0
        self.at = 0
        self.seed = ""
        self.attributes: dict[str, Any] = {}
        self.blocked: Block | None = None
        self.frozen = False
        self.misfits: tuple[tuple[str, str], ...] = ()
        """Signals whose payload does not fit: message id and why."""
        self.fresh: list[Open] = []
        self.dropped: list[Open] = []
        self.open: dict[str, Open] = {}
        self.closed: dict[str, None] = {}
        self.unread: dict[str, list[tuple[str, msgspec.Raw, int]]] = {}
        """Signals that nobody has read, by name: message id, payload, and the seq of the event."""
        self.listeners: dict[str, list[Open]] = {}
        self.predicates: dict[Branch, commands.WaitUntil] = {}
        self.versions: dict[str, int] = {}
        self.continuing: Open | None = None
        """The command by which the code has asked to be continued as new; it says nothing more."""
        self.own_lock: Held | None = None
        """The run's own lock, once it has it."""
        self.locks: dict[str, Held] | None = None
        """The locks that the code holds, and those that it is about to give back, by path; None: it asked for none."""
        self.relocking = 0
        """How many locks a reset run waits for that its code holds already."""
        self.root = Scope(None)
        self.saga_root = Saga(None)
        self._markers: frozenset[str] = NONE
        self._changed_at = 0
        self._on_issue = on_issue
        self._branches: dict[Branch, None] = {}
        self._ready: list[tuple[Branch, Any, BaseException | None]] = []
        self._current: Branch | None = None
        self._in_handler = False
        self._nobody: Branch | None = None
        """Stands for branches that are unwound after they were taken out of the machine."""
        self._serial = 0
        self._reached = 0
        self._settling: tuple[tuple[Callable[[], bool], Callable[[], None]], ...] = ()
        """What waits for steps to settle: whether some have not yet, and what is done then."""
        self._joining: dict[Nursery | Updates, Branch] = {}

    def block(self, kind: str, message: str, path: str = "", expected: str = "", found: str = "") -> None:
        """The run cannot go on. The first reason counts."""
        if self.blocked is None:
            self.blocked = Block(kind, message, path, expected, found)

    def where(self, branch: Branch) -> str:
        """File and line of the workflow code at which a branch stands."""
        own = self.workflow.function.__code__.co_filename
        place = place_of(branch.body, own)
        return place or branch.path or self.workflow.name

    def reseed(self, seed: str) -> None:
        """From here on what is drawn derives from another seed (a fork's)."""
        if seed != self.seed:
            self.seed = seed
            for branch in self._branches:
                branch.random = None

    def idempotency_key(self, path: str) -> str:
        """The key that every attempt of the step at `path` gets."""
        return hashlib.blake2b(f"{self.seed}/{path}".encode(), digest_size=16).hexdigest()

    def new_branch(self, path: str, body: Body, scope: Scope, saga: Saga) -> Branch:
        self._serial += 1
        branch = Branch(path, body, scope, saga, self._serial)
        self._branches[branch] = None
        return branch

    def ready(self, branch: Branch, value: Any = None, *, error: BaseException | None = None) -> None:
        """Put a branch at the end of the FIFO, with what it gets."""
        branch.parked = None
        self._ready.append((branch, value, error))

    def _open_command(self, branch: Branch | None, command: commands.Command) -> Open:
        entry = self.open[command.path] = Open(command, branch, self.seq, command.path)
        self.fresh.append(entry)
        if branch is not None:
            branch.parked = entry
        return entry

    def open_timer(self, path: str, deadline: int, target: Any) -> Open:
        command = commands.Sleep(deadline, "deadline")
        command.path = path
        if self._on_issue is not None:
            self._on_issue(command)
        timer = self._open_command(None, command)
        timer.target = target
        return timer

    def issue(self, entry: Open) -> None:
        """Ask for the record of something that is open already."""
        self.fresh.append(entry)
        if self._on_issue is not None:
            self._on_issue(entry.command)

    def drop_deadline(self, timer: Open) -> None:
        if self.open.get(timer.path) is timer:
            timer.target = None
            self._abandon(timer)

    def open_lock(self, key: str) -> None:
        command = commands.Lock(key, own=True)
        command.path = LOCK
        if self._on_issue is not None:
            self._on_issue(command)
        self._open_command(None, command).target = LOCK

    def take_lock(self, entry: Open, key: str, fence: int) -> Held:
        """The code has a lock, from the command that asked for it."""
        held = Held(entry, key, fence)
        self.locks = self.locks or {}
        self.locks[entry.path] = held
        return held

    def held_around(self, branch: Branch, key: str) -> Held | None:
        """The lock of a key that a branch has already: the run's own, or that of a block around it."""
        if self.own_lock is not None and self.own_lock.key == key:
            return self.own_lock
        around = (held for held in (self.locks or {}).values() if held.key == key and held.surrounds(branch))
        return next(around, None)

    def give_back(self, held: Held) -> None:
        """A lock's block has been left: give it back once every cancelled step has settled, lest one still works."""
        stopping = [entry for entry in self.open.values() if _is_being_stopped(entry)]

        def unsettled() -> bool:
            return any(self.open.get(entry.path) is entry for entry in stopping)

        def give() -> None:
            if self.open.get(held.entry.path) is held.entry:
                self._relocked(held)
            if self.locks is not None:
                self.locks.pop(held.entry.path, None)
            self.dropped.append(held.entry)

        if unsettled():
            self._settling += ((unsettled, give),)
        else:
            give()

    def relock(self) -> None:
        """A reset run has none of the locks that its code holds: nothing starts before it has drawn them again."""
        for held in (self.locks or {}).values():
            held.entry.target = held
            self.open[held.entry.path] = held.entry
            self.fresh.append(held.entry)
            self.relocking += 1

    def relocked(self, held: Held, fence: int) -> None:
        """A reset run has a lock again that its code holds."""
        self._relocked(held)
        held.fence = fence

    def _relocked(self, held: Held) -> None:
        held.entry.target = None
        del self.open[held.entry.path]
        self.relocking -= 1
        if not self.relocking:
            self.fresh.extend(self.open.values())

    def lock_paths(self) -> list[str]:
        """The paths of the locks that the run's code holds or waits for."""
        waiting = (path for path, entry in self.open.items() if isinstance(entry.command, commands.Lock))
        return list(dict.fromkeys([*(self.locks or ()), *waiting]))

    def keep_unread(self, name: str, message_id: str, payload: msgspec.Raw) -> None:
        """Keep a signal for whoever waits for its name next."""
        self.unread.setdefault(name, []).append((message_id, payload, self.seq))

    def read_signal(self, command: commands.WaitSignal, message_id: str, payload: msgspec.Raw) -> tuple[bool, Any]:
        """Decode a signal for who waits for it; what does not fit is put aside."""
        try:
            return True, command.codec.decode(payload)
        except msgspec.DecodeError as error:
            why = f"signal {command.signal!r} does not fit where {command.path} waits: {error}"
            self.misfits += ((message_id, why),)
            return False, None

    def cancel(self, scope: Scope) -> None:
        """Cancel a scope: wake the branches that it reaches, in the order of their creation (rules 4, 8, 9)."""
        if scope.cancelled:
            return
        scope.cancelled = True
        for branch in scope.reached():
            self._cancel_branch(branch)

    def _cancel_branch(self, branch: Branch) -> None:
        match branch.parked:
            case Open() as entry:
                if entry.cancelling:
                    return
                if _waits_for_settlement(entry.command) and entry.issued_at != self.seq:
                    entry.cancelling = True
                    self.dropped.append(entry)
                    return
                self._abandon(entry)
            case commands.WaitUntil() as command:
                del self.predicates[branch]
                self.closed[command.path] = None
            case commands.VersionCall() as command:
                waiters = self.open[f"version:{command.change}"].target
                waiters.remove((branch, command))
            case _:
                return
        self.ready(branch, error=Cancelled())

    def _abandon(self, entry: Open) -> None:
        entry.branch = None
        if entry is self.continuing:
            self.continuing = None
        command = entry.command
        if isinstance(command, commands.WaitSignal):
            self.listeners[command.signal].remove(entry)
            if not self.listeners[command.signal]:
                del self.listeners[command.signal]
            self.closed[entry.path] = None
        elif entry.issued_at == self.seq:
            if entry.entry is not None:
                entry.entry.failed(self.seq, unknown=False)
            self.settle(entry)
        else:
            self.dropped.append(entry)
            if not isinstance(command, commands.StepCall):
                self.settle(entry)

    def settle(self, entry: Open) -> None:
        """Nothing more is to come for this command."""
        self.open.pop(entry.path, None)
        self.closed[entry.path] = None
        if self._settling:
            self.wake_settled()

    def wake_settled(self) -> None:
        waiting, self._settling = self._settling, ()
        for unsettled, then in waiting:
            if unsettled():
                self._settling += ((unsettled, then),)
            else:
                then()

    def joined(self, nursery: Nursery | Updates) -> None:
        """A nursery's last child has ended."""
        branch = self._joining.pop(nursery, None)
        if branch is not None:
            self.ready(branch)


def _is_being_stopped(entry: Open) -> bool:
    return isinstance(entry.command, commands.StepCall) and (entry.abandoned or entry.cancelling)


def _waits_for_settlement(command: commands.Command) -> bool:
    return isinstance(command, commands.ChildCall) or (
        isinstance(command, commands.StepCall) and command.step.cancel == "wait"
    )
