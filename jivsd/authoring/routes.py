"""Routes that a plugin adds to the daemon's HTTP API: typed functions, and the little that they can reach.

    @route("GET", "/reports/{name}")
    async def report(daemon: Daemon, name: str, limit: int = 20) -> Report: ...

is answered at `/api/v1/plugins/PLUGIN/reports/NAME?limit=5`.
"""

from __future__ import annotations

import inspect
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeVar, get_args

import msgspec

from jivsd.authoring.errors import InvalidDefinition
from jivsd.authoring.signature import Codec, hints_of, result_kind
from jivsd.clock import SECOND, Duration, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

P = ParamSpec("P")
R = TypeVar("R")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Role = Literal["read", "operate", "admin"]

BODY: Final = "body"
"""The name of the parameter that is the request's body."""
LONGEST: Final = 60.0
"""Seconds that a route may take at most."""
RESERVED: Final = frozenset({"adopt"})
"""First parts of paths that are the daemon's own."""

_PART: Final = re.compile(r"\{([a-z_][a-z0-9_]*)\}|[A-Za-z0-9._~-]+")


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as a route sees it. `input` and `output` are plain JSON values; lists leave them out (None)."""

    run_id: str
    workflow: str
    workflow_id: str
    status: str
    paused: bool
    created_at: datetime
    ended_at: datetime | None
    attributes: dict[str, Any]
    error: str | None = None
    input: Any = None
    output: Any = None


class Daemon(Protocol):
    """What a route can do. A `run` is a run id or "workflow:workflow id"; what cannot be done raises, and unless it is
    caught it is answered to the caller as the daemon's own routes would (404, 409, 422, 503)."""

    @property
    def caller(self) -> str:
        """Who asks; it is recorded with all that is done."""
        ...

    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        attributes: dict[str, str | int | float | bool] | None = None,
    ) -> RunState:
        """Start a run; when this returns, it is durable."""
        ...

    async def signal(self, run: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal; when this returns, it is durable."""
        ...

    async def query(self, run: str, name: str, argument: Any = None) -> Any:
        """Ask a run; the answer is a plain JSON value."""
        ...

    async def show(self, run: str) -> RunState:
        """One run."""
        ...

    async def runs(
        self,
        *,
        workflow: str | None = None,
        status: Sequence[str] = (),
        open: bool = False,
        attributes: dict[str, str] | None = None,
        limit: int = 50,
    ) -> list[RunState]:
        """Runs, newest first; at most 500."""
        ...


class RouteError(Exception):
    """A route refuses: answered as a problem document with this status (400 to 499) and this message for people."""

    def __init__(self, status: int, message: str, *, code: str = "refused", **data: Any) -> None:
        super().__init__(message)
        if not 400 <= status < 500:
            raise ValueError(f"a route refuses with a status from 400 to 499, not {status}")
        self.status = status
        self.code = code
        self.data = data


class Route:
    """A function that answers requests, made by `@route`; called directly, it is that function."""

    EMPTY: Final = inspect.Parameter.empty

    def __init__(
        self,
        method: Method,
        path: str,
        function: Callable[..., Coroutine[Any, Any, Any]],
        *,
        role: Role | None,
        timeout: Duration,
    ) -> None:
        self.function = function
        self.method: Method = method
        self.path = path
        self.where = where = f"route {method} {path} ({function.__name__})"
        self.description = inspect.getdoc(function) or ""
        self.parts = _parts(path, where)
        self.role: Role = role or ("read" if method == "GET" else "operate")
        self.seconds = microseconds(timeout) / SECOND
        if method not in get_args(Method):
            raise InvalidDefinition(f"{where}: a method is one of {', '.join(get_args(Method))}")
        if self.role not in get_args(Role) or (self.role == "read" and method != "GET"):
            raise InvalidDefinition(f"{where}: its role is operate or admin, or for a GET read")
        if not 0 < self.seconds <= LONGEST:
            raise InvalidDefinition(f"{where}: its timeout is more than nothing and at most {LONGEST:g} s")
        if not inspect.iscoroutinefunction(function):
            raise InvalidDefinition(f"{where}: it is an async function, which the daemon awaits beside its other work")
        self._take_apart()

    def _take_apart(self) -> None:
        """Sort the parameters into those of path, body and query."""
        hints = hints_of(self.function, self.where)
        parameters = list(inspect.signature(self.function).parameters.values())
        if not parameters or any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters):
            raise InvalidDefinition(f"{self.where}: it takes the daemon first, then named parameters")
        self.placeholders = [name for literal, name in self.parts if not literal]
        rest = parameters[1:]
        names = [parameter.name for parameter in rest]
        if missing := [name for name in self.placeholders if name not in names]:
            raise InvalidDefinition(f"{self.where}: it has no parameter {missing[0]!r}, which its path names")
        kinds = {name: hints.get(name, Any) for name in names}
        if BODY in names and self.method in ("GET", "DELETE"):
            raise InvalidDefinition(f"{self.where}: a {self.method} has no body")
        self.body = Codec(kinds[BODY], self.where) if BODY in names else None
        self.body_default = next((one.default for one in rest if one.name == BODY), self.EMPTY)
        self.path_kind = _struct("Path", [(name, kinds[name]) for name in self.placeholders], self.where)
        asked = [one for one in rest if one.name not in self.placeholders and one.name != BODY]
        fields = [
            (one.name, kinds[one.name]) if one.default is one.empty else (one.name, kinds[one.name], one.default)
            for one in sorted(asked, key=lambda one: one.default is not one.empty)
        ]
        self.query_kind = _struct(f"{self.function.__name__}_query", fields, self.where)
        self.result = Codec(result_kind(hints.get("return", Any)), f"{self.where}, its result")
        try:
            msgspec.json.schema_components(self.kinds())
        except Exception as error:  # msgspec names many reasons, in several exception types
            raise InvalidDefinition(f"{self.where}: its types have no JSON schema: {error}") from None

    def kinds(self) -> list[Any]:
        """The types of what it takes and answers: query, body, result."""
        return [self.query_kind, *([] if self.body is None else [self.body.kind]), self.result.kind]

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """The values of the placeholders if a path is this one's."""
        if len(parts) != len(self.parts):
            return None
        found: dict[str, str] = {}
        for part, (literal, name) in zip(parts, self.parts, strict=True):
            if not literal:
                found[name] = part
            elif part != name:
                return None
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return self.function(*args, **kwargs)


def route(
    method: Method, path: str, *, role: Role | None = None, timeout: Duration = "30s"
) -> Callable[[Callable[Concatenate[Daemon, P], Coroutine[Any, Any, R]]], Route]:
    """Add a route to the daemon's API, at `/api/v1/plugins/PLUGIN` and then `path`.

    The function gets a `Daemon`, the parts of the path that stand in braces, the request's body as the parameter
    `body`, and all other parameters from the query, each as its annotation says; what it returns is the answer, as
    JSON. An exception is answered with 500 and stands in the log; `RouteError` says what the caller did wrong.

    Args:
        method: GET, POST, PUT, PATCH or DELETE.
        path: such as `/reports/{name}`.
        role: what a caller's token has to be good for: by default read for a GET, else operate.
        timeout: after which the function is cancelled and the caller gets a 504; at most a minute.

    Raises:
        InvalidDefinition: it cannot work like this.
    """

    def make(function: Callable[Concatenate[Daemon, P], Coroutine[Any, Any, R]]) -> Route:
        return Route(method, path, function, role=role, timeout=timeout)

    return make


def _parts(path: str, where: str) -> list[tuple[bool, str]]:
    """The parts of a path: whether each is literal, and it or the name of its placeholder."""
    found: list[tuple[bool, str]] = []
    first, *parts = path.split("/")
    if first or not parts:
        raise InvalidDefinition(f"{where}: a path begins with /")
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None or not part.strip("."):
            raise InvalidDefinition(f"{where}: {part!r} is no part of a path: letters, digits, -._~, or a {{name}}")
        found.append((False, match[1]) if match[1] else (True, part))
    names = [name for literal, name in found if not literal]
    if len(names) != len(set(names)):
        raise InvalidDefinition(f"{where}: its path names a part twice")
    if found[0] in [(True, name) for name in RESERVED] or not found[0][0]:
        raise InvalidDefinition(f"{where}: its path begins with a word of its own, not with {parts[0]!r}")
    return found


def _struct(name: str, fields: list[Any], where: str) -> type[msgspec.Struct]:
    try:
        return msgspec.defstruct(name, fields, forbid_unknown_fields=True, kw_only=True)
    except TypeError as error:
        raise InvalidDefinition(f"{where}: {error}") from None
