"""Updates: messages that change a run and are answered, as methods of a workflow class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from jivsd.authoring.context import Context
from jivsd.authoring.errors import InvalidDefinition
from jivsd.authoring.paths import check_name
from jivsd.authoring.signature import Signature, hints_of

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=Callable[..., None])

GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class UpdateHandler(msgspec.Struct, frozen=True):
    """An update as its workflow knows it. `working`: it is async, and gets a Context before its parameters."""

    name: str
    function: Callable[..., Any]
    signature: Signature
    check: Callable[..., None] | None
    working: bool


class Update(Generic[F]):
    """A method made an update by `@update`. `@name.validator` marks the method that may refuse it."""

    def __init__(self, function: F, name: str) -> None:
        self.function = function
        self.name = check_name(name, "an update's name")
        self.check: Callable[..., None] | None = None

    def validator(self, check: C, /) -> C:
        """Mark a plain method that takes the same parameters, looks at the run's state and changes nothing.

        What it raises refuses the update. It is asked before the update is accepted, and again when it is applied.
        """
        self.check = check
        return check

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Update[F]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any], /) -> Any: ...

    def __get__(self, instance: object | None, owner: type[Any], /) -> Any:
        return self if instance is None else self.function.__get__(instance, owner)

    def handler(self, where: str) -> UpdateHandler:
        """Check the declaration.

        Raises:
            InvalidDefinition: it cannot work; the message says why.
        """
        function = self.function
        where = f"{where}, update {self.name!r}"
        if not inspect.isfunction(function) or function.__code__.co_flags & GENERATOR:
            raise InvalidDefinition(f"{where}: it is a method, plain or async: not static or a generator")
        working = inspect.iscoroutinefunction(function)
        if working:
            names = list(inspect.signature(function).parameters)[1:2]
            if not names or hints_of(function, where).get(names[0], Context) is not Context:
                raise InvalidDefinition(f"{where} is async, so its first parameter is the Context: `ctx: Context`")
        signature = Signature(function, 2 if working else 1, where)
        if self.check is not None:
            check = self.check
            if not inspect.isfunction(check) or check.__code__.co_flags & (GENERATOR | inspect.CO_COROUTINE):
                raise InvalidDefinition(f"{where}: its validator is a plain method")
            taken = Signature(check, 1, f"{where}, its validator").names
            if len(taken) != len(signature.names):
                listed = ", ".join(signature.names) or "none"
                raise InvalidDefinition(f"{where}: its validator takes the update's parameters: {listed}")
        return UpdateHandler(self.name, function, signature, self.check, working)


@overload
def update(function: F, /) -> Update[F]: ...
@overload
def update(name: str, /) -> Callable[[F], Update[F]]: ...


def update(target: Any, /) -> Any:
    """Mark a method that an update of its name calls; what it returns is the answer, what it raises the refusal.

    A plain method changes state and answers at once. An async one takes a Context first and may run steps, wait and
    so on, beside the run's own code; the run does not end before it. What it raises goes to the caller alone.
    """
    if isinstance(target, str):
        return partial(Update, name=target)
    return Update(target, getattr(target, "__name__", ""))
