"""As much of PostgreSQL's protocol (version 3) as it takes to lose the answer to a commit.

Described in PostgreSQL's documentation under "Frontend/Backend Protocol".
"""

from __future__ import annotations

from typing import Final

from jivsd.proof.proxy import Cut, Tap

_HEAD: Final = 5
"""Bytes before a message of the server's: what it is, and how long, these four included."""
_ENCRYPTED: Final = (80877103, 80877104)
"""The requests to speak TLS or GSSAPI; the answer is one byte."""
_VERSION: Final = 196608
"""Of a message that begins a session."""
_DONE: Final = b"C"
_READY: Final = b"Z"
_OUTSIDE: Final = b"I"
"""The session is in no transaction: what was asked before has been committed."""


class Losses:
    """Which answers are to be lost; shared by the taps of many sessions."""

    def __init__(self) -> None:
        self.left = 0
        """How many more."""
        self.lost = 0
        """How many were, since `begin`."""
        self._first = ""

    def begin(self, count: int = 1, first: str = "") -> None:
        """Lose the answers to the next so many commits: they have gone through, and their clients, who are cut off,
        never hear of it. The first one is that of a session whose application_name begins with `first`.
        """
        self.left, self.lost, self._first = count, 0, first

    def end(self) -> int:
        """Lose no more; return how many were lost."""
        self.left = 0
        return self.lost

    def concern(self, name: str) -> bool:
        """Whether the next answer to a session of that name is to be lost."""
        return self.left > 0 and (self.lost > 0 or name.startswith(self._first))

    def note(self) -> None:
        """One is lost."""
        self.left -= 1
        self.lost += 1


class PostgresTap(Tap):
    """Follows one session. It must not be encrypted: the client says `sslmode=disable`."""

    def __init__(self, losses: Losses) -> None:
        self.name = ""
        """The session's application_name, once it is known."""
        self._losses = losses
        self._began = b""
        """What the client has sent before its session began."""
        self._session = False
        self._unread = b""
        """The beginning of a message of the server's."""
        self._withheld: list[bytes] = []
        """That something was done, and what came after it."""

    def asked(self, data: bytes) -> bytes:
        """See `Tap.asked`."""
        if not self._session:
            self._began += data
            self._read_beginning()
        return data

    def answered(self, data: bytes) -> bytes:
        """See `Tap.answered`."""
        if not self._session:
            return data  # the answer to a request to encrypt
        self._unread += data
        passed: list[bytes] = []
        while (message := self._next_message()) is not None:
            passed += self._weigh(message)
        return b"".join(passed)

    def _read_beginning(self) -> None:
        while len(self._began) >= 8:
            length, code = _number(self._began[:4]), _number(self._began[4:8])
            if len(self._began) < length:
                return
            message, self._began = self._began[:length], self._began[length:]
            if code in _ENCRYPTED:
                continue
            if code == _VERSION:
                words = message[8:].split(b"\0")
                said = dict(zip(words[::2], words[1::2], strict=False))
                self.name = said.get(b"application_name", b"").decode(errors="replace")
                self._session = True
            return

    def _next_message(self) -> bytes | None:
        if len(self._unread) < _HEAD:
            return None
        size = 1 + _number(self._unread[1:_HEAD])
        if len(self._unread) < size:
            return None
        message, self._unread = self._unread[:size], self._unread[size:]
        return message

    def _weigh(self, message: bytes) -> list[bytes]:
        """What may be handed on, now that this message has come."""
        kind = message[:1]
        if not self._withheld and not (kind == _DONE and self._losses.concern(self.name)):
            return [message]
        self._withheld.append(message)
        if kind != _READY:
            return []
        if message[_HEAD:] == _OUTSIDE and self._losses.concern(self.name):
            self._losses.note()
            raise Cut
        passed, self._withheld = self._withheld, []
        return passed


def _number(four: bytes) -> int:
    return int.from_bytes(four, "big")
