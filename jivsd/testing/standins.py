"""Stand-ins for steps: a test lets one fail, or something else be done in its place, without touching the plugin."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, cast

from jivsd.authoring.steps import Step
from jivsd.registry.loading import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jivsd.authoring.workflows import Workflow

AnyStep = Step[..., Any]


class Standins:
    """The stand-ins of one test. `restore` takes them all away."""

    def __init__(self) -> None:
        self._originals: dict[AnyStep, Callable[..., Any]] = {}

    def fail(self, steps: Iterable[AnyStep], error: BaseException, times: int | None) -> None:
        """Let steps raise an error: in so many attempts in all, or in every one; then they are what they were."""
        left = [times]
        for step in steps:
            self._put(step, _Failing(step.function, error, left))

    def replace(self, steps: Iterable[AnyStep], function: Callable[..., Any]) -> None:
        """Let a function be called in place of steps, with the same arguments.

        Raises:
            TypeError: an async function cannot stand in for a plain step.
        """
        for step in steps:
            if step.mode == "plain" and inspect.iscoroutinefunction(function):
                raise TypeError(f"{step.where} is a plain function, so a plain function stands in for it")
            self._put(step, _Replacing(step, function))

    def restore(self) -> None:
        """Take all stand-ins away."""
        for step, function in self._originals.items():
            step.function = function
        self._originals.clear()

    def _put(self, step: AnyStep, standin: Callable[..., Any]) -> None:
        self._originals.setdefault(step, step.function)
        step.function = standin


def steps_named(workflows: Iterable[Workflow[..., Any]], wanted: str | AnyStep) -> list[AnyStep]:
    """The steps of a name, compensations too, in the modules of some workflows.

    Raises:
        LookupError: there is none; the message says which there are.
    """
    name = wanted.name if isinstance(wanted, Step) else wanted
    known = dict.fromkeys(_steps_of(workflows))
    if isinstance(wanted, Step):
        known[wanted] = None
    found = [step for step in known if step.name == name]
    if not found:
        names = ", ".join(sorted({step.name for step in known})) or "none"
        raise LookupError(f"there is no step {name!r} in the plugins of this test; there are: {names}")
    return found


def _steps_of(workflows: Iterable[Workflow[..., Any]]) -> Iterator[AnyStep]:
    for namespace in _namespaces(workflows):
        for value in list(namespace.values()):
            if isinstance(value, Step):
                step = cast("AnyStep", value)
                yield step
                if step.compensation is not None:
                    yield step.compensation


def _namespaces(workflows: Iterable[Workflow[..., Any]]) -> Iterator[dict[str, Any]]:
    """The globals of the modules that workflows are written in, and of those beside them in a package."""
    packages: dict[str, None] = {}
    for workflow in workflows:
        yield workflow.namespace
        if (package := workflow.namespace.get("__package__")) and package != ROOT:
            packages[package] = None
    for package in packages:
        for name, module in list(sys.modules.items()):
            if name == package or name.startswith(f"{package}."):
                yield vars(module)


class _Standin:
    """Something callable with the globals of the function that it stands in for: errors are found again there."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__globals__ = function.__globals__


class _Failing(_Standin):
    def __init__(self, function: Callable[..., Any], error: BaseException, left: list[int | None]) -> None:
        super().__init__(function)
        self._function = function
        self._error = error
        self._left = left

    def __call__(self, *args: Any) -> Any:
        (left,) = self._left
        if left == 0:
            return self._function(*args)
        if left is not None:
            self._left[0] = left - 1
        raise self._error


class _Replacing(_Standin):
    def __init__(self, step: AnyStep, function: Callable[..., Any]) -> None:
        super().__init__(step.function)
        self._async = step.mode != "plain"
        self._function = function

    def __call__(self, *args: Any) -> Any:
        result = self._function(*args)
        return _given(result) if self._async and not inspect.isawaitable(result) else result


async def _given(value: Any) -> Any:
    return value
