"""What the client asks with: requests whose bodies may break off, answers that may make no sense, and their errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from http.client import responses
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import httpx
import msgspec

from jivsd import jsonguard
from jivsd.records import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP_ALIVE: Final = 5.0
"""Seconds after which an idle connection is not used again; the server closes it after 10."""
PATIENCE: Final = 30.0
"""Seconds to wait for an answer, beyond what the request itself asks to wait for."""
STANDARD: Final = frozenset({"type", "title", "status", "detail", "code"})
"""The members that every problem document has."""

Kind = TypeVar("Kind")
Parameters: TypeAlias = "Mapping[str, str | list[str] | None]"
"""What stands behind the "?" of an address."""


class DaemonNotRunning(Exception):
    """Nobody answers; the message says where, and how to start a daemon."""


class ConnectionLost(DaemonNotRunning):
    """The daemon went away before it answered: what was asked may or may not have happened."""


class ClientError(Exception):
    """The daemon refuses, or its answer makes no sense.

    `status` is the HTTP status, `code` the stable word for programs (see `jivsd.engine.api`), `message` one sentence
    for people, `data` the facts: run_id, field and so on.
    """

    def __init__(self, status: int, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.data = dict(data or {})


class Calls(ABC):
    """What the parts of a client ask with."""

    @abstractmethod
    async def _post(
        self,
        path: str,
        kind: type[Kind],
        body: msgspec.Struct,
        *,
        query: Parameters | None = None,
        patience: float = PATIENCE,
    ) -> Kind: ...

    @abstractmethod
    async def _get(
        self, path: str, kind: type[Kind], query: Parameters | None = None, *, patience: float = PATIENCE
    ) -> Kind: ...

    @abstractmethod
    def _name(self, text: str, what: str) -> str:
        """A name as one segment of a path."""


class Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is an async generator, which warns when the connection breaks under it."""

    def __init__(self, data: bytes) -> None:
        self._left: bytes | None = data

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        data, self._left = self._left, None
        if data is None:
            raise StopAsyncIteration
        return data


def limits() -> httpx.Limits:
    return httpx.Limits(max_connections=100, keepalive_expiry=KEEP_ALIVE)


def understood(response: httpx.Response, kind: type[Kind]) -> Kind:
    """The answer as what it should be.

    Raises:
        ClientError: it is a problem, or no answer of a jivsd daemon at all.
    """
    status = response.status_code
    if status < 400:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ClientError(status, "protocol", f"the answer is not one of a jivsd daemon: {error}") from None
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = {}
    message = str(problem.get("detail") or f"the server answers {status} {responses.get(status, '')}".rstrip())
    data = {name: value for name, value in problem.items() if name not in STANDARD}
    raise ClientError(status, str(problem.get("code") or "http"), message, data)


def errno_of(error: BaseException) -> int | None:
    """The operating system's error number behind an exception."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno
        cause = cause.__cause__ or cause.__context__
    return None


def json_of(value: Any) -> msgspec.Raw:
    """A value as JSON; what is bytes already is checked, so that it cannot reach beyond its place in the body."""
    if not isinstance(value, bytes | msgspec.Raw):
        return msgspec.Raw(encode(value))
    data = bytes(value)
    try:
        jsonguard.check(data)
    except jsonguard.BadJson as error:
        status = 413 if error.code == "too_large" else 400
        raise ClientError(status, "bad_json", f"the value is not accepted: {error}", {"problem": error.code}) from None
    return msgspec.Raw(data)
