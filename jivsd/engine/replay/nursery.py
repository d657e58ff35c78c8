"""What workflow code holds in its hands: scopes, nurseries, races, sagas. They tell the machine; it decides."""

from __future__ import annotations

import inspect
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from jivsd.authoring.commands import child_call, step_call
from jivsd.authoring.errors import Cancelled, NotDurable, TimedOut
from jivsd.authoring.paths import escape_key
from jivsd.engine.replay.parts import Body, Branch, Open, Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from jivsd.engine.replay.driving import Driving


def only_cancelled(error: BaseException) -> bool:
    """Whether an exception is nothing but Cancelled, also inside groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(only_cancelled(cause) for cause in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, Cancelled)


class ScopeBlock:
    """`with ctx.fail_after(...)` and its kin."""

    __slots__ = ("_branch", "_deadline", "_fail", "_machine", "_outer", "_shield", "_timer", "scope")

    def __init__(self, machine: Driving, deadline: int | None, *, shield: bool, fail: bool) -> None:
        self._machine = machine
        self._deadline = deadline
        self._shield = shield
        self._fail = fail
        self._timer: Open | None = None
        self._branch: Branch | None = None
        self._outer: Scope | None = None
        self.scope: Scope | None = None

    @property
    def cancelled(self) -> bool:
        return self.scope is not None and self.scope.cancelled

    def cancel(self) -> None:
        self._machine.cancel_from_code(self.scope)

    def __enter__(self) -> ScopeBlock:
        branch = self._branch = self._machine.entering(uncancelled=not self._shield)
        self._outer = branch.scope
        self.scope = Scope(branch.scope, shield=self._shield)
        branch.enter(self.scope)
        if self._deadline is not None:
            self._timer = self._machine.set_deadline(branch, self.scope, self._deadline)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._branch is not None
        assert self._outer is not None
        assert self.scope is not None
        if self._machine.passes(error):
            return False
        if not self._machine.stands_in(self._branch, self.scope):
            raise NotDurable("scopes must be left in the reverse order of entering, in the same branch")
        caught = self.scope.cancelled and not self.scope.cancelled_outside
        self._branch.enter(self._outer)
        self.scope.close()
        if self._timer is not None:
            self._machine.drop_deadline(self._timer)
        if error is not None and not (caught and only_cancelled(error)):
            return False
        if self.scope.cancelled and caught and self._fail and (error is not None):
            raise TimedOut("the time is up") from None
        return error is not None


class Job:
    """A child of a nursery (see `jivsd.Job`)."""

    __slots__ = ("_result", "done", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.done = False
        self._result: Any = None

    @property
    def result(self) -> Any:
        if not self.done:
            raise RuntimeError(f"child {self.key!r} has not returned a result")
        return self._result

    def finish(self, value: Any) -> None:
        self.done = True
        self._result = value


class Slot:
    """`nursery[key]`."""

    __slots__ = ("_key", "_nursery")

    def __init__(self, nursery: Nursery, key: str) -> None:
        self._nursery = nursery
        self._key = key

    def start_soon(self, target: Any, /, *args: Any, **kwargs: Any) -> Job:
        return self._nursery.start(self._key, target, args, kwargs, keyed=True)


class Nursery:
    """See `jivsd.Nursery`. `active` children run, `waiting` ones wait for one of `limit` places, in order."""

    __slots__ = (
        "_limit",
        "_machine",
        "_name",
        "_opener",
        "_outer",
        "_saga",
        "active",
        "counts",
        "errors",
        "jobs",
        "open",
        "path",
        "scope",
        "waiting",
    )

    def __init__(self, machine: Driving, name: str, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"nursery {name!r}: limit is {limit}; at least 1")
        self._machine = machine
        self._name = name
        self._limit = limit
        self._opener: Branch | None = None
        self.path = ""
        self.active = 0
        self.open = False
        self.counts: dict[str, int] = {}
        self.errors: list[Exception] = []
        self.jobs: dict[Branch, Job] = {}
        self.waiting: deque[Branch] | None = None

    def __getitem__(self, key: object) -> Slot:
        return Slot(self, escape_key(key))

    def start_soon(self, target: Any, /, *args: Any, **kwargs: Any) -> Job:
        name = getattr(target, "name", None) or getattr(target, "__name__", None) or "child"
        return self.start(escape_key(name).strip("<>"), target, args, kwargs, keyed=False)

    @property
    def cancelled(self) -> bool:
        return self.scope.cancelled

    def cancel(self) -> None:
        self._machine.cancel_from_code(self.scope)

    def start(self, key: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, keyed: bool) -> Job:
        self._machine.may_spawn(keyed=keyed)
        if self._machine.frozen:
            return Job(key)
        if not self.open:
            raise NotDurable(f"nursery {self._name!r} is closed; children start inside its block")
        body = self._body(target, args, kwargs)
        count = self.counts[key] = self.counts.get(key, 0) + 1
        key = key if count == 1 else f"{key}#{count}"
        branch = self._machine.new_branch(f"{self.path}[{key}]", body, self.scope, self._saga)
        branch.nursery = self
        branch.key = key
        job = self.jobs[branch] = Job(key)
        if self._limit is None or self.active < self._limit:
            self.active += 1
            self._machine.ready(branch)
        else:
            if self.waiting is None:
                self.waiting = deque()
            self.waiting.append(branch)
        return job

    def _body(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Body:
        if hasattr(target, "mode"):
            return cast("Body", self._machine.perform(step_call(target, args, kwargs)))
        if hasattr(target, "lock_fields"):
            return cast("Body", self._machine.perform(child_call(target, args, kwargs)))
        body: Any = target(*args, **kwargs)
        if inspect.iscoroutine(body) or inspect.isgenerator(body):
            return body
        raise TypeError(f"start_soon takes a step, a workflow or an async function, not {target!r}")

    def child_ended(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """A child's coroutine has ended: note its result or error, let the next one in, wake who waits for all."""
        job = self.jobs.pop(branch)
        if error is None:
            job.finish(value)
            self.child_returned(job)
        elif not only_cancelled(error):
            self.errors.append(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            self._machine.cancel(self.scope)
        self.active -= 1
        if self.waiting:
            self.active += 1
            self._machine.ready(self.waiting.popleft())
        if not self.active:
            self._machine.joined(self)

    def child_returned(self, job: Job) -> None:
        """For a race: the first to return wins."""

    async def __aenter__(self) -> Any:
        branch = self._opener = await self._machine.arriving()
        self.path = branch.allocate(self._name)
        self._outer = branch.scope
        self._saga = branch.saga
        self.scope = Scope(branch.scope)
        branch.enter(self.scope)
        self.open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._opener is not None
        if self._machine.passes(error):
            return False
        if not self._machine.stands_in(self._opener, self.scope):
            raise NotDurable(f"nursery {self._name!r} must be left where it was entered, after the scopes inside it")
        closing = isinstance(error, GeneratorExit)  # of the async generator that this is in
        if error is not None:
            if not (closing or only_cancelled(error)):
                self.errors.insert(0, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            self._machine.cancel(self.scope)
        while self.active:  # between the last child's end and this branch's turn another may have started
            await self._machine.join(self)
        self.open = False
        caught = self.scope.cancelled and not self.scope.cancelled_outside
        self._opener.enter(self._outer)
        self.scope.close()
        if self.errors:
            raise ExceptionGroup(f"nursery {self._name!r}", self.errors) from None
        if error is None and self.scope.cancelled_outside:
            raise Cancelled
        return error is not None and caught and not closing


class Race(Nursery):
    """See `jivsd.Race`."""

    __slots__ = ("_winner",)

    def __init__(self, machine: Driving, name: str) -> None:
        super().__init__(machine, name, None)
        self._winner: Job | None = None

    @property
    def winner(self) -> Job:
        if self._winner is None:
            raise RuntimeError("no child of this race has returned")
        return self._winner

    def child_returned(self, job: Job) -> None:
        if self._winner is None:
            self._winner = job
            self._machine.cancel(self.scope)


class SagaBlock:
    """`async with ctx.saga()`."""

    __slots__ = ("_branch", "_machine", "_saga")

    def __init__(self, machine: Driving) -> None:
        self._machine = machine

    async def __aenter__(self) -> None:
        self._branch = await self._machine.arriving()
        self._saga = self._machine.open_saga(self._branch)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._machine.passes(error):
            return False
        if self._branch.saga is not self._saga:
            raise NotDurable("sagas must be left in the reverse order of entering, in the same branch")
        assert self._saga.parent is not None
        if error is None:
            self._saga.pass_outward()
        else:
            await self._undo()
        self._branch.saga = self._saga.parent
        return False

    def _undo(self) -> Awaitable[None]:
        return self._machine.compensate(self._branch, self._saga)
