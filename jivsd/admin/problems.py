"""Errors as RFC 9457 problem documents: what went wrong, for people and for programs, and nothing of the inside."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from werkzeug.exceptions import HTTPException

from jivsd import logs
from jivsd.engine.api import Conflict, EngineError, Gone, Invalid, NotFound, Unavailable, UpdateFailed
from jivsd.jsonguard import BadJson
from jivsd.records import new_id
from jivsd.store.api import BadCursor, DamagedRow, StoreAway
from jivsd.store.feed import FeedGone

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/problem+json"
RESERVED: Final = frozenset({"type", "title", "status", "detail", "code"})
"""The members that every problem has. A fact of the same name (a run's status) is called `run_status` and so on."""

_TITLES: Final = {
    "bad_json": "The body is not acceptable JSON",
    "bad_request": "The request is not understood",
    "damaged": "The journal is damaged",
    "ended": "The run has ended",
    "forbidden": "The token's role does not allow this",
    "gone": "It is not there any more",
    "host": "This host name is not served",
    "internal": "Something went wrong inside",
    "invalid": "The request does not fit",
    "key_reused": "The idempotency key was used with another input",
    "locked": "The lock is held",
    "open": "The workflow id has an open run",
    "quarantined": "The workflow is quarantined",
    "origin": "Requests from this origin are not accepted",
    "state": "It does not fit the present state",
    "update_failed": "The update was refused or failed",
    "unauthorized": "A valid token is needed",
}
_ENGINE_STATUS: Final[tuple[tuple[type[EngineError], int], ...]] = (
    (Invalid, 422),
    (NotFound, 404),
    (Conflict, 409),
    (Gone, 410),
    (Unavailable, 503),
    (UpdateFailed, 422),
)
_HTTP_CODES: Final = {
    404: ("unknown_address", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not take this method"),
    408: ("timeout", "the body did not arrive in time"),
    413: ("too_large", "the body is too large"),
}
BUSY: Final = {"Retry-After": "1"}
"""Headers of an answer to what would have been too much at once."""

_log = logs.get("jivsd.admin")


class ProblemView(msgspec.Struct, frozen=True):
    """What is wrong with a request; further members are facts for programs, such as `run_id` or `field`."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Problem(Exception):
    """An error with its HTTP status. `code` is stable, for programs; `detail` is one sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        data: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", **(headers or {})}
        self.data = {f"run_{name}" if name in RESERVED else name: value for name, value in (data or {}).items()}

    def document(self) -> bytes:
        """The problem document."""
        return msgspec.json.encode(
            {
                "type": f"urn:jivsd:problem:{self.code}",
                "title": _TITLES.get(self.code) or HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                **self.data,
            },
            enc_hook=str,
        )


def problem_of(error: BaseException) -> Problem:
    """The problem that an exception from a request is; one that nobody foresaw is logged, and hidden."""
    match error:
        case Problem():
            return error
        case BadJson(code="too_large"):
            return Problem(413, "too_large", f"the body is {error}")
        case BadJson():
            return Problem(400, "bad_json", f"the body is not accepted: {error}", {"problem": error.code})
        case ExceptionGroup():
            return problem_of(error.exceptions[0])
        case EngineError():
            return _of_engine(error)
        case StoreAway():
            return Problem(503, "unavailable", f"the store is away: {error}", headers={"Retry-After": "5"})
        case FeedGone():
            return Problem(410, "gone", str(error), {"field": "after"})
        case BadCursor():
            return Problem(422, "invalid", str(error), {"field": "cursor"})
        case DamagedRow():
            return Problem(500, "damaged", str(error), {"run_id": error.run_id, "seq": error.seq})
        case HTTPException(code=int() as status) if status >= 400:
            code, detail = _HTTP_CODES.get(status, ("invalid", error.description or HTTPStatus(status).phrase))
            headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
            return Problem(status, code, detail, headers=headers)
        case _:
            reference = new_id()
            _log.error("request_failed", reference=reference, exc_info=error)
            detail = f"an unexpected error; the daemon's log has it under the reference {reference}"
            return Problem(500, "internal", detail, {"reference": reference})


def forget_frames(error: BaseException | None) -> None:
    """Let go of what an exception, and those behind it, were raised in: these mostly hold it, too, in a circle."""
    while error is not None and error.__traceback__ is not None:  # None: not raised, or met before
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _of_engine(error: EngineError) -> Problem:
    status = next((status for kind, status in _ENGINE_STATUS if isinstance(error, kind)), 400)
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return Problem(status, error.code, str(error), error.data, headers=headers)
