"""The exceptions of authoring, and how any exception crosses the journal and comes back."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, Final, cast

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


class Deadlock(JivsdError):
    """A run would wait for ever for a lock that it holds itself."""


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


class NotDelivered(Failure):
    """A signal to another run was refused: there is no such run, it has ended, or the payload does not fit."""


class Cancelled(BaseException):
    """Raised by every context call in a cancelled scope. Let it pass; clean up in `finally` or `ctx.shield()`.

    A BaseException, so that `except Exception` does not swallow it (the idea is trio's).
    """


class Frozen(BaseException):
    """The run leaves memory: whatever the code does from here on counts for nothing. Never catch it."""


MESSAGE_LIMIT: Final = 16 * 1024
"""How many characters of an exception's message cross the journal."""

_own: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        *(Failure, StepFailed, TimedOut, ChildFailed, NotDelivered),
        *(InvalidValue, NotDurable, Deadlock, JivsdError),
    )
}


def record_error(error: BaseException) -> ErrorRecord:
    """Turn an exception into the record that the journal keeps."""
    kind = type(error).__qualname__
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return ErrorRecord(kind, _storable(group.message), {}, [record_error(cause) for cause in group.exceptions])
    data: dict[str, Any] = {}
    if isinstance(error, Failure):
        data = _as_json(getattr(error, "data", None))  # an author's __init__ may forget super's
        if isinstance(error, StepFailed):
            kind = error.type or kind
    return ErrorRecord(kind, _storable(_message(error)), data)


def _message(error: BaseException) -> str:
    if isinstance(error, StepFailed):
        return Exception.__str__(error)  # its own has the type in front, which would come again at every crossing
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])  # its own is a repr, which would be quoted again at every crossing
    try:
        return str(error)
    except Exception as second:  # an author's __str__ may raise anything
        return f"its __str__ raised {type(second).__name__}"


def _storable(text: str) -> str:
    """What JSON, and later PostgreSQL, can hold of a text."""
    if len(text) > MESSAGE_LIMIT:
        text = text[: MESSAGE_LIMIT - 1] + "…"
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="backslashreplace").decode()


def _as_json(data: dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {}
    try:
        return msgspec.json.decode(msgspec.json.encode(data))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {_storable(str(key)): _storable(_shown(value)) for key, value in data.items()}


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # an author's __repr__ may raise anything; a deep list's is too deep
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def rebuild_error(record: ErrorRecord, namespaces: Sequence[Mapping[str, Any]] = ()) -> Exception:
    """Turn a record back into an exception.

    The class is looked up by name in `namespaces` (the globals of the workflow's and the step's modules), then
    among jivsd's and Python's own; what cannot be found or built comes back as `StepFailed`. A `Failure` is always
    built, if need be without its `__init__`.
    """
    if record.causes:
        return ExceptionGroup(record.message, [rebuild_error(cause, namespaces) for cause in record.causes])
    kind = _find(record.type, namespaces)
    try:
        if kind is not None:
            return kind(record.message, **record.data) if issubclass(kind, Failure) else kind(record.message)
    except Exception:  # an author's __init__ may want anything
        if kind is not None and issubclass(kind, Failure):
            return _without_init(kind, record)
    failed = StepFailed(record.message, type=record.type)
    failed.data = record.data
    return failed


def _without_init(kind: type[Failure], record: ErrorRecord) -> Failure:
    """A Failure is its message and its data: a subclass whose `__init__` wants something else is rebuilt from them."""
    rebuilt = kind.__new__(kind, record.message)
    rebuilt.args = (record.message,)
    rebuilt.data = record.data
    return rebuilt


def _find(name: str, namespaces: Sequence[Mapping[str, Any]]) -> type[Exception] | None:
    head, *rest = name.split(".")
    for namespace in (*namespaces, _own, vars(builtins)):
        found: Any = namespace.get(head)
        for part in rest:
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ExceptionGroup):
            return found
    return None
