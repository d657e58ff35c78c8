"""What branches call: the machine as the driver of a Context. Commands, scopes, nurseries, sagas.

Nothing here looks outside: a call changes the machine's state and parks the branch, or answers at once.
"""

from __future__ import annotations

import hashlib
from functools import partial
from random import Random
from types import coroutine
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from jivsd import sizes
from jivsd.authoring import commands
from jivsd.authoring.errors import Cancelled, Frozen, InvalidValue, NotDurable
from jivsd.authoring.paths import check_name
from jivsd.engine.replay.interrupts import from_terminal
from jivsd.engine.replay.locks import LockBlock
from jivsd.engine.replay.nursery import Nursery, Race, SagaBlock, ScopeBlock
from jivsd.engine.replay.parts import PARK, Branch, Open, Scope
from jivsd.engine.replay.saga import UNDO, Entry, Saga
from jivsd.engine.replay.state import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from jivsd.engine.replay.updates import Updates


MAX_RAISES: Final = 1000
"""How often in a row a cancelled branch may call the context without parking before that is an incident."""
MAX_FROZEN_RAISES: Final = 100
"""How often a frozen branch may go on calling before it is buried."""


class Driving(State):
    """What branches do to the state by calling their context. Implements `jivsd.authoring.context.Driver`."""

    __slots__ = ()

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
        self.entering()
        return self.at

    def random(self) -> Random:
        branch = self.entering()
        if branch.random is None:
            branch.random = Random(f"{self.seed}/{branch.path}")
        return branch.random

    def uuid(self) -> UUID:
        branch = self.entering()
        drawn = f"{self.seed}/{branch.path}/uuid#{branch.count('uuid()')}"
        return UUID(bytes=hashlib.blake2b(drawn.encode(), digest_size=16).digest(), version=4)

    def attributes_now(self) -> dict[str, Any]:
        self.entering()
        return dict(self.attributes)

    def scope(self, deadline: int | None, *, shield: bool, fail: bool) -> Any:
        return ScopeBlock(self, deadline, shield=shield, fail=fail)

    def nursery(self, name: str, limit: int | None) -> Any:
        return Nursery(self, check_name(name, "a nursery's name"), limit)

    def race(self, name: str) -> Any:
        return Race(self, check_name(name, "a race's name"))

    def saga(self) -> Any:
        return SagaBlock(self)

    def lock(self, key: str, timeout: int | None) -> Any:
        return LockBlock(self, key, timeout)

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Arguments as an input of this run's workflow.

        Raises:
            TypeError, InvalidValue: they are not one, or too large.
        """
        signature = self.workflow.signature
        data = signature.encode_input(args, kwargs)
        if len(data) > sizes.LARGEST:
            raise InvalidValue(sizes.too_large("the input", len(data)))
        signature.decode_input(data, strict=True)
        return data

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
        return self.frozen or self._current is None or (error is not None and from_terminal(error))

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
        if branch.parked is None:
            branch.parked = command
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
            case commands.ContinueAsNew():
                if len(self._branches) > 1:
                    raise NotDurable("continue_as_new: other branches are under way: children of a nursery, or updates")
                self.continuing = self._open_command(branch, command)
            case commands.Lock():
                self.locks = self.locks or {}
                self._open_command(branch, command)
            case _:
                self._open_command(branch, command)
        return False, None

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
            self.closed[command.path] = None
        else:
            self.predicates[branch] = command
        return met, value

    def _wait_signal(self, branch: Branch, command: commands.WaitSignal) -> tuple[bool, Any]:
        queue = self.unread.get(command.signal)
        while queue:
            message_id, payload, _ = queue.pop(0)
            if not queue:
                del self.unread[command.signal]
            fits, value = self.read_signal(command, message_id, payload)
            if fits:
                self.closed[command.path] = None
                return True, value
        entry = branch.parked = Open(command, branch, self.seq, command.path)
        self.listeners.setdefault(command.signal, []).append(entry)
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

    def set_deadline(self, branch: Branch, scope: Scope, deadline: int) -> Open | None:
        """A timer that cancels a scope; cancels it at once when its time has come (rule 6)."""
        if self.frozen:
            return None
        path = branch.allocate("deadline")
        if deadline <= self.at:
            self.closed[path] = None
            self.cancel(scope)
            return None
        return self.open_timer(path, deadline, scope)

    def join(self, nursery: Nursery | Updates) -> Awaitable[None]:
        """Park until a nursery's children have ended; nothing but freezing interrupts it."""
        return self._park_uncancelled(lambda branch: self._joining.__setitem__(nursery, branch))

    @coroutine
    def _park_uncancelled(self, register: Callable[[Branch], None]) -> Generator[Any, Any, None]:
        branch = self.entering(uncancelled=False)
        while self.frozen:
            yield PARK
        branch.parked = register
        register(branch)
        yield PARK

    def _wait_settled(self, saga: Saga, branch: Branch) -> None:
        self._settling += ((saga.open, partial(self.ready, branch)),)

    def open_saga(self, branch: Branch) -> Saga:
        branch.saga = Saga(branch.saga)
        return branch.saga

    async def compensate(self, branch: Branch, saga: Saga) -> None:
        """Undo a saga's steps, last settled first, shielded (rule 11); `compensated` says whether there ever was any.

        Nothing starts before every step of it has settled, so no attempt of a step runs beside its compensation.
        """
        outer = branch.scope
        branch.enter(Scope(None))
        if saga.open():
            await self._park_uncancelled(partial(self._wait_settled, saga))
        for entry in saga.last_first():
            self.compensated = True
            await self.perform(entry.undo())
            saga.entries.pop(entry.path, None)
        branch.enter(outer)
