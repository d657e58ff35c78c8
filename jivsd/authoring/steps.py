"""Steps: units of work with side effects."""

from __future__ import annotations

import copy as copying
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

import msgspec

from jivsd.authoring.errors import InvalidDefinition
from jivsd.authoring.paths import check_name
from jivsd.authoring.retry import Retry
from jivsd.authoring.signature import Signature, hints_of
from jivsd.clock import Duration, microseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_DETAILS: Final = 16 * 1024
"""Bytes of JSON that the details of a heartbeat may have."""

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class StepContext:
    """What a step's body may know about itself. It is the same for every attempt but for `attempt` and `fence`.

    `idempotency_key` is the same in every attempt, after every crash: hand it to outside systems that take one.
    `fence` is higher at every later owner of the run, be it another node or the same one after a crash: what must
    refuse a former owner, that stood still and goes on, keeps the highest one it has seen and compares.
    `outcome_unknown` matters in a compensation: the step may or may not have happened, its result is None.
    """

    __slots__ = (
        "attempt",
        "correlation_id",
        "fence",
        "idempotency_key",
        "outcome_unknown",
        "path",
        "run_id",
        "workflow_id",
    )

    def __init__(
        self,
        *,
        run_id: str,
        workflow_id: str,
        path: str,
        attempt: int,
        idempotency_key: str,
        outcome_unknown: bool = False,
        correlation_id: str | None = None,
        fence: int = 0,
    ) -> None:
        self.run_id = run_id
        self.workflow_id = workflow_id
        self.path = path
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.outcome_unknown = outcome_unknown
        self.correlation_id = correlation_id
        self.fence = fence

    def heartbeat(self, details: Any = None, *, done: float | None = None, total: float | None = None) -> None:
        """Say that the step is at work, and how far it is: `ctx.heartbeat({"last": key}, done=4000, total=10_000)`.

        Call it as often as you like, from any thread: it costs a microsecond or two and writes nothing by itself.
        What is left out stays as it was said last. People see it at once (`jivsd show`); the details, any JSON value,
        are for the next attempt: see `last_details`. With a `heartbeat_timeout`, an attempt that says nothing for so
        long is stopped and counts as failed, with an unknown outcome.

        Raises:
            Cancelled: in a plain step, which nothing else can stop: it was cancelled, or its time is up. Let it pass.
            ValueError, TypeError: the details have no JSON form or are over 16 KiB; `done` or `total` is no number
                from 0 on.
        """
        checked(details, done, total)

    @overload
    def last_details(self, type: type[R], /) -> R | None: ...
    @overload
    def last_details(self, /) -> Any: ...

    def last_details(self, type: Any = Any, /) -> Any:
        """The details that the last heartbeat with details of an earlier attempt had; None if there was none.

        They are there after an attempt that failed or was timed out, and after the daemon was stopped in order.
        After a `kill -9` or a power cut they may be up to five seconds old, and there are none of an attempt that was
        killed within five seconds of its first heartbeat: so take up the work there in a way that may repeat some.
        """
        return None


def checked(details: Any, done: float | None, total: float | None) -> bytes | None:
    """The details of a heartbeat as JSON, None as None.

    Raises:
        ValueError, TypeError: see `StepContext.heartbeat`.
    """
    for name, number in (("done", done), ("total", total)):
        if number is not None and not 0 <= number < inf:
            raise ValueError(f"{name} of a heartbeat is {number!r}; it is a number from 0 on")
    if details is None:
        return None
    data = msgspec.json.encode(details)
    if len(data) > MAX_DETAILS:
        raise ValueError(f"the details of a heartbeat are {len(data):,} bytes long, at most {MAX_DETAILS:,}")
    return data


Parameters = Sequence[Any] | Mapping[str, Any]


class Transaction(Protocol):
    """A transaction in jivsd's own database whose commit also records the step.

    A step whose first parameter is a `Transaction` may await only its methods, which are those of no other object: the
    same plugin runs on SQLite and on PostgreSQL where its SQL does. Parameters are given in order for `?`, by name for
    `:name`; PostgreSQL's own `$1` is understood, too. On SQLite a step has 100 ms, in the thread that writes; on
    PostgreSQL a connection of its own, and 60 s if it has no `timeout`.
    """

    def execute(self, sql: str, parameters: Parameters = (), /) -> Awaitable[int]:
        """Run one statement, or several without parameters; the number of rows that the last one changed."""
        ...

    def fetch(self, sql: str, parameters: Parameters = (), /) -> Awaitable[list[dict[str, Any]]]:
        """Run one query; its rows, each by column name."""
        ...

    def fetchrow(self, sql: str, parameters: Parameters = (), /) -> Awaitable[dict[str, Any] | None]:
        """Run one query; its first row by column name, or None."""
        ...

    def fetchval(self, sql: str, parameters: Parameters = (), /) -> Awaitable[Any]:
        """Run one query; the first value of its first row, or None."""
        ...


Mode = Literal["async", "plain", "transaction"]
Cancel = Literal["abandon", "wait"]
Exhausted = Literal["fail", "incident"]


class Step(Generic[P, R]):
    """A function made durable by `@step`; call it with `ctx.step(f, ...)`.

    Raises:
        InvalidDefinition: from `@step`, when the declaration cannot work.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        cancel: Cancel = "abandon",
        on_exhausted: Exhausted = "fail",
    ) -> None:
        if not inspect.isfunction(function):
            raise InvalidDefinition(f"@step is for functions, not for {function!r}")
        self.name = check_name(name or function.__name__, "a step's name")
        self.where = f"step {self.name!r}"
        self.function = function
        self.mode: Mode = "async" if inspect.iscoroutinefunction(function) else "plain"
        self.retry = _retry(retry, self.where)
        self.timeout = limit_of(timeout, self.where)
        self.cancel: Cancel = _one_of(cancel, Cancel, self.where, "cancel")
        self.on_exhausted: Exhausted = _one_of(on_exhausted, Exhausted, self.where, "on_exhausted")
        self.compensation: Step[..., Any] | None = None
        first = _first_annotation(function, self.where)
        self.wants_context = first is StepContext
        if first is Transaction:
            if self.mode == "plain":
                raise InvalidDefinition(f"{self.where}: a transaction step is an async function")
            self.mode = "transaction"
        elif inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidDefinition(f"{self.where} is a generator; a step returns one value")
        self.heartbeat_timeout = self._silence(heartbeat_timeout)
        self.skip = 1 if self.wants_context or self.mode == "transaction" else 0
        self.signature = Signature(function, self.skip, self.where)

    def options(
        self,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        cancel: Cancel | None = None,
        on_exhausted: Exhausted | None = None,
    ) -> Step[P, R]:
        """A copy with other options, for one call: `ctx.step(copy.options(timeout="1h"), table)`."""
        other: Step[P, R] = copying.copy(self)
        if name is not None:
            other.name = check_name(name, "a step's name")
        if retry is not None:
            other.retry = _retry(retry, self.where)
        if timeout is not None:
            other.timeout = limit_of(timeout, self.where)
        if heartbeat_timeout is not None:
            other.heartbeat_timeout = self._silence(heartbeat_timeout)
        if cancel is not None:
            other.cancel = _one_of(cancel, Cancel, self.where, "cancel")
        if on_exhausted is not None:
            other.on_exhausted = _one_of(on_exhausted, Exhausted, self.where, "on_exhausted")
        return other

    def _silence(self, limit: Duration | None) -> int | None:
        if limit is not None and not self.wants_context:
            raise InvalidDefinition(
                f"{self.where} has a heartbeat_timeout, but no StepContext as its first parameter to beat with"
            )
        return limit_of(limit, self.where, "heartbeat_timeout")

    @overload
    def compensate(self, function: Callable[..., Any], /) -> Step[..., Any]: ...

    @overload
    def compensate(
        self,
        /,
        *,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
    ) -> Callable[[Callable[..., Any]], Step[..., Any]]: ...

    def compensate(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
    ) -> Any:
        """Declare how the step is undone, as a decorator: `@copy.compensate`.

        The function gets the step's result, or None when its outcome is unknown, and then the step's arguments.
        It is itself a step, at least once, with retries of its own.
        """

        def register(function: Callable[..., Any]) -> Step[..., Any]:
            undo: Step[..., Any] = Step(
                function, retry=retry, timeout=timeout, heartbeat_timeout=heartbeat_timeout, on_exhausted="incident"
            )
            check_undoes(undo, self.signature)
            self.compensation = undo
            return undo

        return register if function is None else register(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the plain function, for tests of the body; in a workflow use `ctx.step`."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[StepContext, P], Awaitable[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Transaction, P], Awaitable[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[StepContext, P], R], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(function: Callable[Concatenate[StepContext, P], Awaitable[R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[Concatenate[Transaction, P], Awaitable[R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[Concatenate[StepContext, P], R], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    cancel: Cancel = "abandon",
    on_exhausted: Exhausted = "fail",
) -> _Decorator: ...


def step(function: Any = None, /, **options: Any) -> Any:
    """Declare a step. Async functions run on trio, plain ones in a bounded thread pool.

    The first parameter may be annotated `StepContext`, or `Transaction` for a step that writes to jivsd's own
    database exactly once. `retry`: when it is tried again. `timeout`: for one attempt. `heartbeat_timeout`: how
    long an attempt may go without a `ctx.heartbeat()` before it is stopped and counts as failed. `cancel`: what
    cancelling its scope means: "abandon" (the workflow goes on at once) or "wait" (until the step has settled).
    `on_exhausted`: when all attempts have failed, "fail" (raise in the workflow) or "incident" (hold the run until
    a person decides).

    Raises:
        InvalidDefinition: the declaration cannot work; the message says why.
    """
    if function is not None:
        return _declared(function, **options)
    return partial(_declared, **options)


def _declared(function: Callable[..., Any], /, **options: Any) -> Step[..., Any]:
    return Step(function, **options)


def check_undoes(undo: Step[..., Any], done: Signature) -> None:
    """Check that a compensation takes what it will be given: a result and the arguments of what it undoes.

    Raises:
        InvalidDefinition: it takes more or fewer.
    """
    if len(undo.signature.names) != 1 + len(done.names):
        raise InvalidDefinition(
            f"{undo.where} compensates {done.where}, so it takes {1 + len(done.names)} arguments: "
            f"the result (or None), then the arguments: {', '.join(done.names) or 'none'}"
        )


def limit_of(timeout: Duration | None, where: str, option: str = "timeout") -> int | None:
    """A declared timeout in microseconds.

    Raises:
        InvalidDefinition: it cannot be read, or is not positive.
    """
    if timeout is None:
        return None
    try:
        limit = microseconds(timeout)
    except (ValueError, TypeError) as error:
        raise InvalidDefinition(f"{where}: {option}: {error}") from None
    if limit <= 0:
        raise InvalidDefinition(f"{where}: {option} is {timeout!r}; it must be longer than nothing")
    return limit


def _retry(retry: Retry | None, where: str) -> Retry:
    if retry is None:
        return Retry()
    if not isinstance(retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance]: authors may not use a type checker
        raise InvalidDefinition(f"{where}: retry is {retry!r}; it is a Retry, such as Retry(attempts=5)")
    return retry


def _one_of(value: Any, allowed: Any, where: str, option: str) -> Any:
    if value not in allowed.__args__:
        raise InvalidDefinition(f"{where}: {option} is {value!r}; allowed: {', '.join(map(repr, allowed.__args__))}")
    return value


def _first_annotation(function: Callable[..., Any], where: str) -> Any:
    names = list(inspect.signature(function).parameters)
    return hints_of(function, where).get(names[0]) if names else None
