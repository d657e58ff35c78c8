"""The application: all routes, and one way to say that something went wrong."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio
from quart_trio import QuartTrio

from jivsd.admin.access import Token, guarded
from jivsd.admin.acting import ActingRoutes
from jivsd.admin.bulk import BulkRoutes
from jivsd.admin.dashboard import DashboardRoutes
from jivsd.admin.events import EventRoutes
from jivsd.admin.exchange import BODY_DEADLINE
from jivsd.admin.guard import Guard
from jivsd.admin.incidents import IncidentRoutes
from jivsd.admin.locks import LockRoutes
from jivsd.admin.metrics import MetricsRoutes
from jivsd.admin.nodes import NodeRoutes
from jivsd.admin.openapi import OpenApiRoutes
from jivsd.admin.outbox import OutboxRoutes
from jivsd.admin.pluginroutes import PluginRoutes
from jivsd.admin.pruning import PruneRoutes
from jivsd.admin.routing import SHORT, ShortWay, Text, explain, view
from jivsd.admin.runs import RunRoutes
from jivsd.admin.statistics import StatisticsRoutes
from jivsd.admin.status import StatusRoutes
from jivsd.admin.wire import API
from jivsd.admin.workflows import WorkflowRoutes
from jivsd.jsonguard import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from jivsd.admin.guard import Application, Scope
    from jivsd.admin.http import Handler, Route
    from jivsd.engine.engine import Engine
    from jivsd.services.feed import FeedService


def create_app(
    engine: Engine,
    *,
    feed: FeedService,
    token: str | None = None,
    tokens: Sequence[Token] = (),
    hosts: Collection[str] = (),
    siblings: Mapping[str, Path] = MappingProxyType({}),
) -> QuartTrio:
    """Return the HTTP API of an engine.

    Args:
        engine: what answers.
        feed: where events are followed.
        token: needed by everything that comes over TCP, except `/health/live`, `/health/ready` and the dashboard's
            own files, which hold no data; it may do all.
        tokens: further ones, that may do what their roles allow.
        hosts: names under which TCP clients may ask for this host, besides localhost and addresses.
        siblings: the sockets of the host's other workers, by node: `/metrics` is of all of them.
    """
    app = QuartTrio("jivsd.admin", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.config["BODY_TIMEOUT"] = BODY_DEADLINE
    app.url_map.converters["default"] = Text
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    events = EventRoutes(engine, feed)
    short: dict[tuple[str, str], Handler] = {}
    for prefix, (method, path, handler) in routes_of(engine, events, siblings):
        answering = guarded(handler, method)
        if (method, prefix + path) in SHORT:
            short[method, prefix + path] = answering
        app.add_url_rule(
            prefix + path,
            endpoint=f"{method} {path}",
            view_func=view(answering),
            methods=[method],
            provide_automatic_options=False,
        )
    app.add_websocket(f"{API}/events", endpoint="WEBSOCKET /events", view_func=events.stream)
    app.register_error_handler(Exception, explain)
    way = ShortWay(_sends_to_the_end(app.asgi_app), short)
    app.asgi_app = Guard(way, [*([] if token is None else [Token("token", token)]), *tokens], hosts)
    return app


def routes_of(engine: Engine, events: EventRoutes, siblings: Mapping[str, Path]) -> list[tuple[str, Route]]:
    """All routes but the WebSocket, each with the prefix of its path."""
    status = StatusRoutes(engine)
    nouns = (
        *(RunRoutes, BulkRoutes, ActingRoutes, OutboxRoutes, LockRoutes),
        *(IncidentRoutes, WorkflowRoutes, StatisticsRoutes, PruneRoutes, NodeRoutes),
    )
    routes = [(API, route) for noun in (*(noun(engine) for noun in nouns), status, events) for route in noun.routes()]
    routes += [("", route) for route in (*status.health_routes(), *MetricsRoutes(engine, siblings).routes())]
    plugins = PluginRoutes(engine)
    routes += [("", route) for route in OpenApiRoutes(routes, plugins.described).routes()]
    routes += [(API, route) for route in plugins.routes()]
    routes += [("", route) for route in DashboardRoutes().routes()]
    return routes


def _sends_to_the_end(app: Application) -> Application:
    """Shield what Quart sends from its own cancellation.

    hypercorn tells the application that the exchange is over before it has made the connection ready for the next one,
    or closed it; Quart then cancels the task that hypercorn does this in, and the connection would stay as it is for
    ever. A send is bounded by `Conversation`, and by its socket's end.
    """

    async def shielded(scope: Scope, receive: Any, send: Any) -> None:
        async def send_to_the_end(message: Any) -> None:
            with trio.CancelScope(shield=True):
                await send(message)

        await app(scope, receive, send_to_the_end)

    return shielded
