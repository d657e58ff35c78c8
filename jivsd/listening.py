"""Opens the sockets that the daemon listens on. Imports little: whoever starts several workers opens theirs."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG: Final = 128
SOCKET_MODE: Final = 0o660
OPEN: Final = "everybody on this host may use the endpoint: no token is configured"
"""What the log says of a TCP port that needs none."""


class CannotListen(Exception):
    """A socket cannot be opened; the message says which, why, and what would help."""


def listen_unix(path: Path) -> socket.socket:
    """Open the Unix socket for the owner and the group of the process. A socket file that nobody answers is replaced.

    Raises:
        CannotListen: another process answers there, or the file system does not let us.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux the file gets the mode that the socket has: there is no moment at which others could connect.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot open the socket {path}: {error.strerror or error}") from None
    return listener


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Open a TCP port on every address of a host; port 0 is any free one.

    Raises:
        CannotListen: the host has no address here, or the port is taken.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listeners


def close(listener: socket.socket) -> None:
    """Close a listening socket for good, and remove a Unix socket's file."""
    if listener.family == socket.AF_UNIX:
        with suppress(OSError):
            os.unlink(listener.getsockname())
    listener.close()


def address_of(listener: socket.socket) -> str:
    """Where a listening socket can be reached: `unix:/path` or `http://host:port`."""
    name = listener.getsockname()
    match listener.family:
        case socket.AF_UNIX:
            return f"unix:{name}"
        case socket.AF_INET6:
            return f"http://[{name[0]}]:{name[1]}"
        case _:
            return f"http://{name[0]}:{name[1]}"


def _remove_stale(path: Path) -> None:
    """Remove a Unix socket's file if nobody answers there.

    Raises:
        CannotListen: somebody does, or it is not a socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotListen(f"cannot open the socket {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"cannot open the socket {path}: there is a file of that name that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CannotListen(f"cannot open the socket {path}: {error.strerror or error}") from None
        else:
            raise CannotListen(f"another daemon answers at {path}: stop it, or choose another data folder")
