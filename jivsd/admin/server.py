"""Serves the application on a Unix socket and on TCP, so that no client can hold anything for longer than it may.

hypercorn speaks HTTP; its trio server gives up neither on a client that does not read nor on one that sends nothing
after its headers, and one connection's crash ends it. So connections are accepted here, each gets hypercorn's protocol
on a stream with a deadline, and what goes wrong in one stays there.
"""

from __future__ import annotations

import logging
import math
import pwd
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from jivsd import logs
from jivsd.admin.patience import Patience
from jivsd.admin.problems import Problem
from jivsd.jsonguard import MAX_BYTES
from jivsd.listening import address_of, close

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.typing import ASGIFramework

HEADER_DEADLINE: Final = 10.0
"""Seconds from connecting, or from the last answer, until a request's headers have arrived."""
SEND_DEADLINE: Final = 10.0
"""Seconds in which a client has to take the next piece of an answer."""
SEND_PIECE: Final = 64 * 1024
GRACE: Final = 5.0
"""Seconds that requests have to end when the server is told to."""
MAX_CONNECTIONS: Final = 512
"""For each socket; one that is flooded leaves the others free."""

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid

_log = logs.get("jivsd.admin")


class Server:
    """Serves an application on listening sockets, as a child of a supervisor.

    The sockets stay open when it ends: a server that is run again on them takes up whoever has come meanwhile.

    Args:
        app: an ASGI application. Its scopes have the state `door` ("unix" or "tcp"), `patience`, and on the Unix
            socket `user`, the name of the user at the other end.
        listeners: what `listen_unix` and `listen_tcp` return.
        lent: further ones, of which other processes have copies: a Unix socket's file is left to them.
        grace: seconds that requests have to end after `drain`.
    """

    def __init__(
        self,
        app: ASGIFramework,
        listeners: Sequence[socket.socket],
        *,
        lent: Sequence[socket.socket] = (),
        grace: float = GRACE,
    ) -> None:
        self._app = ASGIWrapper(_sends_to_the_end(app))
        self._own = list(listeners)
        self._listeners = [*listeners, *lent]
        self._grace = grace
        self._config = _config()
        self._draining = trio.Event()

    def drain(self) -> None:
        """Ask `run` to take no more connections, let requests end and return."""
        self._draining.set()

    def close(self) -> None:
        """Close the listening sockets for good."""
        for listener in self._listeners:
            close(listener) if listener in self._own else listener.close()

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until drained or cancelled; ready at once, with the addresses served."""
        self._draining = trio.Event()
        context = WorkerContext(None)
        patience = Patience()
        doors = [_Door(self._app, self._config, context, patience, listener) for listener in self._listeners]
        async with trio.open_nursery() as conversations:
            try:
                async with trio.open_nursery() as accepting:
                    for door in doors:
                        accepting.start_soon(door.accept, conversations)
                    task_status.started([address_of(listener) for listener in self._listeners])
                    await self._draining.wait()
                    accepting.cancel_scope.cancel()
                patience.end()
                await context.terminated.set()  # closes idle connections now and the others after their answer
                with trio.move_on_after(self._grace):
                    for door in doors:
                        await door.wait_until_empty()
            finally:
                # hypercorn shields its writes from cancellation: only a closed socket ends one that nobody reads
                for door in doors:
                    door.slam()
                conversations.cancel_scope.cancel()


class _Door:
    """A listening socket and the connections that came through it."""

    def __init__(
        self, app: ASGIWrapper, config: Config, context: WorkerContext, patience: Patience, listener: socket.socket
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._patience = patience
        self._listener = listener
        self._open: set[_Connection] = set()
        self._left = trio.Event()

    async def accept(self, conversations: trio.Nursery) -> None:
        """Accept connections until cancelled; they live in the nursery given."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener.dup()))
        await trio.serve_listeners(self._converse, [listener], handler_nursery=conversations)

    async def wait_until_empty(self) -> None:
        while self._open:
            self._left = trio.Event()
            await self._left.wait()

    def slam(self) -> None:
        """Close all connections, whatever is under way on them."""
        for connection in self._open:
            connection.abort()

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = _Connection(stream)
        if len(self._open) >= MAX_CONNECTIONS:
            await connection.turn_away()
            return
        self._open.add(connection)
        try:
            state = ConnectionState(await self._introduction(stream.socket))
            # TCPServer asks for an SSLStream and is content with what has the methods of _Connection
            protocol = TCPServer(self._app, self._config, self._context, cast("Any", state), cast("Any", connection))
            with connection.life:
                await protocol.run()
        except* Exception as failures:
            _log.warning("connection_failed", exc_info=failures)
        finally:
            self._open.discard(connection)
            self._left.set()
            connection.abort()

    async def _introduction(self, sock: trio.socket.SocketType) -> dict[str, object]:
        """What requests may know of the connection that they come by."""
        if self._listener.family != socket.AF_UNIX:
            return {"door": "tcp", "patience": self._patience}
        return {"door": "unix", "patience": self._patience, "user": await _user_of(sock)}


class _Connection:
    """A client's stream, as hypercorn's TCPServer wants it, with an end to its patience."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.send_eof = stream.send_eof
        self.life = trio.CancelScope()
        """Ends when the client has gone: hypercorn would keep the connection until its idle time is over."""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        data = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                self.life.cancel()
        return data

    async def send_all(self, data: bytes) -> None:
        """Send, giving each piece the same time: an answer may be long, but not stand still.

        Raises:
            trio.BrokenResourceError: the client does not read, or has gone.
        """
        whole = memoryview(data)
        for start in range(0, len(whole), SEND_PIECE):
            with trio.move_on_after(SEND_DEADLINE) as patience:
                await self._stream.send_all(whole[start : start + SEND_PIECE])
            if patience.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("the client does not read")

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Close the socket at once; calls under way on it end with an error."""
        self.socket.close()

    async def turn_away(self) -> None:
        """Say that there are too many connections, and close."""
        problem = Problem(503, "unavailable", "there are too many connections", headers={"Retry-After": "1"})
        body = problem.document()
        lines = [f"{name}: {value}" for name, value in problem.headers.items()]
        head = "\r\n".join(["HTTP/1.1 503 Service Unavailable", *lines, f"Content-Length: {len(body)}", "", ""])
        with trio.move_on_after(1):
            await self._stream.send_all(head.encode() + body)
        self.abort()


_users: Final[dict[int, str]] = {}


async def _user_of(sock: trio.socket.SocketType) -> str:
    """The name of the user at the other end of a Unix socket, as the kernel has it; its number if it has no name."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    if user not in _users:
        try:
            found = await trio.to_thread.run_sync(pwd.getpwuid, user)  # may ask a directory service
        except KeyError:
            return f"uid {user}"
        _users[user] = found.pw_name
    return _users[user]


def _sends_to_the_end(app: ASGIFramework) -> ASGIFramework:
    """Shield what an application sends from its own cancellation.

    hypercorn tells the application that the exchange is over before it has made the connection ready for the next one,
    or closed it; Quart then cancels the task that hypercorn does this in, and the connection would stay as it is for
    ever. A send is bounded by `_Connection.send_all`, and by its socket's end.
    """

    async def shielded(scope: Any, receive: Any, send: Any) -> None:
        async def send_to_the_end(message: Any) -> None:
            with trio.CancelScope(shield=True):
                await send(message)

        await app(scope, receive, send_to_the_end)

    return shielded


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = HEADER_DEADLINE  # also how long it waits for the headers of a first request
    config.keep_alive_max_requests = 2**62
    config.websocket_max_message_size = MAX_BYTES
    # With a queue that can fill, hypercorn never gets over a body that is still coming when the answer is out. Quart
    # always reads on, and drops what is beyond MAX_CONTENT_LENGTH.
    config.max_app_queue_size = cast("int", math.inf)
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    return config
