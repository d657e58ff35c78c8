"""How a request comes to its route: by Quart, or by a short way if many ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from quart import request
from quart_trio.wrappers import TrioResponse
from werkzeug.routing import BaseConverter, ValidationError

from jivsd.admin.exchange import Request, current, explained
from jivsd.admin.http import CONTROL
from jivsd.admin.wire import API

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jivsd.admin.exchange import Response
    from jivsd.admin.guard import Application, Scope
    from jivsd.admin.http import Handler

SHORT: Final = frozenset({("POST", f"{API}/runs"), ("POST", f"{API}/runs/bulk")})
"""What runs are started by. With the objects that Quart makes for a request each start would cost twice as much."""


class Text(BaseConverter):
    """One segment of a path, decoded only after it was split off: a workflow id may contain "/" as %2F."""

    part_isolating = True
    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        try:
            text = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            raise ValidationError from None
        if CONTROL.search(text):
            raise ValidationError
        return text


def view(handler: Handler) -> Callable[..., Awaitable[TrioResponse]]:
    """A route as Quart calls it."""

    async def answered(**arguments: Any) -> TrioResponse:
        current.set(Request(request.scope, _whole_body))
        return _for_quart(await handler(**arguments))

    return answered


async def explain(error: Exception) -> TrioResponse:
    """The answer to a request that came to nothing, as Quart sends it."""
    return _for_quart(explained(error))


def _for_quart(found: Response) -> TrioResponse:
    return TrioResponse(found.body, found.status, dict(found.headers), content_type=found.content_type)


async def _whole_body() -> dict[str, Any]:
    """What ASGI's `receive` gives, once Quart has the body.

    Raises:
        HTTPException: it is too large (413) or too slow (408).
    """
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    return {"type": "http.request", "body": body, "more_body": False}


class ShortWay:
    """An ASGI application that answers some requests by itself, and leaves the others to another application.

    Args:
        app: the other one, which knows those routes too: however else their addresses can be written.
        handlers: of the routes, by method and path.
    """

    def __init__(self, app: Application, handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        handler = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        current.set(Request(scope, receive))
        try:
            response = await handler()
        except Exception as error:
            response = explained(error)
        await response.send(send)
