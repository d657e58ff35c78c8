"""One client's connection: HTTP/1.1 and WebSockets, with an end to its patience, its share of the loop and of memory.

hypercorn speaks HTTP here, and nothing else of it is used: its trio server gives up neither on a client that does not
read nor on one that sends nothing after its headers, its HTTP/2 has no bound for requests that are taken back at once
(CVE-2023-44487), and everybody who has sent something is served in one go, however many they are.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import h11
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup

from jivsd import logs
from jivsd.admin.looks import Looks
from jivsd.admin.problems import BUSY, Problem
from jivsd.admin.tidying import LITTLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState, H11SendableEvent

    from jivsd.admin.tidying import Tidying

_log = logs.get(__name__)

HEADER_DEADLINE: Final = 10.0
"""Seconds from connecting, or from the last answer, until a request's headers have arrived."""
SEND_DEADLINE: Final = 10.0
"""Seconds in which a client has to take the next piece of an answer."""
SEND_PIECE: Final = 64 * 1024
RECEIVE: Final = 4 * 1024
"""Bytes that are taken in at once: as chunks of one byte each that is 25 ms of work."""
TURNS: Final = 1
"""How many of a door's clients are listened to before all that runs in the daemon has its turn."""
ROOM: Final = 32 * 1024 * 1024
"""Bytes of requests that a door keeps for all its clients together until they are answered, and of answers until they
are taken."""
FEW: Final = 10
"""Clients that may be slow to take their answers without being more than what is usual."""


class Room:
    """What the clients of one door share: turns of the loop, and memory for what they send and do not take."""

    def __init__(self, tidying: Tidying) -> None:
        self.tidying = tidying
        tidying.calm.append(self.calm)
        self.turns = trio.Semaphore(TURNS)
        self.looks = Looks()
        self.held = 0
        """Bytes of requests that have not been answered."""
        self._unsent = 0
        self._sending: dict[Conversation, int] = {}
        """How many bytes wait to be taken by whom; who has waited longest comes first."""

    @property
    def full(self) -> bool:
        return self.held > ROOM

    def calm(self) -> bool:
        """Whether little is kept, and for few."""
        return len(self._sending) < FEW and self._unsent + self.held < LITTLE

    @contextmanager
    def sending(self, who: Conversation, size: int) -> Generator[None]:
        """Keep so much for a client while it takes it. If that is too much for all, the slowest are left alone."""
        self._sending[who] = size
        self._unsent += size
        try:
            while self._unsent > ROOM and len(self._sending) > 1:
                self._drop(next(iter(self._sending))).abort()
            yield
        finally:
            self._drop(who)

    def _drop(self, who: Conversation) -> Conversation:
        self._unsent -= self._sending.pop(who, 0)
        return who


class Conversation:
    """A client's stream, with hypercorn's protocol behind it.

    Args:
        stream: the connection.
        room: what is shared with others.
    """

    def __init__(self, stream: trio.SocketStream, room: Room) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._room = room
        self._life = trio.CancelScope()
        """Ends when the client has gone, or has said nothing for too long."""
        self._idle = True
        self._held = 0
        self._sending = trio.Lock()
        self._protocol: _Http

    async def run(self, app: ASGIWrapper, config: Config, context: WorkerContext, state: ConnectionState) -> None:
        """Converse until either side has had enough."""
        try:
            client, server = _address(self.socket.getpeername()), _address(self.socket.getsockname())
        except OSError:
            return  # the client has gone already
        with self._life:
            self._become_idle()
            if not await self._says_something():
                return
            try:
                async with _Tasks() as tasks:
                    self._protocol = _Http(app, config, context, tasks, state, False, client, server, self._obey)
                    self._protocol.turns = self._room.turns
                    await self._listen()
            finally:
                self._settle()
                # all of them know each other: no collector has to find out that they are done with
                self._protocol.stream = None
                del self._protocol

    async def _says_something(self) -> bool:
        """Wait for the first bytes: what is needed to converse takes three times what a client that is silent does."""
        try:
            return await self.socket.recv(1, trio.socket.MSG_PEEK) != b""
        except (OSError, trio.ClosedResourceError):
            return False

    async def _listen(self) -> None:
        while data := await self._receive():
            self._room.tidying.received(len(data))
            if self._protocol.keeps_what_comes:
                self._held += len(data)
                self._room.held += len(data)
                if self._room.full and not self._idle:
                    await self._protocol.refuse(_NO_ROOM)
                    break
            await self._protocol.handle(RawData(bytes(data)))
        self.abort()

    async def _receive(self) -> bytes | bytearray:
        """What has come, in turn: until then it stays with the system, however many have sent something."""
        if self.socket.fileno() < 0:
            return b""  # aborted meanwhile
        try:
            await trio.lowlevel.wait_readable(self.socket)
            async with self._room.turns:
                return await self._stream.receive_some(RECEIVE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _obey(self, event: Event) -> None:
        """Do what the protocol wants done."""
        match event:
            case RawData(data):
                await self._send(data)
            case Updated(True):
                self._become_idle()
            case Updated():
                self._idle = False
                self._life.deadline = math.inf
            case Closed():
                await self._protocol.handle(Closed())
                self.abort()
            case _:
                raise AssertionError(f"hypercorn wants {event!r}")

    def _become_idle(self) -> None:
        self._settle()
        self._idle = True
        self._life.deadline = trio.current_time() + HEADER_DEADLINE

    def _settle(self) -> None:
        """What was sent so far has been answered."""
        self._room.held -= self._held
        self._held = 0

    async def _send(self, data: bytes) -> None:
        """Send, giving each piece the same time: an answer may be long, but not stand still."""
        async with self._sending:
            with self._room.sending(self, len(data)):
                if await self._send_pieces(memoryview(data)):
                    return
        self.abort()
        await self._protocol.handle(Closed())

    async def _send_pieces(self, data: memoryview) -> bool:
        """Whether the client has taken all."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for start in range(0, len(data), SEND_PIECE):
                with trio.move_on_after(SEND_DEADLINE) as patience:
                    await self._stream.send_all(data[start : start + SEND_PIECE])
                if patience.cancelled_caught:
                    return False
            return True
        return False

    def leave_if_idle(self) -> None:
        """End, unless a request is under way."""
        if self._idle:
            self._life.cancel()

    def abort(self) -> None:
        """Close the socket at once, and end what is under way on it, be it that more was asked for."""
        self.socket.close()
        self._life.cancel()

    async def turn_away(self) -> None:
        """Say that there are too many connections, and close."""
        with trio.move_on_after(1):
            head = [b"HTTP/1.1 503 Service Unavailable", *(b": ".join(header) for header in _headers(_TOO_MANY))]
            await self._stream.send_all(b"\r\n".join([*head, b"", _TOO_MANY.document()]))
        self.abort()


def _address(name: tuple[Any, ...] | str | bytes) -> tuple[str, int] | None:
    """The address of a TCP socket, as ASGI has it; Unix sockets have none."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


class _Tasks(TaskGroup):
    """The tasks of one connection, a task for each request. What hypercorn's holds of those that are cut short is left
    to the collector.
    """

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        outgoing, incoming = trio.open_memory_channel[Any](config.max_app_queue_size)
        cast("Any", self).spawn(self._answer, partial(app.app, scope, incoming.receive, send), send)
        return outgoing.send

    async def _answer(self, app: Callable[[], Awaitable[None]], send: Callable[[None], Awaitable[None]]) -> None:
        try:
            await app()
        except* Exception as errors:
            _log.error("request_failed", exc_info=errors)
        finally:
            await send(None)


class _Connection(h11.Connection):
    """h11's connection, whose errors do not hold what they were raised in: they hold themselves that way."""

    def next_event(self) -> Any:
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            raise error.with_traceback(None) from None


class _Http(H11Protocol):
    """HTTP/1.1 and upgrades to WebSockets. What cannot be understood in one way only is refused."""

    turns: trio.Semaphore
    _refused = False
    _unsent = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = _Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    @property
    def keeps_what_comes(self) -> bool:
        """Whether what is received is kept until it has been answered: not the messages of a WebSocket."""
        return isinstance(self.connection, h11.Connection)

    async def refuse(self, problem: Problem) -> None:
        """Say why this connection ends here, unless an answer has begun, and end it."""
        await self._say(problem)
        await self.send(Closed())

    async def stream_send(self, event: StreamEvent) -> None:
        if not self._refused:
            await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            self._unsent += self.connection.send(event) or b""
            if self._unsent and not isinstance(event, h11.Response):  # a head goes with what comes next, in one piece
                data, self._unsent = self._unsent, b""
                await self.send(RawData(data))
        except h11.LocalProtocolError:
            # answered twice: hypercorn does so itself when more comes before a WebSocket is accepted
            self._refused = True
            await self.send(Closed())

    async def _create_stream(self, request: h11.Request) -> None:
        names = {name for name, _ in request.headers}
        if request.http_version > b"1.1":
            await self.refuse(Problem(400, "bad_request", "HTTP/1.1 is spoken here"))
        elif b"content-length" in names and b"transfer-encoding" in names:
            # RFC 9112, 6.3: who passed it on may have read it otherwise
            await self.refuse(Problem(400, "bad_request", "the body has both a length and chunks"))
        else:
            async with self.turns:  # one for each request: many may have come in one piece
                pass
            await super()._create_stream(request)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Let a wish for HTTP/2 be, as RFC 9110, 7.8 allows."""

    async def _send_error_response(self, status_code: int) -> None:
        status = status_code if status_code in _FAULTS else 400
        await self._say(Problem(status, "bad_request", _FAULTS[status]))

    async def _say(self, problem: Problem) -> None:
        self._refused = True
        if self.connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body, headers = problem.document(), [*_headers(problem), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=problem.status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


_FAULTS: Final = {
    400: "this is not HTTP as RFC 9112 has it",
    413: "the body is too large",
    414: "the address is too long",
    431: "the headers are too large",
}
_NO_ROOM: Final = Problem(503, "unavailable", "too much is being sent at once", headers=BUSY)
_TOO_MANY: Final = Problem(503, "unavailable", "there are too many connections", headers=BUSY)


def _headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    more = {"Content-Length": str(len(problem.document())), "Connection": "close"}
    return [(name.encode(), value.encode()) for name, value in (problem.headers | more).items()]
