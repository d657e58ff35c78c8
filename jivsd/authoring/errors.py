"""The exceptions of authoring, and how any exception crosses the journal and comes back."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import msgspec

from jivsd.records import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class JivsdError(Exception):
    """Base of the errors by which jivsd says that it was used wrongly."""


class InvalidDefinition(JivsdError):
    """A step, workflow or plugin is declared in a way that cannot work; the message says where and what would."""


class NotDurable(JivsdError):
    """Workflow code did something that would not be the same in a replay."""


class InvalidValue(JivsdError, ValueError):
    """A value from outside does not fit its declared type; the message names the field."""


class Failure(Exception):
    """Base for an author's own errors that carry data: `raise Declined("no funds", amount=12)`.

    Message and data (JSON values) cross the journal, so `except Declined as error: error.data["amount"]` works in
    a replay as in life. Any other exception crosses by type and message.
    """

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message)
        self.data = data


class StepFailed(Failure):
    """A step failed with an exception whose class cannot be found again; `type` is the class's name."""

    def __init__(self, message: str = "", *, type: str = "", **data: Any) -> None:
        super().__init__(message, **data)
        self.type = type

    def __str__(self) -> str:
        return f"{self.type}: {super().__str__()}" if self.type else super().__str__()


class TimedOut(Failure, TimeoutError):
    """The time of `fail_after`, of a step's attempt or of a run is up."""


class ChildFailed(Failure):
    """A child run did not complete: `data` has run_id and status, and the error's type."""


class Cancelled(BaseException):
    """Raised by every context call in a cancelled scope. Let it pass; clean up in `finally` or `ctx.shield()`.

    A BaseException, so that `except Exception` does not swallow it (the idea is trio's).
    """


class Frozen(BaseException):
    """The run leaves memory: whatever the code does from here on counts for nothing. Never catch it."""


_own: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (Failure, StepFailed, TimedOut, ChildFailed, InvalidValue, NotDurable, JivsdError)
}


def record_error(error: BaseException) -> ErrorRecord:
    """Turn an exception into the record that the journal keeps."""
    causes = [record_error(cause) for cause in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    kind = type(error).__qualname__
    data: dict[str, Any] = {}
    if isinstance(error, Failure):
        data = _as_json(error.data)
        if isinstance(error, StepFailed):
            kind = error.type or kind
    message = error.message if isinstance(error, BaseExceptionGroup) else _message(error)
    return ErrorRecord(kind, message, data, causes)


def _message(error: BaseException) -> str:
    text = Exception.__str__(error) if isinstance(error, StepFailed) else str(error)
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def _as_json(data: dict[str, Any]) -> dict[str, Any]:
    try:
        return msgspec.json.decode(msgspec.json.encode(data))
    except (TypeError, ValueError, OverflowError):
        return {key: repr(value) for key, value in data.items()}


def rebuild_error(record: ErrorRecord, namespaces: Sequence[Mapping[str, Any]] = ()) -> Exception:
    """Turn a record back into an exception.

    The class is looked up by name in `namespaces` (the globals of the workflow's and the step's modules), then
    among jivsd's and Python's own; what cannot be found or built comes back as `StepFailed`.
    """
    if record.causes:
        return ExceptionGroup(record.message, [rebuild_error(cause, namespaces) for cause in record.causes])
    kind = _find(record.type, namespaces)
    if kind is not None:
        try:
            rebuilt = kind(record.message, **record.data) if issubclass(kind, Failure) else kind(record.message)
        except Exception:  # an author's __init__ may want anything
            rebuilt = None
        if rebuilt is not None:
            return rebuilt
    return StepFailed(record.message, type=record.type, **{k: v for k, v in record.data.items() if k != "type"})


def _find(name: str, namespaces: Sequence[Mapping[str, Any]]) -> type[Exception] | None:
    head, *rest = name.split(".")
    for namespace in (*namespaces, _own, vars(builtins)):
        found: Any = namespace.get(head)
        for part in rest:
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ExceptionGroup):
            return found
    return None
