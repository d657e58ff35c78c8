"""Decides who may ask at all, before any route is looked up."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from jivsd.admin.access import found
from jivsd.admin.dashboard import assets
from jivsd.admin.exchange import explained
from jivsd.admin.problems import Problem
from jivsd.admin.status import LIVE, READY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from jivsd.admin.access import Token

Scope = Any  # ASGI's dictionaries of many shapes
Application = Callable[[Scope, Any, Any], Awaitable[None]]

WITHOUT_TOKEN: Final = frozenset({LIVE, READY, *assets()})
"""Exact paths. The dashboard's files are the same everywhere; what it shows it asks for with the token."""
BEARER: Final = "jivsd.bearer."
"""What a WebSocket's subprotocol begins with that is a token, in the Base64 of RFC 4648 for URLs, without padding."""
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@?#\[\]]+))(?::[0-9]{1,5})?")


class Guard:
    """Stands before an ASGI application.

    Whoever can open the Unix socket may ask anything: its mode decides that. Over TCP the host name must be ours (a
    page elsewhere could have its own name point here), a browser's origin must be the same host, and with a token
    everything but a few exact paths needs it.
    """

    def __init__(self, app: Application, tokens: Sequence[Token], hosts: Collection[str]) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = frozenset({"localhost", *(host.lower() for host in hosts)})

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        # Routes match the path as it was sent, so that an escaped "/" stays part of its segment.
        scope["path"] = scope["raw_path"].decode("latin1")
        problem = self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await explained(problem).send(send, "http" if scope["type"] == "http" else "websocket.http")

    def _refusal(self, scope: Scope) -> Problem | None:
        if not scope["path"].startswith("/"):
            return Problem(400, "bad_request", "the address must be a path, beginning with /")
        if scope.get("state", {}).get("door") == "unix":
            return None
        host = _only(scope, b"host")
        if host is None or not self._is_ours(host):
            return Problem(403, "host", "the header Host names no host that this daemon serves")
        origin = _header(scope, b"origin")
        if origin and any(not _same_origin(value, host) for value in origin):
            return Problem(403, "origin", "a page of another origin may not use this daemon")
        if not self._tokens or scope["path"] in WITHOUT_TOKEN:
            return None
        if (token := self._token(scope)) is not None:
            scope["state"] = {**scope.get("state", {}), "role": token.role, "user": token.name}
            return None
        detail = "this needs a token: send the header Authorization: Bearer TOKEN"
        return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="jivsd"'})

    def _is_ours(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        name = (parts[1] or parts[2]).lower() if parts else ""
        return name in self._hosts or _is_address(name)

    def _token(self, scope: Scope) -> Token | None:
        scheme, _, given = (_only(scope, b"authorization") or "").partition(" ")
        if scope["type"] == "websocket" and not scheme:
            return found(self._tokens, _offered(scope["subprotocols"]))
        token = found(self._tokens, given.strip())
        return token if scheme.lower() == "bearer" else None


def _offered(subprotocols: Iterable[str]) -> str:
    """The token that a browser offers as a subprotocol: its WebSockets have no headers of one's own."""
    for name in subprotocols:
        if name.startswith(BEARER):
            try:
                return urlsafe_b64decode(name[len(BEARER) :] + "==").decode("latin1")
            except ValueError:
                break
    return ""


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin1") for key, value in scope["headers"] if key.lower() == name]


def _only(scope: Scope, name: bytes) -> str | None:
    values = _header(scope, name)
    return values[0] if len(values) == 1 else None


def _is_address(name: str) -> bool:
    """An address cannot be made to point elsewhere, as a name can."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _same_origin(origin: str, host: str) -> bool:
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()
