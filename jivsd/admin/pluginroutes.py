"""The routes that plugins add, under /plugins/NAME: found anew for each request, so that a reload replaces them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from jivsd import logs
from jivsd.admin.access import Role, need
from jivsd.admin.exchange import JSON, Response, asked, parameters_of
from jivsd.admin.http import CONTROL, Route, caller
from jivsd.admin.problems import Problem
from jivsd.authoring.routes import RouteError
from jivsd.engine import helm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.authoring.routes import Route as PluginRoute
    from jivsd.engine.engine import Engine
    from jivsd.registry.registry import LoadedPlugin

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
PLACE: Final = "/plugins/<name>/<path:rest>"

log = logs.get(__name__)


class PluginRoutes:
    """Answers what plugins say that they answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._versions: list[tuple[str, str]] = []
        self._described: dict[str, Any] = {}

    def routes(self) -> list[Route]:
        return [(method, PLACE, self.ask) for method in METHODS]

    async def ask(self, name: str, rest: str) -> Response:
        """Have a plugin's route answer."""
        request = asked()
        route, path = helm.find(self._engine, name, request.method, [_text(part) for part in rest.split("/")])
        need(Role[route.role.upper()])
        query = parameters_of(request.query_string)
        if any(CONTROL.search(value) for values in query.values() for value in values):
            raise Problem(422, "invalid", "a query parameter has a control character in it", {"field": "query"})
        try:
            answered = await helm.ask(self._engine, route, path, query, request.body, caller())
        except RouteError as error:
            raise Problem(error.status, error.code, str(error), error.data) from None
        except helm.Late as error:
            log.warning("a plugin's route took too long", plugin=name, route=route.where, seconds=route.seconds)
            raise Problem(504, "timeout", str(error)) from None
        return Response(answered, content_type=JSON)

    def described(self) -> dict[str, Any]:
        """The paths and schemas of all plugins' routes, for the API's description."""
        plugins = self._engine.code.plugins
        versions = [(plugin.name, plugin.stored.code_hash) for plugin in plugins]
        if versions != self._versions:
            self._versions, self._described = versions, _all_of(plugins)
        return self._described


def _all_of(plugins: Iterable[LoadedPlugin]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for plugin in plugins:
        for route in plugin.routes:
            place = f"/plugins/{plugin.name}{route.path}"
            described, components = _described(plugin.name, route)
            paths.setdefault(place, {})[route.method.lower()] = described
            schemas |= components
    return {"paths": paths, "schemas": schemas}


def _text(part: str) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        text = "\0"
    if CONTROL.search(text):
        raise Problem(404, "unknown_address", "there is nothing at this address")
    return text


def _described(plugin: str, route: PluginRoute) -> tuple[dict[str, Any], dict[str, Any]]:
    """A route as OpenAPI says it, and the schemas of its types, under names that begin with its own."""
    prefix = f"{plugin}.{route.function.__name__}."
    found, components = msgspec.json.schema_components(
        route.kinds(), ref_template=f"#/components/schemas/{prefix}{{name}}"
    )
    schemas = list(found)
    asked = components.pop(route.query_kind.__name__)
    text = {"type": "string", "minLength": 1}
    parameters = [{"name": name, "in": "path", "required": True, "schema": text} for name in route.placeholders]
    parameters += [
        {"name": name, "in": "query", "required": name in asked.get("required", ()), "schema": schema}
        for name, schema in asked["properties"].items()
    ]
    summary, _, rest = route.description.partition("\n")
    described: dict[str, Any] = {
        "operationId": f"{plugin}_{route.method.lower()}_{route.function.__name__}",
        "tags": [plugin],
        "summary": summary.removesuffix(".") or route.function.__name__,
        **({"description": rest.strip()} if rest.strip() else {}),
        **({"parameters": parameters} if parameters else {}),
    }
    if route.body is not None:
        required = route.body_default is route.EMPTY
        content = {"application/json": {"schema": schemas[1]}}
        described["requestBody"] = {"required": required, "content": content}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemView"}}}
    described["responses"] = {
        "200": {"description": "Done", "content": {"application/json": {"schema": schemas[-1]}}},
        "default": {"description": "What is wrong", "content": problem},
    }
    return described, {f"{prefix}{name}": schema for name, schema in components.items()}
