"""Serves the application on a Unix socket and on TCP; what goes wrong in one connection stays there."""

from __future__ import annotations

import logging
import math
import pwd
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from jivsd import logs
from jivsd.admin.conversation import Conversation, Room
from jivsd.admin.patience import Patience
from jivsd.admin.tidying import Tidying
from jivsd.jsonguard import MAX_BYTES
from jivsd.listening import address_of, close

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.typing import ASGIFramework

PING: Final = 20.0
"""Seconds between pings over a WebSocket: what lies in between keeps it open, and a host that has gone is noticed."""
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
        self._app = ASGIWrapper(app)
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
        patience, tidying = Patience(), Tidying()
        doors = [
            _Door(self._app, self._config, context, patience, Room(tidying), listener) for listener in self._listeners
        ]
        async with trio.open_nursery() as conversations:
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(tidying.run)
                    for door in doors:
                        accepting.start_soon(door.accept, conversations)
                    task_status.started([address_of(listener) for listener in self._listeners])
                    await self._draining.wait()
                    accepting.cancel_scope.cancel()
                patience.end()
                await context.terminated.set()  # closes connections after their answer
                for door in doors:
                    door.let_idle_leave()
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
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        patience: Patience,
        room: Room,
        listener: socket.socket,
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._patience = patience
        self._listener = listener
        self._room = room
        self._open: set[Conversation] = set()
        self._left = trio.Event()

    async def accept(self, conversations: trio.Nursery) -> None:
        """Accept connections until cancelled; they live in the nursery given."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener.dup()))
        await trio.serve_listeners(self._converse, [listener], handler_nursery=conversations)

    async def wait_until_empty(self) -> None:
        while self._open:
            self._left = trio.Event()
            await self._left.wait()

    def let_idle_leave(self) -> None:
        """End the connections on which no request is under way."""
        for connection in self._open:
            connection.leave_if_idle()

    def slam(self) -> None:
        """Close all connections, whatever is under way on them."""
        for connection in self._open:
            connection.abort()

    async def _converse(self, stream: trio.SocketStream) -> None:
        self._room.tidying.moved()
        connection = Conversation(stream, self._room)
        if len(self._open) >= MAX_CONNECTIONS:
            await connection.turn_away()
            return
        self._open.add(connection)
        try:
            state = ConnectionState(await self._introduction(stream.socket))
            await connection.run(self._app, self._config, self._context, state)
        except* Exception as failures:
            _log.warning("connection_failed", exc_info=failures)
        finally:
            self._open.discard(connection)
            self._room.tidying.moved()
            self._left.set()
            connection.abort()

    async def _introduction(self, sock: trio.socket.SocketType) -> dict[str, object]:
        """What requests may know of the connection that they come by."""
        if self._listener.family != socket.AF_UNIX:
            return {"door": "tcp", "patience": self._patience, "room": self._room}
        return {"door": "unix", "patience": self._patience, "room": self._room, "user": await _user_of(sock)}


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


def _config() -> Config:
    config = Config()
    config.keep_alive_max_requests = 2**62
    config.websocket_max_message_size = MAX_BYTES
    config.websocket_ping_interval = PING
    # With a queue that can fill, hypercorn never gets over a body that is still coming when the answer is out. Routes
    # read bodies before all else, and Quart always reads on; both drop what is beyond a limit.
    config.max_app_queue_size = cast("int", math.inf)
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    return config
