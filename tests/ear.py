"""A service manager that listens, in place of systemd's."""

from __future__ import annotations

import socket
import time

from jivsd.notify import WATCHDOG

PATIENCE = 30


class Ear:
    """The service manager's end of the notify socket."""

    def __init__(self, address):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def next(self, patience=PATIENCE):
        self._socket.settimeout(patience)
        return self._socket.recv(4096).decode().split("\n")

    def until(self, word):
        """Everything that is said until then, but the watchdog's words."""
        said = []
        while word not in said:
            said += [one for one in self.next() if one != WATCHDOG]
        return said

    def longest_silence(self, until):
        """Listen until something is true; the longest time between two pings, in seconds."""
        last, longest = time.monotonic(), 0.0
        while not until():
            try:
                pinged = WATCHDOG in self.next(0.05)
            except TimeoutError:
                pinged = False
            now = time.monotonic()
            longest = max(longest, now - last)
            last = now if pinged else last
        return longest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
