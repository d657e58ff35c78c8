"""Threads that own database connections, and how trio calls into them."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apsw

T = TypeVar("T")


class Worker(Protocol):
    """Runs work with a connection."""

    async def call(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work` and return what it returns. Once it has begun it is never cut short: its result always arrives."""
        ...

    async def close(self) -> None:
        """Let what has begun end, and close the connections."""
        ...


class InlineWorker:
    """Works on the caller's thread: for databases in memory, and for tests in which time jumps."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    async def call(self, work: Callable[[apsw.Connection], T]) -> T:
        result = work(self._connection)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def close(self) -> None:
        self._connection.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


class ThreadWorker:
    """One thread for each connection, all fed from one queue; with one connection the calls run in order."""

    def __init__(self, name: str, connections: Sequence[apsw.Connection]) -> None:
        self._calls: SimpleQueue[Callable[[apsw.Connection], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    async def call(self, work: Callable[[apsw.Connection], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()

        def serve(connection: apsw.Connection) -> None:
            result = outcome.capture(work, connection)
            with suppress(trio.RunFinishedError):  # nobody is left to be told; what was committed stays committed
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._calls.put(serve)
        # Not abortable: a caller who left early would not know what was committed.
        return await trio.lowlevel.wait_task_rescheduled(_stay)

    async def close(self) -> None:
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            await trio.to_thread.run_sync(thread.join)

    def _serve(self, connection: apsw.Connection) -> None:
        while (call := self._calls.get()) is not None:
            call(connection)
            del call  # a reference kept while waiting would keep its payloads alive
        connection.close()


def _stay(_: Any) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
