"""An engine in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from math import inf
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import msgspec
import trio
import trio.testing

from jivsd.clock import SECOND, Duration, TrioClock, microseconds
from jivsd.engine import helm
from jivsd.engine.api import Conflict, NotFound, StartOptions
from jivsd.engine.engine import Engine
from jivsd.records import ENDED, Kind, Status, payload_of
from jivsd.registry.registry import Registry
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing.comforts import Comforts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from jivsd.engine.api import Move, Moves, Reloaded, Wait
    from jivsd.engine.limits import Limits
    from jivsd.records import ErrorRecord, Event, Progress, Run
    from jivsd.store.api import Store

T = TypeVar("T")

EPOCH = 1_767_225_600 * SECOND
"""When tests begin: 2026-01-01 UTC."""


YEAR = 365 * 24 * 3600.0

BY = "test"
"""Who does what a test does."""

Plugin = ModuleType | Path | str
"""A plugin under test: an imported module, or the path of a file or folder."""


class RunFailed(AssertionError):
    """A run that was expected to complete ended otherwise; `run` is its row, `place` where its code raised."""

    def __init__(self, run: Run, place: str = "") -> None:
        why = f": {_said(run.error)}" if run.error else ""
        at = f", raised at {place}" if place else ""
        super().__init__(f"run {run.run_id} of {run.workflow!r} is {run.status}{why}{at}")
        self.run = run


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run an async test on a clock that jumps as soon as everything waits: an hour's sleep takes no time."""
    return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


class Env(Comforts):
    """The engine on a journal in memory, with the workflows of some plugins: modules or paths.

    Plain steps are called on the loop, not in threads, so that a jump of time never passes one by. Use it inside
    `jivsd.testing.run`. Its methods are those of a client of the daemon; `engine` and `store` are at hand for more.

    Runs that wait stay in memory, unless `passivate_after` says for how long; 0: each leaves it whenever it can, and
    comes back from its journal.
    """

    def __init__(
        self,
        *plugins: Plugin,
        store: Store | None = None,
        limits: Limits | None = None,
        passivate_after: Duration | None = None,
    ) -> None:
        """Prepare. `limits`: how much may go on at once, as the configuration of a daemon says it."""
        self._passivate_after = inf if passivate_after is None else microseconds(passivate_after) / SECOND
        self.registry = registry_of(plugins)
        self.store: Store = store or SqliteStore(":memory:", threaded=False)
        self.engine: Engine
        super().__init__(TrioClock(EPOCH))
        self._stack = AsyncExitStack()
        self._limits = limits

    async def __aenter__(self) -> Self:
        epoch = await self.store.open("test")
        for plugin in self.registry.plugins:
            await self.store.put_plugin(plugin.stored)
            await self.store.migrate_plugin(plugin.name, plugin.migrations)
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        await nursery.start(self._serve, epoch)
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        return self

    async def _serve(self, epoch: int, task_status: trio.TaskStatus[None]) -> None:
        self.engine = self.make_engine(epoch)
        await self.engine.run(task_status=task_status)

    def make_engine(self, epoch: int) -> Engine:
        """An engine on the store, which has been claimed under `epoch`."""
        clock = TrioClock(EPOCH)
        return Engine(
            self.store,
            self.registry,
            node="test",
            epoch=epoch,
            clock=clock,
            threads=0,
            look_again=1e9,
            limits=self._limits,
            passivate_after=self._passivate_after,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            with trio.CancelScope(shield=True):
                await self.engine.stop(0)
        finally:
            await self._closed()

    async def _closed(self) -> None:
        try:
            await self._stack.aclose()
            await self.store.close()
        finally:
            self._standins.restore()

    async def ask(self, what: str, question: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask the engine something; `what` says what, in words."""
        return await question(self.engine)

    async def tell(self, what: str, order: Callable[[Engine], Awaitable[object]]) -> None:
        """Tell the engine something; `what` says what, in words."""
        await order(self.engine)

    async def start(self, workflow: str, input: Any = None, **options: Any) -> str:
        """Start a run and return its run id; options as `jivsd.engine.api.StartOptions` names them."""
        body, chosen = msgspec.json.encode(input), StartOptions(**options)
        return await self.ask(f"start {workflow}", lambda engine: _start(engine, workflow, body, chosen))

    async def signal(self, run: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal."""
        body = msgspec.json.encode(payload)
        what = f"signal {run} {name}"
        await self.tell(what, lambda engine: engine.signal(run, name, body, message_id=message_id, by=BY))

    async def update(self, run: str, name: str, payload: Any = None, *, message_id: str | None = None) -> Any:
        """Send an update, wait for its answer and return it.

        Raises:
            Invalid: its validator refuses it. UpdateFailed: it failed.
        """
        body = msgspec.json.encode(payload)
        send = partial(_update, run=run, name=name, payload=body, message_id=message_id)
        return msgspec.json.decode(await self.ask(f"update {run} {name}", send))

    async def pause(self, run: str) -> None:
        """Let running steps end and start nothing more."""
        await self.tell(f"pause {run}", lambda engine: engine.pause(run, by=BY))

    async def resume(self, run: str) -> None:
        """Go on."""
        await self.tell(f"resume {run}", lambda engine: engine.resume(run, by=BY))

    async def cancel(self, run: str) -> None:
        """Ask a run to cancel: it compensates."""
        await self.tell(f"cancel {run}", lambda engine: engine.cancel(run, by=BY))

    async def terminate(self, run: str) -> None:
        """End a run at once."""
        await self.tell(f"terminate {run}", lambda engine: engine.terminate(run, by=BY))

    async def retry(self, run: str) -> str:
        """Reset a failed run to its last good event; return the new run's id."""
        return await self.ask(f"retry {run}", lambda engine: _retry(engine, run))

    async def reload(self) -> Reloaded:
        """Load the plugins that were given as paths again: new runs get the new code."""
        return await self.ask("reload", lambda engine: engine.reload_plugins(by=BY))

    async def adopt(self, plugin: str, *, additions: bool = False, dry_run: bool = False) -> dict[str, Move]:
        """Move the plugin's open runs to its newest code; what has become of each, by run id."""
        moves: dict[str, Move] = {}
        cursor: str | None = None
        while True:
            page = await self.ask(f"adopt {plugin}", _adopt(plugin, additions, dry_run, cursor))
            moves.update((move.run_id, move) for move in page.items)
            if (cursor := page.next) is None:
                return moves

    async def resolve(self, run: str, value: Any, *, why: str = "a test") -> None:
        """Give a value for the step that an incident of the run holds."""
        await self.tell(f"resolve {run}", lambda engine: _decide(engine, run, msgspec.json.encode(value), why))

    async def skip(self, run: str, *, why: str = "a test") -> None:
        """Let the run go on without the result of the step that an incident of it holds."""
        await self.tell(f"skip {run}", lambda engine: _skip(engine, run, why))

    async def query(self, run: str, name: str, argument: Any = None) -> Any:
        """Ask a query."""
        body = msgspec.json.encode(argument)
        answer = await self.ask(f"query {run} {name}", lambda engine: engine.query(run, name, body))
        return msgspec.json.decode(answer.value)

    async def request(
        self, method: str, path: str, body: Any = msgspec.UNSET, *, plugin: str | None = None, **query: Any
    ) -> Any:
        """Ask a route of a plugin of this test, `await env.request("GET", "/reports/may", limit=5)`; its answer.

        Raises:
            RouteError: it refuses. Invalid: the request does not fit. NotFound: there is no such route.
        """
        return await self.ask(f"{method} {path}", lambda engine: _request(engine, plugin, method, path, body, query))

    async def show(self, run: str) -> Run:
        """A run's row."""
        return await self.ask(f"show {run}", lambda engine: engine.show(run))

    async def ended(self, run: str, within: Duration = "365d") -> Run:
        """Wait for a run's end and return its row.

        Raises:
            AssertionError: it has not ended within a time; the message says what it waits for.
        """
        seconds = microseconds(within) / SECOND
        row = await self.ask(f"result {run}", lambda engine: engine.result(run, seconds))
        if row.status not in ENDED:
            waits = ", ".join(_waiting(wait) for wait in await self.waits(run)) or "nothing"
            raise AssertionError(f"run {run} has not ended; it waits for {waits}")
        return row

    @overload
    async def result(self, run: str, within: Duration = "365d") -> Any: ...
    @overload
    async def result(self, run: str, within: Duration = "365d", *, type: type[T]) -> T: ...

    async def result(self, run: str, within: Duration = "365d", *, type: Any = Any) -> Any:
        """Wait for a run's end and return its output, as plain JSON values or as `type`.

        Raises:
            RunFailed: it ended otherwise than COMPLETED. AssertionError: it has not ended within a time.
        """
        row = await self.ended(run, within)
        if row.status is not Status.COMPLETED:
            raise RunFailed(row, await self._raised_at(row))
        return msgspec.json.decode(b"null" if row.output is None else row.output, type=type)

    async def _raised_at(self, row: Run) -> str:
        ends = [payload_of(it) for it in await self.store.events(row.run_id) if it.kind == Kind.ENDED]
        return ends[-1].raised_at if ends else ""

    async def waits(self, run: str) -> list[Wait]:
        """What a run waits for now."""
        return (await self.ask(f"why {run}", lambda engine: engine.why(run))).waits

    async def progress(self, run: str) -> list[Progress]:
        """How far the steps of a run have said that they are, by path."""
        return await self.ask(f"progress {run}", lambda engine: engine.progress(run))

    async def published(self, topic: str | None = None) -> list[Any]:
        """The payloads of what runs have published with `ctx.emit`, in order: of one topic, or of all."""
        page = await self.ask("outbox", lambda engine: engine.outbox(limit=100_000, topic=topic))
        return [msgspec.json.decode(one.payload) for one in page.items]

    async def events(self, run: str) -> list[Event]:
        """The run's journal."""
        return await self.store.events((await self.show(run)).run_id)


def registry_of(plugins: Sequence[Plugin]) -> Registry:
    """A registry with some plugins and no others.

    Raises:
        PluginProblem: one of them cannot be loaded.
    """
    __tracebackhide__ = True  # pytest: what is wrong is in the plugin, and the message says where
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "Env is used in async code: in a test `async def test_...(jivsd_env)`, or in what jivsd.testing.run runs"
        )
    registry = Registry(TrioClock(EPOCH))
    paths = [Path(plugin) for plugin in plugins if not isinstance(plugin, ModuleType)]
    report = registry.load(paths, bundled=False, installed=False, trusted=True)
    if report.problems:
        raise report.problems[0].with_traceback(None) from None
    for plugin in plugins:
        if isinstance(plugin, ModuleType):
            registry.add_module(plugin)
    return registry


def _said(error: ErrorRecord) -> str:
    """An error with the members of an exception group, on one line."""
    members = f" ({'; '.join(_said(cause) for cause in error.causes)})" if error.causes else ""
    return f"{error.type}: {error.message}{members}"


def _waiting(wait: Wait) -> str:
    where = f" at {wait.path}" if wait.path else ""
    return f"{wait.what}{where}" + (f" ({wait.error})" if wait.error else "")


async def _start(engine: Engine, workflow: str, input: bytes, options: StartOptions) -> str:
    try:
        return (await engine.start(workflow, input, options, by=BY)).run.run_id
    except NotFound as error:
        if " any more: " in str(error):
            raise
        known = ", ".join(info.name for info in engine.workflows()) or "none"
        raise NotFound(f"{error}; the plugins of this test have: {known}", workflow=workflow) from None


async def _request(engine: Engine, plugin: str | None, method: str, path: str, body: Any, query: dict[str, Any]) -> Any:
    parts = path.removeprefix("/").split("/")
    for one in engine.code.plugins:
        if one.name == plugin or (plugin is None and any(route.match(parts) is not None for route in one.routes)):
            route, found = helm.find(engine, one.name, method, parts)
            asked = {name: [str(value)] for name, value in query.items()}
            data = b"" if body is msgspec.UNSET else msgspec.json.encode(body)
            return msgspec.json.decode(await helm.ask(engine, route, found, asked, data, BY))
    raise NotFound(f"no plugin of this test has a route {method} {path}")


async def _update(engine: Engine, *, run: str, name: str, payload: bytes, message_id: str | None) -> msgspec.Raw:
    updated = await engine.update(run, name, payload, message_id=message_id, wait=YEAR, by=BY)
    assert updated.answered, f"update {name!r} of run {run} was not answered within a year"
    return updated.value


async def _retry(engine: Engine, run: str) -> str:
    return (await engine.retry(run, by=BY)).run_id


async def _decide(engine: Engine, run: str, value: bytes, why: str) -> None:
    await engine.resolve_incident(await _incident(engine, run), value, by=BY, why=why)


async def _skip(engine: Engine, run: str, why: str) -> None:
    await engine.skip_incident(await _incident(engine, run), by=BY, why=why)


async def _incident(engine: Engine, run: str) -> str:
    found = await engine.incidents(ref=run)
    if not found.items:
        raise Conflict(f"run {run} has no open incident")
    return found.items[0].incident_id


def _adopt(plugin: str, additions: bool, dry_run: bool, cursor: str | None) -> Callable[[Engine], Awaitable[Moves]]:
    return lambda engine: engine.adopt_code(plugin, by=BY, dry_run=dry_run, additions=additions, cursor=cursor)
