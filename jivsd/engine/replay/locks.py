"""Locks inside a run: `async with ctx.lock(key)`. Taking one is recorded, giving it back is derived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd.authoring.commands import Lock
from jivsd.authoring.errors import Deadlock, NotDurable, TimedOut
from jivsd.engine.replay.parts import Branch, Open, Scope

if TYPE_CHECKING:
    from types import TracebackType

    from jivsd.engine.replay.driving import Driving


class Held:
    """A lock that is held: by the command that took it, under a fence number, by the code inside a scope."""

    __slots__ = ("entry", "fence", "key", "scope")

    def __init__(self, entry: Open, key: str, fence: int) -> None:
        self.entry = entry
        self.key = key
        self.fence = fence
        self.scope: Scope | None = None

    def surrounds(self, branch: Branch) -> bool:
        """Whether a branch stands inside the block that holds it."""
        return _within(branch, {self.scope})


class LockBlock:
    """See `jivsd.Lock`."""

    __slots__ = ("_branch", "_held", "_machine", "_outer", "_timeout", "key")

    def __init__(self, machine: Driving, key: str, timeout: int | None) -> None:
        self.key = key
        self._machine = machine
        self._timeout = timeout
        self._held: Held | None = None
        self._branch: Branch | None = None
        self._outer: Scope | None = None

    @property
    def fence(self) -> int:
        if self._held is None:
            raise RuntimeError(f"lock {self.key!r} is not held")
        return self._held.fence

    async def __aenter__(self) -> LockBlock:
        branch = self._branch = await self._machine.arriving()
        self._held = self._machine.held_around(branch, self.key)
        if self._held is None:
            held = self._held = await self._take(branch)
            self._outer = branch.scope
            held.scope = Scope(branch.scope)
            branch.enter(held.scope)
        return self

    async def _take(self, branch: Branch) -> Held:
        machine, timeout = self._machine, self._timeout
        if timeout is None and _never_ends(machine, branch, self.key):
            raise Deadlock(
                f"lock {self.key!r} is held by another branch of this run, which waits for a lock that this one holds"
            )
        command = Lock(self.key, at_once=timeout is not None and timeout <= 0)
        if timeout is None or timeout <= 0:
            return await machine.perform(command)
        with machine.scope(machine.at + timeout, shield=False, fail=False):
            return await machine.perform(command)
        raise TimedOut(f"waited for lock {self.key!r} in vain")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, outer = self._held, self._outer
        if held is None or outer is None or self._machine.passes(error):
            return
        assert self._branch is not None
        assert held.scope is not None
        if not self._machine.stands_in(self._branch, held.scope):
            raise NotDurable(f"lock {self.key!r} must be left where it was entered, after the scopes inside it")
        self._branch.enter(outer)
        held.scope.close()
        self._machine.give_back(held)


def _never_ends(machine: Driving, branch: Branch, key: str) -> bool:
    """Whether a branch would wait for itself, if it waits for a lock: nobody between has a deadline."""
    locks = (machine.locks or {}).values()
    own = {held.key for held in locks if held.surrounds(branch)}
    limited = {entry.target for entry in machine.open.values() if isinstance(entry.target, Scope)} - {machine.root}
    if not own or _within(branch, limited):
        return False
    waiting = [
        (entry.branch, entry.command.key)
        for entry in machine.open.values()
        if isinstance(entry.command, Lock) and entry.branch is not None and not _within(entry.branch, limited)
    ]
    awaited = [key]
    for one in awaited:  # which grows meanwhile
        for held in locks:
            if held.key == one:
                awaited += (more for other, more in waiting if held.surrounds(other) and more not in awaited)
    return not own.isdisjoint(awaited)


def _within(branch: Branch, scopes: set[Any]) -> bool:
    """Whether a branch stands inside one of some scopes."""
    scope: Scope | None = branch.scope
    while scope is not None and scope not in scopes:
        scope = scope.parent
    return scope is not None
