"""Forwarding: what only the owner of a run can do is asked of it through the database, by whichever node was asked.

A person's decision about a live run needs its actor; the answer may be an error that says why not. It is done once or,
when the owner dies over it, not known to be done: whoever asks is told so. Starts and signals need none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.engine import api
from jivsd.engine.api import Conflict, EngineError, Unavailable
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.engine.host import Host
    from jivsd.records import Run
    from jivsd.store.forwarded import Request, Requests

log = logs.get(__name__)

PATIENCE: Final = 15.0
"""Seconds that an answer is waited for."""
FIRST_LOOK: Final = 0.02
LAST_LOOK: Final = 0.25
"""Seconds between two looks for the answer: doubled from the first to the last."""


class _Asked(msgspec.Struct, frozen=True):
    what: str
    arguments: dict[str, Any]


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    """The class of an EngineError."""
    code: str = ""
    message: str = ""
    data: dict[str, Any] = {}


class Forwarding:
    """What is asked of other nodes, and by them."""

    def __init__(self, host: Host, requests: Requests | None) -> None:
        """`requests`: None where no other node can be."""
        self.handlers: dict[str, Callable[..., Awaitable[object]]] = {}
        """What can be asked, by name; each gets the arguments as keywords."""
        self._host = host
        self._requests = requests
        self._due = trio.Event()

    def is_elsewhere(self, run: Run) -> bool:
        """Whether a run is one of another node."""
        holding = self._host.holding
        return holding.shared and run.shard not in holding.shards

    async def ask(self, run: Run, what: str, **arguments: Any) -> msgspec.Raw:
        """Ask the owner of a run; return the answer's JSON.

        Raises:
            EngineError: what it says. Unavailable: it does not answer.
        """
        host, requests = self._host, self._requests
        assert requests is not None
        body = msgspec.json.encode(_Asked(what, arguments))
        number = await requests.put(run.shard, body, host.clock.now())
        host.calling.request(run.shard)
        pause = FIRST_LOOK
        deadline = trio.current_time() + PATIENCE
        while trio.current_time() < deadline:
            await trio.sleep(pause)
            pause = min(pause * 2, LAST_LOOK)
            if (answer := await requests.answered(number)) is not None:
                return _value(msgspec.json.decode(answer, type=_Answer))
        doubt = "" if await requests.withdraw(number) else "; it may yet do it: look before you ask again"
        raise Unavailable(f"the node that has run {run.run_id} does not answer{doubt}", retry_after=5)

    def look(self) -> None:
        """Another node may have asked for something."""
        self._due.set()

    async def run(self) -> None:
        """Do what others ask for, until cancelled."""
        host, requests = self._host, self._requests
        if requests is None:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await self._due.wait()
                self._due = trio.Event()
                since = host.clock.now() - round(PATIENCE * SECOND)
                try:
                    found = await requests.take(host.holding.shards, since) if host.holding.shards else []
                except StoreError as error:
                    log.warning("what other nodes ask for cannot be read", why=str(error))
                    continue
                for request in found:
                    nursery.start_soon(self._carry_out, requests, request)

    async def _carry_out(self, requests: Requests, request: Request) -> None:
        try:
            answer = _Answer(msgspec.Raw(msgspec.json.encode(await self._handled(request.body))))
        except EngineError as error:
            answer = _Answer(error=type(error).__name__, code=error.code, message=str(error), data=error.data)
        except StoreError as error:
            answer = _Answer(error="Unavailable", message=str(error))
        except Exception as error:
            log.error("what another node asked for failed", exc_info=error)
            answer = _Answer(error="Unavailable", message=f"it failed there: {type(error).__name__}")
        try:
            await requests.answer(request.number, msgspec.json.encode(answer))
        except StoreError as error:
            log.warning("another node could not be answered", why=str(error))

    async def _handled(self, body: bytes) -> object:
        asked = msgspec.json.decode(body, type=_Asked)
        handler = self.handlers.get(asked.what)
        if handler is None:
            raise Conflict(f"node {self._host.node} has another version, which does not know {asked.what!r}")
        return await handler(**asked.arguments)


def _value(answer: _Answer) -> msgspec.Raw:
    if answer.error is None:
        return answer.value
    kind = getattr(api, answer.error, EngineError)
    if kind is Conflict:
        raise Conflict(answer.message, code=answer.code, **answer.data)
    raise kind(answer.message, **answer.data)
