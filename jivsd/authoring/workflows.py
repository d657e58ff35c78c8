"""Workflows: the code whose progress is journaled, as a function or as a class with signals, updates and queries."""

from __future__ import annotations

import copy as copying
import inspect
import string
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from jivsd.authoring.context import Context
from jivsd.authoring.errors import InvalidDefinition
from jivsd.authoring.paths import check_name
from jivsd.authoring.signature import Codec, Signature, hints_of
from jivsd.authoring.steps import check_undoes, limit_of
from jivsd.authoring.updates import Update, UpdateHandler

if TYPE_CHECKING:
    from jivsd.authoring.steps import Step
    from jivsd.clock import Duration

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


SIGNAL_MARK: Final = "__jivsd_signal__"
QUERY_MARK: Final = "__jivsd_query__"
NOT_PLAIN: Final = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class _HasRun(Protocol[P, R_co]):
    @property
    def run(self) -> Callable[Concatenate[Context, P], Awaitable[R_co]]: ...


class Handler(msgspec.Struct, frozen=True):
    """A signal's or query's method and the parameters that it takes."""

    name: str
    function: Callable[..., Any]
    signature: Signature


class Workflow(Generic[P, R]):
    """A workflow type, made by `@workflow`. `ctx.run(it, ...)` starts it as a child run."""

    def __init__(
        self,
        name: str,
        target: Any,
        *,
        lock_key: str | None = None,
        timeout: Duration | None = None,
        signals: Mapping[str, Any] | None = None,
        active_runs: int | None = None,
        running_steps: int | None = None,
    ) -> None:
        self.name = check_name(name, "a workflow's name")
        self.where = f"workflow {name!r}"
        self.factory: type[Any] | None = target if inspect.isclass(target) else None
        self.function: Callable[..., Any] = _body(target, self.where)
        self.description = inspect.getdoc(target) or ""
        self.signature = Signature(self.function, 2 if self.factory else 1, self.where)
        self.timeout = limit_of(timeout, self.where)
        self.active_runs = _at_least_one("active_runs", active_runs, self.where)
        self.running_steps = _at_least_one("running_steps", running_steps, self.where)
        self.lock_key = lock_key
        self.lock_fields: tuple[str, ...] = _lock_fields(lock_key, self.signature, self.where)
        self.signals: dict[str, Handler] = {}
        self.queries: dict[str, Handler] = {}
        self.updates: dict[str, UpdateHandler] = {}
        self.messages = {
            check_name(key, "a signal's name"): Codec(kind, f"{self.where}, signal {key!r}")
            for key, kind in (signals or {}).items()
        }
        self.id: str | None = None
        self.compensation: Step[..., Any] | None = None
        self.code_hash = ""
        """Set by the registry that loads it."""
        self.is_copy = False
        """Made by `options`: for one call, not a workflow type of its own."""
        if self.factory is not None:
            self._collect(self.factory)

    @property
    def namespace(self) -> dict[str, Any]:
        """The globals of the module that it is written in: where its exception classes are found again."""
        return self.function.__globals__

    def make(self) -> Callable[..., Any]:
        """A fresh run's body, and (as its `__self__`) the instance if it is a class."""
        if self.factory is None:
            return self.function
        return self.factory().run

    def options(
        self, *, id: str | None = None, timeout: Duration | None = None, compensate: Step[..., Any] | None = None
    ) -> Workflow[P, R]:
        """A copy for one child run: its workflow id, its timeout, and the step that undoes it once it is completed.

        `compensate` gets the child's result (or None), then the child's arguments.
        """
        other: Workflow[P, R] = copying.copy(self)
        other.is_copy = True
        other.id = id if id is not None else self.id
        other.timeout = limit_of(timeout, self.where) if timeout is not None else self.timeout
        if compensate is not None:
            check_undoes(compensate, self.signature)
            other.compensation = compensate
        return other

    def lock_key_of(self, arguments: tuple[Any, ...]) -> str | None:
        """The lock key of a run with these (decoded) arguments."""
        if self.lock_key is None:
            return None
        values = dict(zip(self.signature.names, arguments, strict=True))
        if len(arguments) == 1 and isinstance(arguments[0], msgspec.Struct):
            values |= {name: getattr(arguments[0], name) for name in arguments[0].__struct_fields__}
        return self.lock_key.format_map(values)

    def _collect(self, factory: type[Any]) -> None:
        try:
            factory()
        except TypeError as error:
            raise InvalidDefinition(f"{self.where}: its class is made without arguments, but {error}") from None
        for name in dict.fromkeys(name for owner in reversed(factory.__mro__[:-1]) for name in vars(owner)):
            value = inspect.getattr_static(factory, name)
            if not name.startswith("__") and not _hashable(value):  # that is how dataclasses tell a mutable default
                raise InvalidDefinition(
                    f"{self.where}: class attribute {name!r} is a mutable {type(value).__name__}, shared by all "
                    "runs; set it in __init__"
                )
            self._handle("signal", getattr(value, SIGNAL_MARK, None), value, self.signals)
            self._handle("query", getattr(value, QUERY_MARK, None), value, self.queries)
            if isinstance(value, Update):
                self._handle_update(cast("Update[Any]", value))

    def _handle(self, what: str, handled: str | None, function: Any, handlers: dict[str, Handler]) -> None:
        if handled is None:
            return
        where = f"{self.where}, {what} {handled!r}"
        if not inspect.isfunction(function) or function.__code__.co_flags & NOT_PLAIN:
            raise InvalidDefinition(f"{where}: it is a plain method: not async, static or a generator")
        if handled in handlers:
            raise InvalidDefinition(
                f"{where} has two methods, {handlers[handled].function.__name__!r} and {function.__name__!r}"
            )
        if what == "signal" and handled in self.messages:
            raise InvalidDefinition(f"{where} has a method, so that it is not one that signals= declares")
        handlers[handled] = Handler(handled, function, Signature(function, 1, where))

    def _handle_update(self, declared: Update[Any]) -> None:
        handler = declared.handler(self.where)
        if handler.name in self.updates:
            other = self.updates[handler.name].function.__name__
            raise InvalidDefinition(
                f"{self.where}, update {handler.name!r} has two methods, {other!r} and {handler.function.__name__!r}"
            )
        self.updates[handler.name] = handler

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        """Call the bare function or make the class; only tests of parts need it.

        Typed so that a workflow is not taken for an async function by `start_soon`, which would hide its parameters.
        """
        return (self.factory or self.function)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


class _Decorator(Protocol):
    @overload
    def __call__(self, target: type[_HasRun[P, R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[Context, P], Awaitable[R]], /) -> Workflow[P, R]: ...


def workflow(
    name: str,
    /,
    *,
    lock_key: str | None = None,
    timeout: Duration | None = None,
    signals: Mapping[str, Any] | None = None,
    active_runs: int | None = None,
    running_steps: int | None = None,
) -> _Decorator:
    """Declare a workflow: an async function of a Context and the input, or a class with such a method `run`.

    `lock_key`: runs with one key exclude each other; `{field}` stands for a field of the input. `timeout`: for the
    whole run. `signals`: the types of signals that are waited for by name; others may carry any JSON. `active_runs` and
    `running_steps`: while so many of its runs do something, or so many of their steps run, new ones wait for room.

    Raises:
        InvalidDefinition: the declaration cannot work; the message says why.
    """

    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]: the decorator without its parentheses
        raise InvalidDefinition(f'@workflow needs a name: @workflow("{getattr(name, "__name__", "name")}")')

    def register(target: Any, /) -> Any:
        declared: Workflow[..., Any] = Workflow(
            name,
            target,
            lock_key=lock_key,
            timeout=timeout,
            signals=signals,
            active_runs=active_runs,
            running_steps=running_steps,
        )
        return declared

    return register


@overload
def signal(function: F, /) -> F: ...
@overload
def signal(name: str, /) -> Callable[[F], F]: ...


def signal(function: Any, /) -> Any:
    """Mark a plain method that a signal of its name calls: it changes state, cancels a scope, starts a keyed child."""
    return _marked(SIGNAL_MARK, function)


@overload
def query(function: F, /) -> F: ...
@overload
def query(name: str, /) -> Callable[[F], F]: ...


def query(function: Any, /) -> Any:
    """Mark a plain method that answers a question about the run's state and changes nothing."""
    return _marked(QUERY_MARK, function)


def _at_least_one(what: str, value: Any, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidDefinition(f"{where}: {what} is a whole number from 1, not {value!r}")
    return value


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _marked(mark: str, target: Any) -> Any:
    if isinstance(target, str):
        return partial(_attach, mark, target)
    return _attach(mark, target.__name__, target)


def _attach(mark: str, name: str, function: Any) -> Any:
    setattr(function, mark, check_name(name, "a handler's name"))
    return function


def _body(target: Any, where: str) -> Callable[..., Any]:
    function = getattr(target, "run", None) if inspect.isclass(target) else target
    if not inspect.iscoroutinefunction(function):
        wanted = "an `async def run(self, ctx, ...)`" if inspect.isclass(target) else "an async function (ctx, ...)"
        raise InvalidDefinition(f"{where} needs {wanted}")
    names = list(inspect.signature(function).parameters)[1 if inspect.isclass(target) else 0 :]
    if not names or hints_of(function, where).get(names[0], Context) is not Context:
        raise InvalidDefinition(f"{where}: its first parameter is the Context: `ctx: Context`")
    return function


def _lock_fields(lock_key: str | None, signature: Signature, where: str) -> tuple[str, ...]:
    if lock_key is None:
        return ()
    try:
        parts = list(string.Formatter().parse(lock_key))
    except ValueError as error:
        raise InvalidDefinition(f"{where}: lock_key {lock_key!r}: {error}") from None
    fields = tuple(field for _, field, _, _ in parts if field is not None)
    if any(form or conversion for _, _, form, conversion in parts):
        raise InvalidDefinition(f"{where}: lock_key {lock_key!r}: fields stand in it as {{name}}, without a format")
    allowed = set(signature.names) | signature.struct_fields()
    for field in fields:
        if field not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise InvalidDefinition(f"{where}: lock_key names {{{field}}}, but the input's fields are: {known}")
    return fields
