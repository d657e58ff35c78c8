"""What branches call: the machine as the driver of a Context. Commands, scopes, nurseries, sagas.

Nothing here looks outside: a call changes the machine's state and parks the branch, or answers at once.
"""

from __future__ import annotations

import hashlib
from random import Random
from types import coroutine
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from jivsd.authoring import commands
from jivsd.authoring.errors import Cancelled, Frozen, NotDurable
from jivsd.authoring.paths import check_name
from jivsd.engine.replay.nursery import Nursery, Race, SagaBlock, ScopeBlock
from jivsd.engine.replay.parts import LOCK, PARK, Block, Body, Branch, Open, Scope
from jivsd.engine.replay.place import place_of
from jivsd.engine.replay.saga import UNDO, Entry, Saga

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from jivsd.authoring.workflows import Workflow

NONE: Final[frozenset[str]] = frozenset()
MAX_RAISES: Final = 1000
"""How often in a row a cancelled branch may call the context without parking before that is an incident."""
MAX_FROZEN_RAISES: Final = 100
"""How often a frozen branch may go on calling before it is buried."""


class Driving:
    """The state that branches change by calling their context. Implements `jivsd.authoring.context.Driver`."""

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
        "blocked",
        "closed",
        "dropped",
        "fresh",
        "frozen",
        "listeners",
        "misfits",
        "open",
        "predicates",
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
        self.seq = 0
        self.at = 0
        self.seed = ""
        self.blocked: Block | None = None
        self.frozen = False
        self.misfits: list[tuple[str, str]] = []
        """Signals whose payload does not fit: message id and why."""
        self.fresh: list[Open] = []
        self.dropped: list[Open] = []
        self.open: dict[str, Open] = {}
        self.closed: set[str] = set()
        self.unread: dict[str, list[tuple[str, msgspec.Raw]]] = {}
        self.listeners: dict[str, list[Open]] = {}
        self.predicates: dict[Branch, commands.WaitUntil] = {}
        self.versions: dict[str, int] = {}
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
        self._settling: list[tuple[Branch, Saga]] = []
        self._joining: dict[Nursery, Branch] = {}

    def block(self, kind: str, message: str, path: str = "", expected: str = "", found: str = "") -> None:
        """The run cannot go on. The first reason counts."""
        if self.blocked is None:
            self.blocked = Block(kind, message, path, expected, found)

    def where(self, branch: Branch) -> str:
        """File and line of the workflow code at which a branch stands."""
        place = place_of(branch.body, self.workflow.function.__code__.co_filename)
        return place or branch.path or self.workflow.name

    def entering(self, *, uncancelled: bool = True) -> Branch:
        """The branch that is calling, checked: the run lives, and its scope is not cancelled.

        Code that swallows Frozen again and again is let through in the end, so that it comes to an await, where it
        is buried.

        Raises:
            Frozen, Cancelled, NotDurable.
        """
        branch = self._current
        if self.frozen:
            if branch is None:
                branch = self._nobody = self._nobody or Branch("", (_ for _ in ()), Scope(None), self.saga_root, 0)
            branch.raised += 1
            if branch.raised <= MAX_FROZEN_RAISES:
                raise Frozen
            return branch
        if branch is None:
            raise NotDurable("the context was used outside its workflow's code: in a handler, predicate, step or query")
        if uncancelled and branch.scope.effective:
            branch.raised += 1
            if branch.raised > MAX_RAISES:
                self.block(
                    "cancelled-loop",
                    f"{self.where(branch)}: called its context {MAX_RAISES} times in a cancelled scope without "
                    "letting Cancelled pass",
                    branch.path,
                )
                self.frozen = True
                raise Frozen
            raise Cancelled
        return branch

    def now(self) -> int:
        self.entering(uncancelled=False)
        return self.at

    def random(self) -> Random:
        branch = self.entering(uncancelled=False)
        if branch.random is None:
            branch.random = Random(f"{self.seed}/{branch.path}")
        return branch.random

    def reseed(self, seed: str) -> None:
        """From here on what is drawn derives from another seed (a fork's)."""
        if seed != self.seed:
            self.seed = seed
            for branch in self._branches:
                branch.random = None

    def uuid(self) -> UUID:
        branch = self.entering(uncancelled=False)
        drawn = f"{self.seed}/{branch.path}/uuid#{branch.count('uuid()')}"
        return UUID(bytes=hashlib.blake2b(drawn.encode(), digest_size=16).digest(), version=4)

    def idempotency_key(self, path: str) -> str:
        """The key that every attempt of the step at `path` gets."""
        return hashlib.blake2b(f"{self.seed}/{path}".encode(), digest_size=16).hexdigest()

    def scope(self, deadline: int | None, *, shield: bool, fail: bool) -> Any:
        return ScopeBlock(self, deadline, shield=shield, fail=fail)

    def nursery(self, name: str, limit: int | None) -> Any:
        return Nursery(self, check_name(name, "a nursery's name"), limit)

    def race(self, name: str) -> Any:
        return Race(self, check_name(name, "a race's name"))

    def saga(self) -> Any:
        return SagaBlock(self)

    @coroutine
    def arriving(self) -> Generator[Any, Any, Branch]:
        """`entering` for calls that are awaited."""
        branch = self.entering()
        while self.frozen:
            yield PARK
        return branch

    def passes(self, error: BaseException | None) -> bool:
        """Whether a block lets go of an exception at once, because nothing that happens any more counts.

        Nobody drives the code when Python closes what was dropped without being frozen.
        """
        return self.frozen or self._current is None or isinstance(error, KeyboardInterrupt)

    def stands_in(self, branch: Branch, scope: Scope) -> bool:
        """Whether it is this branch that calls, and from this scope: blocks are left in the order of entering."""
        return self._current is branch and branch.scope is scope

    @coroutine
    def perform(self, command: commands.Command) -> Generator[Any, Any, Any]:
        """Issue a command for the branch that is calling and park until its outcome is delivered."""
        branch = self.entering()
        while self.frozen:
            yield PARK
        if not command.path:
            command.path = branch.allocate(command.name)
        if self._on_issue is not None:
            self._on_issue(command)
        ready, value = self._issue(branch, command)
        if ready:
            return value
        branch.parked = command if branch.parked is None else branch.parked
        return (yield PARK)

    def _issue(self, branch: Branch, command: commands.Command) -> tuple[bool, Any]:
        match command:
            case commands.StepCall():
                entry = self._open_command(branch, command)
                if command.step.compensation is not None and not command.path.endswith(UNDO):
                    self._register(entry, branch, command.step.compensation, command.args)
            case commands.ChildCall():
                entry = self._open_command(branch, command)
                if command.compensation is not None:
                    self._register(entry, branch, *command.compensation)
            case commands.WaitSignal():
                return self._wait_signal(branch, command)
            case commands.WaitUntil():
                return self._wait_until(branch, command)
            case commands.VersionCall():
                return self._version(branch, command)
            case _:
                self._open_command(branch, command)
        return False, None

    def _open_command(self, branch: Branch | None, command: commands.Command) -> Open:
        entry = self.open[command.path] = Open(command, branch, self.seq)
        self.fresh.append(entry)
        if branch is not None:
            branch.parked = entry
        return entry

    def _register(self, entry: Open, branch: Branch, undo: Any, args: bytes) -> None:
        self._reached += 1
        entry.entry = Entry(branch.saga, entry.path, undo, args, self._reached)

    def _wait_until(self, branch: Branch, command: commands.WaitUntil) -> tuple[bool, Any]:
        self._current = None
        try:
            value = command.predicate()
            met = bool(value)
        finally:
            self._current = branch
        if met:
            self.closed.add(command.path)
        else:
            self.predicates[branch] = command
        return met, value

    def _wait_signal(self, branch: Branch, command: commands.WaitSignal) -> tuple[bool, Any]:
        queue = self.unread.get(command.signal)
        while queue:
            message_id, payload = queue.pop(0)
            if not queue:
                del self.unread[command.signal]
            fits, value = self.read_signal(command, message_id, payload)
            if fits:
                self.closed.add(command.path)
                return True, value
        entry = branch.parked = Open(command, branch, self.seq)
        self.listeners.setdefault(command.signal, []).append(entry)
        return False, None

    def read_signal(self, command: commands.WaitSignal, message_id: str, payload: msgspec.Raw) -> tuple[bool, Any]:
        """Decode a signal for who waits for it; what does not fit is put aside."""
        try:
            return True, command.codec.decode(payload)
        except msgspec.DecodeError as error:
            self.misfits.append(
                (message_id, f"signal {command.signal!r} does not fit where {command.path} waits: {error}")
            )
            return False, None

    def _version(self, branch: Branch, command: commands.VersionCall) -> tuple[bool, Any]:
        path = f"version:{command.change}"
        if command.change not in self.versions and path not in self._markers and self.seq < self._changed_at:
            self.versions[command.change] = command.minimum
        if command.change in self.versions:
            return True, self.in_range(command, self.versions[command.change])
        marker = commands.VersionCall(command.change, command.minimum, command.maximum)
        marker.path = path
        if path not in self.open:
            issued = self._open_command(None, marker)
            issued.target = []
            if path in self._markers:
                self.fresh.remove(issued)
        self.open[path].target.append((branch, command))
        branch.parked = command
        return False, None

    def in_range(self, command: commands.VersionCall, value: int) -> int:
        if not command.minimum <= value <= command.maximum:
            self.block(
                "version",
                f"this run keeps to version {value} of change {command.change!r}, which the code no longer knows",
                command.path,
                f"{command.minimum} to {command.maximum}",
                str(value),
            )
        return value

    def new_branch(self, path: str, body: Body, scope: Scope, saga: Saga) -> Branch:
        self._serial += 1
        branch = Branch(path, body, scope, saga, self._serial)
        self._branches[branch] = None
        return branch

    def ready(self, branch: Branch, value: Any = None, *, error: BaseException | None = None) -> None:
        """Put a branch at the end of the FIFO, with what it gets."""
        branch.parked = None
        self._ready.append((branch, value, error))

    def may_spawn(self, *, keyed: bool) -> None:
        """Raises when who is calling may not start a child: outside the run's code, or cancelled."""
        if self._in_handler:
            if not keyed:
                raise NotDurable("a signal handler starts children only under a key: nursery[key].start_soon(...)")
            return
        self.entering()

    def cancel_from_code(self, scope: Scope | None) -> None:
        """Cancel a scope for the code that says so, which may be in a cancelled scope itself."""
        if not self._in_handler:
            self.entering(uncancelled=False)
        if scope is not None and not self.frozen:
            self.cancel(scope)

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
                self.closed.add(command.path)
            case commands.VersionCall() as command:
                waiters = self.open[f"version:{command.change}"].target
                waiters.remove((branch, command))
            case _:
                return
        self.ready(branch, error=Cancelled())

    def _abandon(self, entry: Open) -> None:
        entry.branch = None
        command = entry.command
        if isinstance(command, commands.WaitSignal):
            self.listeners[command.signal].remove(entry)
            if not self.listeners[command.signal]:
                del self.listeners[command.signal]
            self.closed.add(entry.path)
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
        self.closed.add(entry.path)
        if self._settling:
            self.wake_settled()

    def open_lock(self, key: str) -> None:
        command = commands.Lock(key)
        command.path = LOCK
        if self._on_issue is not None:
            self._on_issue(command)
        self._open_command(None, command).target = LOCK

    def keep_unread(self, name: str, message_id: str, payload: msgspec.Raw) -> None:
        """Keep a signal for whoever waits for its name next."""
        self.unread.setdefault(name, []).append((message_id, payload))

    def set_deadline(self, branch: Branch, scope: Scope, deadline: int) -> Open | None:
        """A timer that cancels a scope; cancels it at once when its time has come (rule 6)."""
        if self.frozen:
            return None
        path = branch.allocate("deadline")
        if deadline <= self.at:
            self.closed.add(path)
            self.cancel(scope)
            return None
        return self.open_timer(path, deadline, scope)

    def open_timer(self, path: str, deadline: int, target: Any) -> Open:
        command = commands.Sleep(deadline, "deadline")
        command.path = path
        if self._on_issue is not None:
            self._on_issue(command)
        timer = self._open_command(None, command)
        timer.target = target
        return timer

    def drop_deadline(self, timer: Open) -> None:
        if self.open.get(timer.path) is timer:
            timer.target = None
            self._abandon(timer)

    def join(self, nursery: Nursery) -> Awaitable[None]:
        """Park until a nursery's children have ended; nothing but freezing interrupts it."""
        return self._park_uncancelled(lambda branch: self._joining.__setitem__(nursery, branch))

    def joined(self, nursery: Nursery) -> None:
        branch = self._joining.pop(nursery, None)
        if branch is not None:
            self.ready(branch)

    @coroutine
    def _park_uncancelled(self, register: Callable[[Branch], None]) -> Generator[Any, Any, None]:
        branch = self.entering(uncancelled=False)
        while self.frozen:
            yield PARK
        branch.parked = register
        register(branch)
        yield PARK

    def open_saga(self, branch: Branch) -> Saga:
        branch.saga = Saga(branch.saga)
        return branch.saga

    async def compensate(self, branch: Branch, saga: Saga) -> bool:
        """Undo a saga's steps, last settled first, shielded. Returns whether there was any (rule 11).

        Nothing starts before every step of it has settled, so no attempt of a step runs beside its compensation.
        """
        outer = branch.scope
        branch.enter(Scope(None))
        if saga.open():
            await self._park_uncancelled(lambda branch: self._settling.append((branch, saga)))
        undone = saga.last_first()
        for entry in undone:
            await self.perform(entry.undo())
            saga.entries.pop(entry.path, None)
        branch.enter(outer)
        return bool(undone)

    def wake_settled(self) -> None:
        waiting, self._settling = self._settling, []
        for branch, saga in waiting:
            if saga.open():
                self._settling.append((branch, saga))
            else:
                self.ready(branch)


def _waits_for_settlement(command: commands.Command) -> bool:
    return isinstance(command, commands.ChildCall) or (
        isinstance(command, commands.StepCall) and command.step.cancel == "wait"
    )
