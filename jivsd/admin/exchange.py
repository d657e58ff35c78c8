"""A request and its answer: what a route reads from, and what it gives back.

A route does not see who has brought its request, Quart or the short way past it (`routing`).
"""

from __future__ import annotations

from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

import trio
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from jivsd.admin.problems import Problem, forget_frames, problem_of
from jivsd.jsonguard import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jivsd.admin.looks import Look

BODY_DEADLINE: Final = 10.0
"""How long a body may take to arrive, in seconds."""
JSON: Final = "application/json"


class Request:
    """What is asked, as ASGI has it in `scope` and `receive`."""

    __slots__ = ("_headers", "_receive", "body", "look", "method", "path", "query_string", "state")

    def __init__(self, scope: Any, receive: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.state: dict[str, Any] = scope["state"]
        """What the server and the guard know of the connection and of who is at its other end."""
        self.body = b""
        """What was sent, once it was `read`."""
        self.look: Look | None = None
        """Its right to look things up, if it is one that looks."""
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._receive = receive

    def header(self, name: bytes) -> str | None:
        """The first header of a name, which is given in small letters."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin1")

    async def read(self) -> None:
        """Take in the body.

        Raises:
            HTTPException: it is too large (413) or too slow (408).
            Problem: it ends early.
        """
        headers = self._headers
        length = headers.get(b"content-length", b"")
        if not length and b"transfer-encoding" not in headers:
            return
        if length and int(length) > MAX_BYTES:
            raise RequestEntityTooLarge
        with trio.move_on_after(BODY_DEADLINE) as patience:
            self.body = await self._received()
        if patience.cancelled_caught:
            raise RequestTimeout

    async def _received(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "bad_request", "the body ends early")
            if part := message["body"]:
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise RequestEntityTooLarge
            if not message["more_body"]:
                return parts[0] if len(parts) == 1 else b"".join(parts)


class Response(NamedTuple):
    """An answer. `content_type`: None if the headers name it, or there is no body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    content_type: str | None = None

    async def send(self, send: Any, kind: str = "http") -> None:
        """Send it as ASGI wants it; `kind`: as what type of messages."""
        headers = [(b"content-length", b"%d" % len(self.body))]
        if self.content_type is not None:
            headers.append((b"content-type", self.content_type.encode("latin1")))
        headers += [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in self.headers.items()]
        await send({"type": f"{kind}.response.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": self.body, "more_body": False})


current: Final[ContextVar[Request]] = ContextVar("request")
"""What is being answered by this task."""


def asked() -> Request:
    """The request that is being answered."""
    return current.get()


def explained(error: BaseException) -> Response:
    """The answer to a request that came to nothing."""
    problem = problem_of(error)
    forget_frames(error)
    return Response(problem.document(), problem.status, problem.headers)


def parameters_of(query_string: bytes) -> dict[str, list[str]]:
    """The parameters of a query, each with its values in their order."""
    found: dict[str, list[str]] = {}
    pairs = parse_qsl(query_string.decode("latin1"), keep_blank_values=True)
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
