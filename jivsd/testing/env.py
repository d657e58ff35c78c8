"""An engine in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio
import trio.testing

from jivsd.clock import SECOND, Duration, TrioClock, microseconds
from jivsd.engine.api import StartOptions
from jivsd.engine.engine import Engine
from jivsd.records import ENDED, Status
from jivsd.registry.registry import Registry
from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from jivsd.engine.api import Wait
    from jivsd.records import Event, Run

T = TypeVar("T")

EPOCH = 1_767_225_600 * SECOND
"""When tests begin: 2026-01-01 UTC."""


class RunFailed(AssertionError):
    """A run that was expected to complete ended otherwise; `run` is its row."""

    def __init__(self, run: Run) -> None:
        why = f": {run.error.type}: {run.error.message}" if run.error else ""
        super().__init__(f"run {run.run_id} of {run.workflow!r} is {run.status}{why}")
        self.run = run


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run an async test on a clock that jumps as soon as everything waits: an hour's sleep takes no time."""
    return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


class Env:
    """The engine on a journal in memory, with the workflows of some plugins: modules or paths.

    Plain steps are called on the loop, not in threads, so that a jump of time never passes one by. Use it inside
    `jivsd.testing.run`.
    """

    def __init__(self, *plugins: ModuleType | Path | str, store: SqliteStore | None = None) -> None:
        self.registry = Registry(TrioClock(EPOCH))
        paths = [Path(plugin) for plugin in plugins if not isinstance(plugin, ModuleType)]
        report = self.registry.load(paths, bundled=False, installed=False, trusted=True)
        if report.problems:
            raise report.problems[0]
        for plugin in plugins:
            if isinstance(plugin, ModuleType):
                self.registry.add_module(plugin)
        self.store = store or SqliteStore(":memory:", threaded=False)
        self.engine: Engine
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Env:
        epoch = await self.store.open("test")
        for plugin in self.registry.plugins:
            await self.store.put_plugin(plugin.stored)
        self.engine = Engine(
            self.store, self.registry, node="test", epoch=epoch, clock=TrioClock(EPOCH), threads=0, look_again=1e9
        )
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        await nursery.start(self._serve)
        return self

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        await self.engine.run(task_status=task_status)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self.engine.stop(0)
        await self._stack.aclose()
        await self.store.close()

    async def start(self, workflow: str, input: Any = None, **options: Any) -> str:
        """Start a run and return its run id; options as `jivsd.engine.api.StartOptions` names them."""
        started = await self.engine.start(workflow, msgspec.json.encode(input), StartOptions(**options), by="test")
        return started.run.run_id

    async def signal(self, run: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal."""
        await self.engine.signal(run, name, msgspec.json.encode(payload), message_id=message_id, by="test")

    async def query(self, run: str, name: str, argument: Any = None) -> Any:
        """Ask a query."""
        answer = await self.engine.query(run, name, msgspec.json.encode(argument))
        return msgspec.json.decode(answer.value)

    async def ended(self, run: str, within: Duration = "365d") -> Run:
        """Wait for a run's end and return its row.

        Raises:
            AssertionError: it has not ended within a time; the message says what it waits for.
        """
        row = await self.engine.result(run, microseconds(within) / SECOND)
        if row.status not in ENDED:
            waits = ", ".join(f"{wait.what} at {wait.path}" for wait in await self.waits(run)) or "nothing"
            raise AssertionError(f"run {run} has not ended; it waits for {waits}")
        return row

    async def result(self, run: str, within: Duration = "365d") -> Any:
        """Wait for a run's end and return its output.

        Raises:
            RunFailed: it ended otherwise than COMPLETED. AssertionError: it has not ended within a time.
        """
        row = await self.ended(run, within)
        if row.status is not Status.COMPLETED:
            raise RunFailed(row)
        return None if row.output is None else msgspec.json.decode(row.output)

    async def waits(self, run: str) -> list[Wait]:
        """What a run waits for now."""
        return (await self.engine.why(run)).waits

    async def events(self, run: str) -> list[Event]:
        """The run's journal."""
        return await self.store.events((await self.engine.show(run)).run_id)
