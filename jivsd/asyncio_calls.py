"""For plain steps of plugins whose driver knows only asyncio (asyncpg, say): a loop for all of them, in one thread.

    rows = asyncio_calls.run(lambda: fetch(url), timeout=30)

The store's own connections live in another one (`jivsd.bridge`): whatever a plugin does here, the journal goes on.
"""

from __future__ import annotations

import asyncio
import threading
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_making = threading.Lock()


def run(work: Callable[[], Awaitable[T]], *, timeout: float) -> T:
    """Await `work()` in the common loop and return its result; the calling thread waits.

    Call it in plain steps: in an async step or a workflow it would hold up everything.

    Args:
        work: makes the awaitable; what it opens it closes, since a plain step is never cut short from outside.
        timeout: seconds after which the work is cancelled, as asyncio means it.

    Raises:
        TimeoutError: the time is up.
        Exception: whatever the work raised.
    """

    async def limited() -> T:
        async with asyncio.timeout(timeout):
            return await work()

    with _making:
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(limited(), loop).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="jivsd-asyncio-calls", daemon=True).start()
    return loop
