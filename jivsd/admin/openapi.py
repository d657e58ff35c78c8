"""The description of the API, made from the routes and the types that they use (OpenAPI 3.1)."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.admin.http import Operation, answer, operation
from jivsd.admin.problems import CONTENT_TYPE, ProblemView
from jivsd.admin.wire import API

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.admin.exchange import Response
    from jivsd.admin.http import Handler, Route

DOCUMENT: Final = "/openapi.json"

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"<(\w+)>")
_ABOUT: Final = """\
Durable workflows: start runs, talk to them, look at them, mend them. Times are RFC 3339 in UTC, durations texts such as
`1h30m`. A run is named by its run id, or as `WORKFLOW:ID` for the open run of that workflow id or else its newest.
Errors are problem documents (RFC 9457) whose `code` is stable, for programs. Whoever calls for a person names that one
in the header `X-Jivsd-By`.
"""


class OpenApiRoutes:
    """Answers /openapi.json."""

    def __init__(self, routes: Iterable[tuple[str, Route]], further: Callable[[], dict[str, Any]] = dict) -> None:
        """`routes`: all others, each with the prefix of its path; `further`: the paths and schemas of plugins."""
        self._document = document(routes)
        self._further = further

    def routes(self) -> list[Route]:
        return [("GET", DOCUMENT, self.document)]

    @operation(answers={200: dict[str, Any]})
    async def document(self) -> Response:
        """This description."""
        return answer(_with(self._document, self._further()))


def document(routes: Iterable[tuple[str, Route]]) -> dict[str, Any]:
    """The description of some routes, each with the prefix of its path."""
    described = [(method, prefix + path, handler, _operation_of(handler)) for prefix, (method, path, handler) in routes]
    types = [type_ for *_, one in described for type_ in _types(one)]
    schemas, components = msgspec.json.schema_components([*types, ProblemView], ref_template=_REFERENCE)
    found = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler, one in described:
        by_type = {type_: next(found) for type_ in _types(one)}
        paths.setdefault(_PARAMETER.sub(r"{\1}", path), {})[method.lower()] = {
            "operationId": f"{method.lower()}{re.sub(r'[^a-zA-Z]+', '_', path)}".rstrip("_"),
            "tags": [_tag(path)],
            **_words(handler),
            **_parameters(path, one, components),
            **_body(one, by_type),
            "responses": _responses(one, by_type),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "jivsd", "version": version("jivsd"), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _with(document: dict[str, Any], further: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    paths = {f"{API}{path}": operations for path, operations in further.get("paths", {}).items()}
    schemas = {**components["schemas"], **further.get("schemas", {})}
    return {**document, "paths": {**document["paths"], **paths}, "components": {**components, "schemas": schemas}}


def _operation_of(handler: Handler) -> Operation:
    return getattr(handler, "operation", Operation(answers={}))


def _types(one: Operation) -> list[Any]:
    """What has a schema, in a fixed order."""
    return [type_ for type_ in (one.query, one.body, *one.answers.values()) if type_ is not None]


def _tag(path: str) -> str:
    """The noun that a path is about."""
    return next((part for part in path.split("/") if part and part not in ("api", "v1")), "")


def _words(handler: Handler) -> dict[str, str]:
    summary, _, rest = (inspect.getdoc(handler) or "").partition("\n")
    words = {"summary": summary.removesuffix(".")}
    return {**words, "description": rest.strip()} if rest.strip() else words


def _parameters(path: str, one: Operation, components: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in _PARAMETER.findall(path)
    ]
    if one.query is not None:
        schema = components[one.query.__name__]
        found += (
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": of}
            for name, of in schema["properties"].items()
        )
    return {"parameters": found} if found else {}


def _body(one: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    if one.body is None:
        return {}
    return {
        "requestBody": {"required": one.required, "content": {"application/json": {"schema": by_type[one.body]}}},
    }


def _responses(one: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    answers = {
        str(status): {
            "description": _DESCRIPTIONS.get(status, "OK"),
            **({} if type_ is None else {"content": {"application/json": {"schema": by_type[type_]}}}),
        }
        for status, type_ in one.answers.items()
    }
    problem = {"schema": {"$ref": _REFERENCE.format(name=ProblemView.__name__)}}
    return {**answers, "default": {"description": "What is wrong", "content": {CONTENT_TYPE: problem}}}


_DESCRIPTIONS: Final = {200: "Done", 202: "Accepted; it goes on", 503: "Not now"}
