"""Which route answers a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import BaseConverter, Map, Rule, ValidationError

from jivsd.admin.access import guarded
from jivsd.admin.exchange import Request, current, explained
from jivsd.admin.http import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.admin.guard import Application, Scope
    from jivsd.admin.http import Route


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


class Router:
    """An ASGI application that answers by routes, and leaves to another one what leads to none of them: WebSockets too.

    Args:
        app: the other one.
        routes: each with the prefix of its path.
    """

    def __init__(self, app: Application, routes: Iterable[tuple[str, Route]]) -> None:
        rules = [
            Rule(prefix + path, endpoint=guarded(handler, method), methods=[method])
            for prefix, (method, path, handler) in routes
        ]
        places = Map(rules, strict_slashes=False, merge_slashes=False, converters={"default": Text})
        self._places = places.bind("jivsd")
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            handler, arguments = self._places.match(scope["path"], scope["method"])
        except NotFound:
            await self._app(scope, receive, send)
            return
        except HTTPException as error:
            await explained(error).send(send)
            return
        current.set(Request(scope, receive))
        try:
            response = await handler(**arguments)
        except Exception as error:
            response = explained(error)
        await response.send(send)
