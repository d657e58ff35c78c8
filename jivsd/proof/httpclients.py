"""`python -m jivsd.proof.httpclients SOCKET REQUESTS CLIENTS < REQUEST`: asks the same again and again.

The connections are kept; each sends its next request when it has its answer. It writes when it began and ended.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)


class Refused(Exception):
    """An answer is not what it should be."""


async def ask(path: str, said: bytes, requests: int, clients: int) -> tuple[float, float]:
    """Send a request so often, over so many connections; return when that began and ended.

    Raises:
        Refused: an answer is an error.
    """
    left = iter(range(requests))
    streams = [await trio.open_unix_socket(path) for _ in range(clients)]
    began = time.time()
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(_one_after_another, stream, said, left)
    return began, time.time()


async def _one_after_another(stream: trio.SocketStream, said: bytes, left: Iterator[int]) -> None:
    for _ in left:
        await stream.send_all(said)
        heard = b""
        while not (end := heard.find(b"\r\n\r\n") + 4) > 3:
            heard += await _more(stream)
        length = _LENGTH.search(heard, 0, end)
        if not heard.startswith(b"HTTP/1.1 20") or length is None:
            raise Refused(repr(heard[:500]))
        while len(heard) < end + int(length[1]):
            heard += await _more(stream)


async def _more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65536)
    if not data:
        raise Refused("the connection was closed")
    return bytes(data)


if __name__ == "__main__":
    _, place, count, many = sys.argv
    times = trio.run(ask, place, sys.stdin.buffer.read(), int(count), int(many))
    sys.stdout.write(" ".join(map(str, times)))
