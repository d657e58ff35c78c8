"""Reading requests and writing answers: what the routes of every noun share."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_origin

import msgspec
import trio

from jivsd import jsonguard
from jivsd.admin.exchange import JSON, Response, asked, parameters_of
from jivsd.admin.problems import Problem
from jivsd.admin.wire import BY_HEADER, MAX_WAIT, instant
from jivsd.clock import SECOND, microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jivsd.admin.patience import Patience

Handler = Callable[..., Awaitable[Response]]
Route = tuple[str, str, Handler]
"""Method, path below the prefix, and the coroutine function that answers."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a route takes and answers, apart from problems, for the API's description."""

    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    required: bool = False
    """Whether there has to be a body."""
    answers: dict[int, Any]
    """By status, the type of the JSON; None: it is something else."""


Called = TypeVar("Called", bound=Handler)


def operation(
    *,
    query: type[msgspec.Struct] | None = None,
    body: type[msgspec.Struct] | None = None,
    required: bool = False,
    answers: Mapping[int, Any] | None = None,
) -> Callable[[Called], Called]:
    """Describe a handler: see `Operation`."""

    def describe(handler: Called) -> Called:
        described = Operation(query=query, body=body, required=required, answers=dict(answers or {}))
        handler.__dict__["operation"] = described
        return handler

    return describe


LARGE: Final = 16 * 1024
"""Bytes of JSON that are checked at once, in about a millisecond."""

LISTED: Final = frozenset({"status", "kind"})
"""Those query parameters that may be given several times may also be given with commas."""

_NAMED = re.compile(r"Object (contains unknown|missing required) field `(.*?)`(?: - at `\$\.?(.*)`)?", re.DOTALL)
_PLACED = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
CONTROL = re.compile(r"[\0-\x1f\x7f]")
_PERSON_LIMIT = 100
_BY: Final = BY_HEADER.lower().encode()
_one: Final = trio.CapacityLimiter(1)

Kind = TypeVar("Kind", bound=msgspec.Struct)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as a JSON response."""
    return Response(msgspec.json.encode(value), status, headers or {}, JSON)


async def body_of(kind: type[Kind], *, required: bool = True) -> Kind:
    """The request's body as a `kind`; `kind()` if there is none and none is required.

    Raises:
        BadJson: it is not JSON that jivsd accepts.
        Problem: it does not fit (422), naming the field.
    """
    data = asked().body
    if not data and not required:
        return kind()
    await checked(data)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise misfit(error, kind.__struct_fields__, "body") from None


async def checked(data: bytes) -> None:
    """See `jsonguard.check`; what is large is checked beside the loop, which would stand still for so long.

    Raises:
        BadJson: it is not JSON that jivsd accepts.
    """
    if len(data) > LARGE:
        await trio.to_thread.run_sync(jsonguard.check, data, limiter=_one)
    else:
        jsonguard.check(data)


def query_of(kind: type[Kind], query_string: bytes | None = None) -> Kind:
    """The query parameters of the request, or those given, as a `kind`.

    Raises:
        Problem: one is unknown, given twice, or of the wrong form (422).
    """
    query_string = asked().query_string if query_string is None else query_string
    if not query_string:
        return kind()
    found: dict[str, Any] = {}
    several = _several(kind)
    for name, values in parameters_of(query_string).items():
        if name in several:
            found[name] = [part for value in values for part in value.split(",")] if name in LISTED else values
        elif len(values) > 1:
            raise Problem(422, "invalid", f"the query parameter `{name}` is given {len(values)} times", {"field": name})
        else:
            found[name] = values[0]
        if any(CONTROL.search(value) for value in values):
            raise Problem(
                422, "invalid", f"the query parameter `{name}` has a control character in it", {"field": name}
            )
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise misfit(error, kind.__struct_fields__, "query") from None


@cache
def _several(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that are lists: parameters that may be given several times."""
    return frozenset(field.name for field in msgspec.structs.fields(kind) if get_origin(field.type) is list)


def misfit(error: msgspec.ValidationError, known: Iterable[str], whole: str) -> Problem:
    """Say which field does not fit, and what would."""
    message = str(error)
    if named := _NAMED.fullmatch(message):
        inside = f"{named[3]}." if named[3] else ""
        field = inside + named[2]
        if named[1] == "missing required":
            detail = f"the field `{field}` of the {whole} is missing"
        else:
            hint = "" if inside else f"; known are {', '.join(known) or 'none'}"
            detail = f"the field `{field}` of the {whole} is unknown{hint}"
    elif placed := _PLACED.fullmatch(message):
        field = placed[2]
        detail = f"the field `{field}` of the {whole} does not fit: {placed[1][0].lower()}{placed[1][1:]}"
    else:
        return Problem(422, "invalid", f"the {whole} does not fit: {message[0].lower()}{message[1:]}")
    return Problem(422, "invalid", detail, {"field": field})


def duration(text: str, field: str) -> int:
    """A duration from outside, in microseconds.

    Raises:
        Problem: it is not one (422).
    """
    try:
        return microseconds(text)
    except (ValueError, OverflowError) as error:
        raise Problem(422, "invalid", f"the field `{field}` does not fit: {error}", {"field": field}) from None


def moment_of(time: datetime | None, field: str) -> int | None:
    """A time from outside as journal time, None as None.

    Raises:
        Problem: it has no time zone (422).
    """
    try:
        return instant(time)
    except ValueError:
        detail = f"the field `{field}` does not fit: it needs a time zone, as in 2026-11-30T12:00:00Z"
        raise Problem(422, "invalid", detail, {"field": field}) from None


def wait_seconds(text: str | None) -> float:
    """How long to hold the request back for a result: at most a minute, whatever is asked for."""
    if text is None:
        return 0.0
    return min(max(duration(text, "wait") / SECOND, 0.0), MAX_WAIT)


def once_key(given: str | None, field: str) -> str | None:
    """The key by which a request is recognised when it comes again: from the body or the header Idempotency-Key.

    Raises:
        Problem: both are there and differ, or the header is no key (422).
    """
    header = asked().header(b"idempotency-key")
    if header is None:
        return given
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not key or not key.isprintable():
        raise Problem(422, "invalid", "the header Idempotency-Key must be printable text", {"field": "Idempotency-Key"})
    if given is not None and given != key:
        detail = f"the header Idempotency-Key and the field `{field}` differ: send one of them"
        raise Problem(422, "invalid", detail, {"field": field})
    return key


def patience() -> Patience:
    """What a request that waits has to wait by. Others may look things up meanwhile."""
    request = asked()
    if request.look is not None:
        request.look.give_back()
    return request.state["patience"]


def caller() -> str:
    """Who asks, for the record.

    On the Unix socket the kernel vouches for the user; the name that a program gives is put before it, never in its
    place. Over TCP there is only that name.
    """
    request = asked()
    named = (request.header(_BY) or "").strip()[:_PERSON_LIMIT]
    if not named.isprintable():
        named = ""
    vouched = request.state.get("user") or "http"
    return vouched if named in ("", vouched) else f"{named} ({vouched})"
