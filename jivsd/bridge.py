"""One thread with a uvloop loop, in which drivers live that know only asyncio; trio calls into it.

A caller who is cancelled leaves at once, while the work goes on to its end or to the end of its time inside the thread:
trio's cancellation is level-triggered and would cut off the release of a connection, too. So a connection is lent and
taken back in one place, `Pool`, that no cancellation of a caller reaches. (DESIGN.md section 8.)
"""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import outcome
import trio
import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
C = TypeVar("C")

CALLS: Final = 1_000
"""How many calls may be under way at once, those included whose callers have left; more callers wait their turn."""
GRACE: Final = 5.0
"""Seconds that calls under way get when the bridge is closed."""
CUT: Final = 1.0
"""Seconds that a call gets to end after it was cut short."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 2.0
"""Seconds between attempts to connect: doubled from the first to the last, half of each at random."""


class BridgeClosed(Exception):
    """The bridge was closed before the call, or before the call had ended."""


class _Call:
    """A call under way, and who waits for it: nobody, once the caller was cancelled."""

    __slots__ = ("task", "timeout", "work")

    def __init__(self, work: Callable[[], Awaitable[Any]], timeout: float, task: trio.lowlevel.Task) -> None:
        self.work = work
        self.timeout = timeout
        self.task: trio.lowlevel.Task | None = task


class Bridge:
    """The thread and its loop. Belongs to the trio run that enters it; an `async with` closes it."""

    def __init__(self, name: str = "jivsd-bridge", *, calls: int = CALLS, blocking: bool = False) -> None:
        """Prepare; entering it starts the thread.

        Args:
            name: of the thread.
            calls: how many may be under way.
            blocking: whether trio stands still during a call: for tests in which time jumps as soon as all tasks wait.
        """
        self._name = name
        self._blocking = blocking
        self._places = trio.Semaphore(calls)
        self._closed = True
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._token: trio.lowlevel.TrioToken
        self._stop: asyncio.Future[float]
        self._open: set[_Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_acts: list[Callable[[], None]] = []

    @property
    def under_way(self) -> int:
        """How many calls have not ended."""
        return len(self._open)

    def start(self) -> None:
        """Start the thread. May be called again after `close`."""
        self._token = trio.lowlevel.current_trio_token()
        self._loop = uvloop.new_event_loop()
        self._stop = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._closed = False
        self._thread.start()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(self, work: Callable[[], Awaitable[T]], *, timeout: float) -> T:
        """Await `work()` in the bridge's loop and return its result.

        A caller who is cancelled leaves at once, and nobody hears what becomes of the work; it is never cut short by
        that.

        Args:
            work: makes the awaitable; called in the bridge's thread.
            timeout: seconds after which the work is cut short (cancelled, as asyncio means it).

        Raises:
            BridgeClosed: the bridge is closed, or was closed meanwhile.
            TimeoutError: the time is up.
            Exception: whatever the work raised.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        if self._closed:
            self._places.release()
            raise BridgeClosed("the bridge is closed")
        if self._blocking:
            return await self._stand_still(work, timeout)
        call = _Call(work, timeout, trio.lowlevel.current_task())
        self._open.add(call)
        self._loop.call_soon_threadsafe(self._begin, call)

        def leave(_: Any) -> trio.lowlevel.Abort:
            call.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(leave)

    async def _stand_still(self, work: Callable[[], Awaitable[T]], timeout: float) -> T:
        async def limited() -> T:
            async with asyncio.timeout(timeout):
                return await work()

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()
        finally:
            self._places.release()
            await trio.lowlevel.cancel_shielded_checkpoint()

    def soon(self, act: Callable[[], object]) -> None:
        """Have something done in the loop, in the order of these calls and of `call`; nobody hears what becomes of it.

        Nothing is done if the bridge is closed.
        """
        if not self._closed:
            self._loop.call_soon_threadsafe(act)

    def at_close(self, act: Callable[[], None]) -> None:
        """Have something done in the loop when the bridge is closed, before the calls under way have ended."""
        self._last_acts.append(act)

    async def close(self, grace: float = GRACE) -> None:
        """Take no more calls, let those under way end, cut them short after `grace` seconds, end the thread.

        Returns within about `grace` + 2 s whatever the calls do. Closing it again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._stop.set_result, grace)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join, grace + 2 * CUT)
            heard = trio.Event()
            trio.lowlevel.current_trio_token().run_sync_soon(
                heard.set
            )  # comes after every answer that the thread has given
            await heard.wait()
        for call in tuple(self._open):
            self._end(call, outcome.Error(BridgeClosed("the bridge was closed, and the call did not end")))

    # ---- in the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _serve(self) -> None:
        grace = await self._stop
        while self._last_acts:
            self._last_acts.pop()()
        await self._wait_for_tasks(grace)
        for task in self._tasks:
            task.cancel()
        await self._wait_for_tasks(CUT)

    async def _wait_for_tasks(self, seconds: float) -> None:
        """Wait until there are none, those included that begin meanwhile."""
        deadline = self._loop.time() + seconds
        while self._tasks and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    def look_after(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In the loop: begin work that outlives its call; a bridge that is closed gives it the same time to end."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, call: _Call) -> None:
        self.look_after(self._work(call))

    async def _work(self, call: _Call) -> None:
        result: outcome.Outcome[Any]
        try:
            async with asyncio.timeout(call.timeout):
                result = outcome.Value(await call.work())
        except asyncio.CancelledError:
            result = outcome.Error(BridgeClosed("the bridge was closed while the call was under way"))
        except BaseException as error:
            result = outcome.Error(error)
        with suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(self._end, call, result)

    # ---- back in trio

    def _end(self, call: _Call, result: outcome.Outcome[Any]) -> None:
        if call not in self._open:
            return  # it was given up when the bridge was closed
        self._open.remove(call)
        self._places.release()
        if call.task is not None:
            trio.lowlevel.reschedule(call.task, result)


class Usage(NamedTuple):
    """How much a pool has to do. The bridge's thread counts; a look from trio sees some of it a moment late."""

    open: int
    """Connections that there are."""
    used: int
    """Connections that are lent."""
    waiting: int
    """Pieces of work that wait for one."""
    made: int
    """Connections ever made; many more than there are: they die."""
    failures: int
    """How often none could be made."""
    most: int
    """Connections that there may be."""


class Pool(Generic[C]):
    """Connections of one kind in a bridge's loop, each lent to one piece of work at a time.

    A connection is made when it is needed. One that is no longer good when its work has ended, or whose work was cut
    short, is dropped. While none can be made, work is refused at once with the last reason, until it is time for the
    next attempt.
    """

    def __init__(
        self,
        bridge: Bridge,
        connect: Callable[[], Awaitable[C]],
        *,
        size: int,
        good: Callable[[C], bool],
        drop: Callable[[C], None],
        spoils: Callable[[Exception], bool] = lambda _: False,
        last_pause: float = LAST_PAUSE,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            bridge: where the connections live.
            connect: makes one; may raise what the driver raises.
            size: how many there may be; more work than that waits its turn.
            good: whether a connection can be lent again.
            drop: closes one at once, without waiting for anything.
            spoils: whether an error out of the work means that its connection is not to be lent again.
            last_pause: the most seconds between attempts to connect.
        """
        self._most = size
        self._size = 0
        self._lent = 0
        self._waiting = 0
        self._made = 0
        self._failures = 0
        self._bridge = bridge
        self._connect = connect
        self._good = good
        self._drop = drop
        self._spoils = spoils
        self._last_pause = last_pause
        self._idle: list[C] = []
        self._places = asyncio.Semaphore(size)
        self._connecting = asyncio.Lock()
        self._failure: Exception | None = None
        self._next_attempt = 0.0
        self._pause = FIRST_PAUSE
        self._closed = False
        bridge.at_close(self._close)

    @property
    def size(self) -> int:
        """How many connections there are."""
        return self._size

    @property
    def usage(self) -> Usage:
        """How much the pool has to do."""
        return Usage(self._size, self._lent, self._waiting, self._made, self._failures, self._most)

    async def use(self, work: Callable[[C], Awaitable[T]], *, timeout: float) -> T:
        """From trio: let `work` have a connection for at most `timeout` seconds, and return its result.

        Raises:
            BridgeClosed, TimeoutError: see `Bridge.call`.
            Exception: what the driver said when it could not connect, or whatever the work raised.
        """
        return await self._bridge.call(lambda: self.lend(work), timeout=timeout)

    async def lend(self, work: Callable[[C], Awaitable[T]]) -> T:
        """In the bridge's loop: let `work` have a connection, and return its result."""
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            connection = await self._take()
            return await self._work(connection, work)
        finally:
            self._places.release()

    async def _work(self, connection: C, work: Callable[[C], Awaitable[T]]) -> T:
        back = False
        self._lent += 1
        try:
            result = await work(connection)
            back = True
        except Exception as error:
            back = not self._spoils(error)  # a CancelledError is none of these: it always does
            raise
        finally:
            self._lent -= 1
            self._give_back(connection, unharmed=back)
        return result

    async def close(self) -> None:
        """From trio: drop all connections; those that are lent, when their work has ended. There are no new ones.

        A bridge that is closed does the same with its pools.
        """

        async def close() -> None:
            self._close()

        await self._bridge.call(close, timeout=CUT)

    def _close(self) -> None:
        self._closed = True
        while self._idle:
            self._discard(self._idle.pop())

    async def _take(self) -> C:
        while self._idle:
            connection = self._idle.pop()
            if self._good(connection):
                return connection
            self._discard(connection)
        async with self._connecting:
            return await self._make()

    async def _make(self) -> C:
        if self._closed:
            raise BridgeClosed("the pool is closed")
        if self._failure is not None and monotonic() < self._next_attempt:
            raise self._failure.with_traceback(None)
        try:
            connection = await self._connect()
        except Exception as error:
            self._failures += 1
            self._failure = error
            self._next_attempt = monotonic() + self._pause * random.uniform(0.5, 1)
            self._pause = min(self._pause * 2, self._last_pause)
            raise
        self._failure = None
        self._pause = FIRST_PAUSE
        self._size += 1
        self._made += 1
        return connection

    def _give_back(self, connection: C, *, unharmed: bool) -> None:
        if unharmed and not self._closed and self._good(connection):
            self._idle.append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: C) -> None:
        self._size -= 1
        self._drop(connection)
