"""What a plugin's route reaches of the engine, and how one is found and asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd import jsonguard
from jivsd.authoring.routes import RunState
from jivsd.clock import as_datetime
from jivsd.engine.api import Invalid, NotFound, StartOptions
from jivsd.records import Status
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jivsd.authoring.routes import Route
    from jivsd.engine.engine import Engine
    from jivsd.records import Run

MOST: Final = 500
"""Runs in one list."""


class Late(Exception):
    """A route took longer than it may."""


class Helm:
    """See `jivsd.authoring.routes.Daemon`."""

    def __init__(self, engine: Engine, caller: str) -> None:
        self._engine = engine
        self._caller = caller

    @property
    def caller(self) -> str:
        return self._caller

    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        attributes: dict[str, str | int | float | bool] | None = None,
    ) -> RunState:
        options = StartOptions(id=id, idempotency_key=idempotency_key, attributes=attributes or {})
        started = await self._engine.start(workflow, _checked(input), options, by=self._caller)
        return _state(started.run, payloads=True)

    async def signal(self, run: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        await self._engine.signal(run, name, _checked(payload), message_id=message_id, by=self._caller)

    async def query(self, run: str, name: str, argument: Any = None) -> Any:
        return msgspec.json.decode((await self._engine.query(run, name, _checked(argument))).value)

    async def show(self, run: str) -> RunState:
        return _state(await self._engine.show(run), payloads=True)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        status: Sequence[str] = (),
        open: bool = False,
        attributes: dict[str, str] | None = None,
        limit: int = 50,
    ) -> list[RunState]:
        try:
            statuses = [Status(one) for one in status]
        except ValueError as error:
            raise Invalid(str(error), field="status") from None
        where = RunFilter(workflow=workflow, statuses=statuses, open_only=open, attributes=attributes or {})
        page = await self._engine.runs(where, min(max(limit, 1), MOST))
        return [_state(run, payloads=False) for run in page.items]


def find(engine: Engine, plugin: str, method: str, parts: Sequence[str]) -> tuple[Route, dict[str, str]]:
    """The route of a plugin that a path means, and what stands in the path's placeholders.

    Raises:
        NotFound: there is none.
    """
    for one in engine.code.plugins:
        if one.name == plugin:
            for route in one.routes:
                if route.method == method and (found := route.match(parts)) is not None:
                    return route, found
            raise NotFound(f"plugin {plugin!r} has no route {method} /{'/'.join(parts)}", plugin=plugin)
    raise NotFound(f"there is no plugin {plugin!r}", plugin=plugin)


async def ask(
    engine: Engine, route: Route, path: Mapping[str, str], query: Mapping[str, Sequence[str]], body: bytes, by: str
) -> bytes:
    """Have a route answer a request; returns its JSON.

    Raises:
        Invalid: a part of the request does not fit. RouteError: the route refuses. Late: it takes too long.
        Exception: whatever else it raises; SystemExit and the like come as RuntimeError.
    """
    arguments = _converted(path, route.path_kind, "path")
    arguments |= _converted(_single(query, route.query_kind), route.query_kind, "query")
    if route.body is not None:
        arguments["body"] = _body(route, body)
    elif body:
        raise Invalid("this route takes no body", field="body")
    try:
        with trio.fail_after(route.seconds):
            answered = await route.function(Helm(engine, by), **arguments)
    except trio.TooSlowError:
        raise Late(f"{route.where} takes longer than {route.seconds:g} s") from None
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{route.where} raised {type(error).__name__}") from error
    except BaseExceptionGroup as group:
        if isinstance(group, ExceptionGroup) or group.subgroup(trio.Cancelled) is not None:
            raise
        raise RuntimeError(f"{route.where} raised {group.exceptions[0]!r}") from group
    return msgspec.json.encode(answered)


def _converted(given: Mapping[str, Any], kind: type[msgspec.Struct], what: str) -> dict[str, Any]:
    try:
        value = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"the {what} does not fit: {error}", field=what) from None
    return {name: getattr(value, name) for name in kind.__struct_fields__}


def _single(query: Mapping[str, Sequence[str]], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The parameters of a query: those that may have several values as lists."""
    lists = {
        field.name
        for field in msgspec.structs.fields(kind)
        if isinstance(msgspec.inspect.type_info(field.type), msgspec.inspect.CollectionType)
    }
    for name, values in query.items():
        if len(values) > 1 and name not in lists:
            raise Invalid(f"the query parameter `{name}` is given {len(values)} times", field=name)
    return {name: list(values) if name in lists else values[0] for name, values in query.items()}


def _body(route: Route, body: bytes) -> Any:
    assert route.body is not None
    if not body and route.body_default is not route.EMPTY:
        return route.body_default
    jsonguard.check(body)
    try:
        return route.body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body does not fit: {error}", field="body") from None


def _checked(value: Any) -> bytes:
    data = msgspec.json.encode(value)
    jsonguard.check(data)
    return data


def _state(run: Run, *, payloads: bool) -> RunState:
    return RunState(
        run_id=run.run_id,
        workflow=run.workflow,
        workflow_id=run.workflow_id,
        status=run.status.value,
        paused=run.paused,
        created_at=as_datetime(run.created_at),
        ended_at=None if run.ended_at is None else as_datetime(run.ended_at),
        attributes=run.attributes,
        error=None if run.error is None else f"{run.error.type}: {run.error.message}",
        input=msgspec.json.decode(run.input) if payloads else None,
        output=msgspec.json.decode(run.output) if payloads and run.output is not None else None,
    )
