"""Bare connections, for what no HTTP library would send; and the judgement of what comes back."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

TOLD: Final = 20
"""How many wrong answers are told in full."""
CONNECT_WITHIN: Final = 5.0

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_AGAIN: Final = re.compile(rb"\r\nretry-after:", re.IGNORECASE)


class Answer(NamedTuple):
    """What came back: status, head as it was, body."""

    status: int
    head: bytes
    body: bytes


class Target(NamedTuple):
    """What is attacked: a TCP endpoint that wants a token. `reader` is a token that may only look."""

    host: str
    port: int
    token: str
    reader: str

    @property
    def place(self) -> bytes:
        return f"{self.host}:{self.port}".encode()

    @property
    def bearer(self) -> bytes:
        return b"Authorization: Bearer " + self.token.encode() + b"\r\n"


class Findings:
    """Counts answers, and keeps those that should not have been."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.connections = 0
        self.wrong: list[str] = []
        self._open: set[bytes] = set()
        self._lengths: set[bytes] = set()

    def may_be_had(self, body: bytes) -> None:
        """This answer anybody may have, without a token."""
        self._open.add(hashlib.sha256(body).digest())
        self._lengths.add(b"%d" % len(body))

    def judge(self, answer: Answer, what: str, *, trusted: bool) -> None:
        """Note an answer.

        Args:
            answer: what came.
            what: what was asked, in a few words.
            trusted: whether it was asked with a token that allows it; else only what anybody may have is right.
        """
        self.answers[str(answer.status)] += 1
        if answer.status >= 500 and not (answer.status == 503 and _AGAIN.search(answer.head)):
            self.complain(f"{what}: {answer.head.splitlines()[0]!r} {answer.body[:200]!r}")
        elif not trusted and answer.status < 300 and not self._is_open(answer):
            self.complain(f"{what} got past the guard: {answer.status} {answer.body[:200]!r}")

    def complain(self, sentence: str) -> None:
        if len(self.wrong) < TOLD:
            self.wrong.append(sentence)

    def _is_open(self, answer: Answer) -> bool:
        if not answer.body and (length := _LENGTH.search(answer.head)) is not None:  # to HEAD
            return length[1] in self._lengths
        return answer.status == 100 or hashlib.sha256(answer.body).digest() in self._open


class Peer:
    """One side of a connection that does as it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._heard = bytearray()

    async def send(self, data: bytes) -> bool:
        """Send, as long as the other side takes it; whether it took all."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def answer(self, *, head_only: bool = False) -> Answer | None:
        """The next answer, None when the other side has closed. What is no HTTP/1.1 has the status 0."""
        while b"\r\n\r\n" not in self._heard:
            if not b"HTTP/".startswith(self._heard[:5]):
                return Answer(0, bytes(self._heard), b"")
            if not await self._hear():
                return None
        head, _, rest = bytes(self._heard).partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        size = int(length[1]) if length is not None and not head_only and status not in (204, 304) else 0
        self._heard = bytearray(rest)
        while len(self._heard) < size:
            if not await self._hear():
                return None
        body = bytes(self._heard[:size])
        del self._heard[:size]
        return Answer(status, head, body)

    async def until_closed(self) -> None:
        """Throw away what comes until the other side closes."""
        while await self._hear():
            self._heard.clear()

    async def _hear(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._heard += data
        return bool(data)


@asynccontextmanager
async def connected(target: Target, findings: Findings) -> AsyncGenerator[Peer | None]:
    """A connection that is closed at the end without farewell; None: there was none to be had."""
    peer = await connect(target, findings)
    try:
        yield peer
    finally:
        if peer is not None:
            peer.stream.socket.close()


async def connect(target: Target, findings: Findings) -> Peer | None:
    """A connection, None: there was none to be had."""
    sock = trio.socket.socket()
    try:
        with trio.fail_after(CONNECT_WITHIN):
            await sock.connect((target.host, target.port))
    except (OSError, trio.TooSlowError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    findings.connections += 1
    return Peer(trio.SocketStream(sock))
