"""The Context: what workflow code may do. It builds commands and hands them to a driver; it decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, overload

from jivsd.authoring import commands
from jivsd.authoring.signature import codec_of, hints_of, result_kind
from jivsd.clock import Duration, as_datetime, from_datetime, microseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import datetime
    from random import Random
    from uuid import UUID

    from jivsd.authoring.steps import Step
    from jivsd.authoring.workflows import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[R_co]):
    """A child of a nursery."""

    @property
    def key(self) -> str: ...

    @property
    def done(self) -> bool:
        """Whether it has returned."""
        ...

    @property
    def result(self) -> R_co:
        """What it returned.

        Raises:
            RuntimeError: it has not returned (yet).
        """
        ...


class Slot(Protocol):
    """A place in a nursery under a key: `nursery["orders"].start_soon(...)`."""

    @overload
    def start_soon(self, target: Step[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def start_soon(self, target: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def start_soon(self, target: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...


class Scope(Protocol):
    """A part of the code that can be cancelled."""

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled, by its deadline or by `cancel`."""
        ...

    def cancel(self) -> None: ...


class Nursery(Slot, Scope, Protocol):
    """Children that run side by side and all end before it is left; one that fails cancels the others.

    `start_soon` takes a step, a workflow (a child run) or an async function, and its arguments. What the children
    raise comes out as an ExceptionGroup, as from trio's nurseries.
    """

    def __getitem__(self, key: object, /) -> Slot: ...


class Race(Nursery, Protocol):
    """A nursery whose first child to return wins; the others are cancelled."""

    @property
    def winner(self) -> Job[Any]:
        """The child that won.

        Raises:
            RuntimeError: none has returned (yet).
        """
        ...


class Lock(Protocol):
    """A lock that is held."""

    @property
    def key(self) -> str: ...

    @property
    def fence(self) -> int:
        """A number that is higher for every later holder of the key: give it to what must refuse a former one."""
        ...


class Driver(Protocol):
    """Who carries out what the Context says: the replay machine."""

    @property
    def run_id(self) -> str: ...

    @property
    def workflow_id(self) -> str: ...

    def now(self) -> int: ...

    def random(self) -> Random: ...

    def uuid(self) -> UUID: ...

    def attributes_now(self) -> dict[str, Any]: ...

    def perform(self, command: commands.Command) -> Awaitable[Any]: ...

    def scope(self, deadline: int | None, *, shield: bool, fail: bool) -> AbstractContextManager[Scope]: ...

    def nursery(self, name: str, limit: int | None) -> AbstractAsyncContextManager[Nursery]: ...

    def race(self, name: str) -> AbstractAsyncContextManager[Race]: ...

    def saga(self) -> AbstractAsyncContextManager[None]: ...

    def lock(self, key: str, timeout: int | None) -> AbstractAsyncContextManager[Lock]: ...

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes: ...


class Context:
    """What a workflow may do. Everything here is journaled or derived from the journal; nothing else is durable.

    In a cancelled scope every call raises `Cancelled`.
    """

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def run_id(self) -> str:
        return self._driver.run_id

    @property
    def workflow_id(self) -> str:
        return self._driver.workflow_id

    async def step(self, step: Step[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a step and return its result; its outcome is recorded once, and never run again after that.

        Raises:
            the step's own error, once its retries are used up.
        """
        return await self._driver.perform(commands.step_call(step, args, kwargs))

    @overload
    async def run(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, workflow: str, /, *args: Any, **kwargs: Any) -> Any: ...

    async def run(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a workflow as a child run and return its output; by name for one of another plugin.

        By name, the one argument is the input. The child is cancelled with this call's scope, which waits for its
        end.

        Raises:
            ChildFailed: it ended otherwise than COMPLETED.
        """
        return await self._driver.perform(commands.child_call(workflow, args, kwargs))

    @overload
    async def start_child(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> str: ...
    @overload
    async def start_child(self, workflow: str, /, *args: Any, **kwargs: Any) -> str: ...

    async def start_child(self, workflow: Any, /, *args: Any, **kwargs: Any) -> str:
        """Start a run that lives on by itself, whatever becomes of this one; return its run id once it is durable.

        It is started once, however often this run crashes. To wait for a child, use `run`, in a nursery if need be.

        Raises:
            ChildFailed: it was refused; its workflow id is open, say.
        """
        return await self._driver.perform(commands.StartChild(commands.child_call(workflow, args, kwargs)))

    async def signal(self, run: str, name: str, payload: Any = None) -> None:
        """Send a signal to another run; when this returns, it is durable there, and will be applied once.

        Args:
            run: a run id, as from `start_child`, or "workflow:workflow id".
            name: the signal's name.
            payload: anything that has a JSON form.

        Raises:
            NotDelivered: there is no such run, it has ended, or the payload does not fit its signal.
        """
        body = commands.json_of(payload, f"the payload of signal {name!r}")
        await self._driver.perform(commands.SendSignal(run, name, body))

    async def sleep(self, duration: Duration) -> None:
        """Sleep durably: never shorter, over crashes and for as long as you like."""
        await self._driver.perform(commands.Sleep(self._driver.now() + microseconds(duration)))

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until an aware datetime."""
        await self._driver.perform(commands.Sleep(from_datetime(moment)))

    @overload
    async def wait_signal(self, name: str, type: type[R], *, timeout: Duration | None = None) -> R: ...
    @overload
    async def wait_signal(self, name: str, *, timeout: Duration | None = None) -> Any: ...

    async def wait_signal(self, name: str, type: Any = Any, *, timeout: Duration | None = None) -> Any:
        """Wait for the next signal of a name that has no handler, and return its payload as `type`.

        A payload that does not fit is put aside as a dead letter, with an incident, and the wait goes on.

        Raises:
            TimedOut: `timeout` is over; see `fail_after`.
        """
        return await self._within(timeout, commands.WaitSignal(name, codec_of(type, f"signal {name!r}")))

    async def wait_until(self, predicate: Callable[[], R | None], *, timeout: Duration | None = None) -> R:
        """Wait until `predicate()` is true, looking again after every event, and return its value.

        It must look at the run's own state only.

        Raises:
            TimedOut: `timeout` is over; see `fail_after`.
        """
        return await self._within(timeout, commands.WaitUntil(predicate))

    async def _within(self, timeout: Duration | None, command: commands.Command) -> Any:
        if timeout is None:
            return await self._driver.perform(command)
        with self.fail_after(timeout):
            return await self._driver.perform(command)
        raise AssertionError("fail_after raises when its block is cut short")

    async def side_effect(self, function: Callable[[], R]) -> R:
        """Call a plain, quick function once and record what it returns: a one-time password, a file's date.

        The value comes back as the function's annotated result type, or as plain JSON values.
        """
        kind = result_kind(hints_of(function, "side_effect").get("return", Any))
        name = getattr(function, "__name__", "side_effect").strip("<>")
        return await self._driver.perform(commands.SideEffect(name, function, codec_of(kind, "side_effect")))

    async def set_attributes(self, **changes: str | float | bool | None) -> None:
        """Change attributes of the run, by which people find it: `await ctx.set_attributes(region="eu", tries=3)`.

        None takes one away. Values are texts of up to 512 characters, numbers and truth values. When this returns,
        the change is durable and the run is listed by it.

        Raises:
            ValueError: a name or a value is not one of an attribute, or there would be more than 32.
        """
        await self._driver.perform(commands.set_attributes(self.attributes, changes))

    @property
    def attributes(self) -> dict[str, str | int | float | bool]:
        """The run's attributes as they are now: those of its start, and what was changed since."""
        return self._driver.attributes_now()

    async def emit(self, topic: str, payload: Any = None) -> None:
        """Publish an event: it is in the outbox exactly once, in the order of the journal, when this returns.

        Args:
            topic: under which it is published: 1 to 200 characters.
            payload: anything that has a JSON form.

        Raises:
            ValueError, TypeError: the topic or the payload is none.
        """
        await self._driver.perform(commands.publish_call(topic, payload))

    async def version(self, change: str, minimum: int, maximum: int) -> int:
        """Which version of a change this run keeps to: `maximum` for new code, what was recorded for older runs.

        A run that had passed here before the code was changed under it gets `minimum`.
        """
        return await self._driver.perform(commands.VersionCall(change, minimum, maximum))

    async def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """End this run and begin a new one with the same workflow id in its place: for loops that never end.

        Nothing comes after this call, no `finally` either: what has been done stays done, and its compensations are
        forgotten. The new run has a journal and a time limit of its own; it keeps the lock key, the attributes, the
        parent that waits, and whatever signals this one has not read. It uses the newest code of the workflow, if that
        takes the input. Who waits for the result waits for that of the last run.

        Args:
            args: the workflow's input, as it would be given to `ctx.run`.
            kwargs: the same, by name.

        Raises:
            TypeError, ValueError: this is no input of the workflow.
            NotDurable: other branches are under way: call it outside of nurseries and races.
        """
        await self._driver.perform(commands.ContinueAsNew(self._driver.encode_input(args, kwargs)))
        raise AssertionError("the code of a run that is continued as new went on")

    def now(self) -> datetime:
        """The time of the event that woke this code; the same in every replay."""
        return as_datetime(self._driver.now())

    @property
    def random(self) -> Random:
        """A generator of this branch, seeded by the run and the branch's path; the same in every replay."""
        return self._driver.random()

    def uuid(self) -> UUID:
        """A UUID drawn from the run's seed and this place; the same in every replay."""
        return self._driver.uuid()

    def nursery(self, name: str = "nursery", *, limit: int | None = None) -> AbstractAsyncContextManager[Nursery]:
        """Open a nursery; `limit` is how many children run at once, the others wait in order."""
        return self._driver.nursery(name, limit)

    @overload
    async def map(
        self,
        target: Step[Concatenate[T, ...], R],
        items: Iterable[T],
        /,
        *,
        name: str = "map",
        key: Callable[[T], object] | None = None,
        limit: int | None = None,
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        target: Workflow[Concatenate[T, ...], R],
        items: Iterable[T],
        /,
        *,
        name: str = "map",
        key: Callable[[T], object] | None = None,
        limit: int | None = None,
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        target: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        /,
        *,
        name: str = "map",
        key: Callable[[T], object] | None = None,
        limit: int | None = None,
    ) -> list[R]: ...

    async def map(
        self,
        target: Any,
        items: Iterable[T],
        /,
        *,
        name: str = "map",
        key: Callable[[T], object] | None = None,
        limit: int | None = None,
    ) -> list[Any]:
        """Do the same with many items side by side, in a nursery; return the results in the order of the items.

        Args:
            target: a step, a workflow (child runs) or an async function that takes one item.
            items: what it is called with, one each.
            name: the nursery's.
            key: what an item's place is called in paths, by default its number. With keys of their own, items may
                come and go in a later version of the code.
            limit: how many run at once.

        Raises:
            ExceptionGroup: what failed, as from a nursery; the others are cancelled.
        """
        async with self.nursery(name, limit=limit) as nursery:
            jobs = [
                nursery[place if key is None else key(item)].start_soon(target, item)
                for place, item in enumerate(items)
            ]
        return [job.result for job in jobs]

    def race(self, name: str = "race") -> AbstractAsyncContextManager[Race]:
        """Open a nursery that ends with its first child that returns: see `winner`."""
        return self._driver.race(name)

    def saga(self) -> AbstractAsyncContextManager[None]:
        """An inner saga: an exception that leaves it compensates its steps; left normally, they pass outward."""
        return self._driver.saga()

    def lock(self, key: str, *, timeout: Duration | None = None) -> AbstractAsyncContextManager[Lock]:
        """Hold a lock for the block: no other run, and no other branch of this one, is in a block of the same key.

        Who asks first gets it first. It is kept over crashes, also while the run is paused, and given back when the
        block is left and no cancelled step of it is still being stopped; compensations outside the block run without
        it. In a run whose own lock key this is, or inside a block of the same key, it is held already.

        Args:
            key: 1 to 512 characters; the keys of workflows (`lock_key`) are the same ones.
            timeout: how long to wait for it; 0: not at all.

        Raises:
            TimedOut: it was not to be had in time. ValueError: the key is none.
            Deadlock: another branch of this run holds it, and waits for a lock that this one holds.
        """
        limit = None if timeout is None else microseconds(timeout)
        return self._driver.lock(commands.lock_key(key), limit)

    def fail_after(self, duration: Duration) -> AbstractContextManager[Scope]:
        """Cancel the block when its time is up and raise `TimedOut` after it."""
        return self._driver.scope(self._driver.now() + microseconds(duration), shield=False, fail=True)

    def move_on_after(self, duration: Duration) -> AbstractContextManager[Scope]:
        """Cancel the block when its time is up and go on after it; see `scope.cancelled`."""
        return self._driver.scope(self._driver.now() + microseconds(duration), shield=False, fail=False)

    def cancel_scope(self) -> AbstractContextManager[Scope]:
        """A block that can be cancelled by `scope.cancel()`."""
        return self._driver.scope(None, shield=False, fail=False)

    def shield(self) -> AbstractContextManager[Scope]:
        """A block that cancellation from outside does not reach: for awaits in `finally`."""
        return self._driver.scope(None, shield=True, fail=False)
