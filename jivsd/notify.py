"""Tells whoever started this process how it is, in the words of systemd's sd_notify(3).

systemd listens on the socket that `$NOTIFY_SOCKET` names; the parent of several workers on one end of a socket pair.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jivsd import logs

if TYPE_CHECKING:
    from collections.abc import MutableMapping

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"

log = logs.get(__name__)


class Notifier:
    """Says it to a connected socket of datagrams, or to nobody. Never blocks and never raises.

    Args:
        line: the socket; None: nobody listens.
        watchdog: seconds within which `WATCHDOG` is expected again; None: it is not.
    """

    def __init__(self, line: socket.socket | None = None, watchdog: float | None = None) -> None:
        self._line = line
        self.watchdog = watchdog
        if line is not None:
            line.setblocking(False)

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Of this process's environment. What is found is taken out of it: programs that we start are not asked."""
        address = environ.pop("NOTIFY_SOCKET", "")
        period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        if not address.startswith(("/", "@")):
            return cls()
        line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            line.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            line.close()
            log.warning("nobody can be told that the daemon is ready", notify_socket=address, why=error.strerror)
            return cls()
        ours = period.isdecimal() and int(period) > 0 and pid == str(os.getpid())
        return cls(line, int(period) / 1e6 if ours else None)

    def send(self, *states: str) -> None:
        """Say how this process is: `READY`, or `STATUS=…`, several in one message."""
        if self._line is not None:
            with suppress(OSError):  # nobody listens any more, or too slowly: the next word will do
                self._line.send("\n".join(states).encode())

    def reloading(self) -> None:
        """Say that the configuration is loaded again; `READY` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Say nothing more."""
        if self._line is not None:
            self._line.close()
            self._line = None
