"""What should be refused, request by request: each kind yields bytes for one connection, over and over.

`trusted` says whether a shot presents a token that allows what it asks for. Where it does not, nothing but what anybody
may have is a right answer, however the request is written.
"""

from __future__ import annotations

import json
from itertools import cycle
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from jivsd.proof.hostile.wire import Target

RUNS: Final = b"/api/v1/runs"
STATUS: Final = b"/api/v1/status"
DEEP: Final = 100_000
MEGABYTE: Final = 1024 * 1024
KEY: Final = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"


class Shot(NamedTuple):
    """Bytes for one connection."""

    data: bytes
    trusted: bool = False

    @property
    def shown(self) -> str:
        """The beginning, for people."""
        return repr(self.data[:100])


def request(
    target: Target, line: bytes, *more: bytes, body: bytes = b"", host: bytes | None = None, token: bytes = b""
) -> bytes:
    """A request with a right length. `more` are header lines without their ends; `token` is one with its end."""
    head = [line + b" HTTP/1.1", b"Host: " + (target.place if host is None else host), *more]
    if body:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n" + token + b"\r\n" + body


def deep_json(target: Target, random: Random) -> Iterator[Shot]:
    """Arrays and objects in one another, whole and cut off, as the body and inside of it."""
    shapes = [
        b"[" * DEEP + b"]" * DEEP,
        b"[" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"workflow":"bench","input":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"workflow":"bench","input":' + b'{"a":[' * (DEEP // 2) + b"]}" * (DEEP // 2) + b"}",
        b'"' + b"[" * DEEP + b'"',
        b'{"workflow":"bench","input":"' + b"\\u005b" * DEEP + b'"}',
    ]
    while True:
        body = random.choice(shapes)
        token = random.choice([target.bearer, b""])
        path = random.choice([RUNS, RUNS + b"/bulk", RUNS + b"/x/signals/y"])
        yield Shot(request(target, b"POST " + path, body=body, token=token), bool(token))


def huge_json(target: Target, random: Random) -> Iterator[Shot]:
    """As large as is allowed and larger, and slow to read in every way that JSON knows."""
    most = MEGABYTE - 200
    fillings = [
        b"[" + b",".join([b"1"] * (most // 2)) + b"]",
        b"[" + b",".join([b"{}"] * (most // 3)) + b"]",
        b"[" + b",".join([b'""'] * (most // 3)) + b"]",
        b"{" + b",".join(b'"%d":0' % number for number in range(most // 11)) + b"}",
        b"9" * most,
        b"1." + b"0" * most,
        b"1e" + b"9" * most,
        b'"' + b"x" * most + b'"',
        b'"' + b"\\u0041" * (most // 6) + b'"',
        b'"' + b'\\"' * (most // 2),
        b'"' + b"\xf0\x9f\x98\x80" * (most // 4) + b'"',
        b"[" + b"-1.5e300," * (most // 10) + b"0]",
        b" " * most,
        b"[" * 60 + b",".join([b"null"] * (most // 5 - 60)) + b"]" * 60,
        b'{"workflow":"bench","input":' + json.dumps(["x" * 1000] * 900).encode() + b"}",
        b'{"workflow":"nobody","input":' + b"[" + b",".join([b"{}"] * (most // 3 - 20)) + b"]}",
        b"x" * (2 * MEGABYTE),
        b"[" + b"0," * (4 * MEGABYTE) + b"0]",
    ]
    while True:
        path = random.choice([RUNS, RUNS + b"/bulk", RUNS + b"/x/updates/y"])
        yield Shot(request(target, b"POST " + path, body=random.choice(fillings), token=target.bearer), trusted=True)


def headers(target: Target, random: Random) -> Iterator[Shot]:
    """Huge ones, very many, and such as are none."""
    line = b"GET " + STATUS
    bad = [
        [b"X: " + b"y" * 100_000],
        [b"X: " + b"y" * 16_000],
        [b"X-%d: y" % number for number in range(10_000)],
        [b"X-%d: y" % number for number in range(900)],
        [b"y" * 50_000 + b": x"],
        [b": x"],
        [b"no colon"],
        [b"X: a\r\n b\r\n\tc"],
        [b"X: a\0b"],
        [b"X\0: a"],
        [b"X: \xff\xfe\x80"],
        [b"X: a\nAuthorization: Bearer " + target.token.encode() + b"x"],
        [b"Authorization: Bearer " + b"A" * 15_000],
        [b"Authorization: Bearer \xff\xfe"],
        [b"Cookie: " + b"a=b; " * 3_000],
        [b"If-None-Match: " + b'"x",' * 3_000],
        [b"Range: bytes=" + b"0-," * 4_000],
        [b"Accept-Encoding: " + b"gzip," * 3_000],
        [b"Expect: 100-continue"],
        [b"Expect: the-unexpected"],
        [b"Host: " + target.place],
        [b"Connection: " + b"close," * 2_000],
        [b"Content-Type: multipart/form-data; boundary=" + b"-" * 10_000],
    ]
    while True:
        yield Shot(request(target, line, *random.choice(bad)))


def chunks(target: Target, random: Random) -> Iterator[Shot]:
    """Bodies in chunks that are not as they should be, or very many."""
    bodies = [
        b"ffffffffffffffffffff\r\nx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n",
        b"5;" + b"e" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"1;" + b"e" * 15_000 + b"\r\nx\r\n",
        b"1\r\n{\r\n" * 20_000 + b"0\r\n\r\n",
        b"1\r\n{\r\n" * 200_000,
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"5\r\nhel",
        b"5\nhello\n0\n\n",
        b"0\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"0\r\nAuthorization: Bearer " + target.token.encode() + b"\r\n\r\n",
        b"100000\r\n" + b"[" * MEGABYTE + b"\r\n0\r\n\r\n",
        b"\r\n\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"05\r\nhello\r\n00000000000000000000000000\r\n\r\n",
    ]
    while True:
        token = random.choice([target.bearer, b""])
        head = request(target, b"POST " + RUNS, b"Transfer-Encoding: chunked", token=token)
        yield Shot(head + random.choice(bodies), bool(token))


def smuggling(target: Target, random: Random) -> Iterator[Shot]:
    """Two requests in what looks like one, or one that two readers would end at different places.

    The first asks for what anybody may have, the one inside for what nobody may have without a token.
    """
    inside = request(target, b"GET " + STATUS)
    chunked = b"0\r\n\r\n" + inside
    length, transfer = b"Content-Length: %d", b"Transfer-Encoding: chunked"
    forms: list[tuple[list[bytes], bytes]] = [
        ([length % len(chunked), transfer], chunked),
        ([transfer, length % len(chunked)], chunked),
        ([length % 4, transfer], b"%x\r\n" % len(inside) + inside + b"\r\n0\r\n\r\n"),
        ([transfer, b"Transfer-Encoding: identity"], chunked),
        ([b"Transfer-Encoding: identity", transfer], chunked),
        ([b"Transfer-Encoding: xchunked"], chunked),
        ([b"Transfer-Encoding: gzip, chunked"], chunked),
        ([b"Transfer-Encoding: chunked, identity"], chunked),
        ([b"Transfer-Encoding : chunked"], chunked),
        ([b"Transfer-Encoding:\tchunked"], chunked),
        ([b"Transfer-Encoding:\x0bchunked"], chunked),
        ([b" Transfer-Encoding: chunked"], chunked),
        ([b"X: y\n" + transfer], chunked),
        ([b"Transfer_Encoding: chunked"], chunked),
        ([b"transfer-encoding: CHUNKED"], chunked),
        ([length % 0, length % len(inside)], inside),
        ([length % len(inside), length % 0], inside),
        ([b"Content-Length: 0, %d" % len(inside)], inside),
        ([b"Content-Length: +%d" % len(inside)], inside),
        ([b"Content-Length: 0%d" % len(inside)], inside),
        ([b"Content-Length : %d" % len(inside)], inside),
        ([b"Content-Length: %d " % len(inside)], inside),
        ([b"Content-Length:"], inside),
        ([], inside),
    ]
    for line in cycle((b"GET /health/live", b"POST /health/live", b"OPTIONS /health/live")):
        lines, body = random.choice(forms)
        head = b"\r\n".join([line + b" HTTP/1.1", b"Host: " + target.place, *lines, b"", b""])
        yield Shot(head + body)
        yield Shot(head.replace(b"HTTP/1.1", b"HTTP/1.0", 1) + body)


def spoofed(target: Target, random: Random) -> Iterator[Shot]:
    """Other hosts' names, other origins' pages, also for WebSockets; the right token does not help them."""
    port = b":%d" % target.port
    hosts = [
        b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example" + port, b"evil.example@127.0.0.1", b"",
        b"localhost:x", b"[::1", b"127.0.0.1" + port + b", evil.example", b"\xff", b"*", b"a" * 10_000, b".", b"%00",
        b"localhost\0", b"evil.example#localhost", b"localhost/../evil",
    ]  # fmt: skip
    origins = [b"https://evil.example", b"null", b"", b"http://" + target.host.encode(), b"file://", b"\xff",
               b"http://" + target.place + b".evil.example", b"http://evil@" + target.place, b"ftp://" + target.place,
               b"http://" + target.place + b", https://evil.example"]  # fmt: skip
    websocket = [b"Connection: Upgrade", b"Upgrade: websocket", KEY.rstrip()]
    paths = [STATUS, RUNS, b"/api/v1/events", b"/health/live", b"/"]
    while True:
        line = b"GET " + random.choice(paths)
        more = random.choice([[], websocket])
        trust = [
            b"X-Forwarded-Host: localhost", b"X-Forwarded-For: 127.0.0.1", b"Forwarded: for=127.0.0.1;host=localhost",
            b"X-Original-URL: /health/live", b"X-Rewrite-URL: /health/live", b"X-HTTP-Method-Override: GET",
            b"X-Remote-User: root", b"Remote-Addr: <local>", b"X-Jivsd-By: root",
        ]  # fmt: skip
        yield Shot(request(target, line, *more, host=random.choice(hosts), token=target.bearer))
        yield Shot(request(target, line, *more, b"Origin: " + random.choice(origins), token=target.bearer))
        yield Shot(request(target, b"GET " + STATUS, *more, *random.sample(trust, 3)))
        yield Shot(request(target, b"GET http://evil.example" + STATUS))
        yield Shot(request(target, b"GET http://localhost" + STATUS, host=b"evil.example", token=target.bearer))


def paths(target: Target, random: Random) -> Iterator[Shot]:
    """Other ways to write a path, in the hope that the guard and the routes read it differently."""
    tricks = [
        b"//api/v1/status", b"/api//v1/status", b"/./api/v1/status", b"/health/live/../../api/v1/status",
        b"/health/live/%2e%2e/%2e%2e/api/v1/status", b"/health/live%2f..%2f..%2fapi%2fv1%2fstatus",
        b"/%61pi/v1/status", b"/api/v1/status/", b"/api/v1/status;/health/live", b"/api/v1/status?/health/live",
        b"/api/v1/status%00/health/live", b"/health/live%00/../../api/v1/status", b"/api/v1/status%20",
        b"/api/v1/status#/health/live", b"/api\\v1\\status", b"/api%5cv1%5cstatus", b"/API/V1/STATUS",
        b"/api/v1/runs/%2e%2e/status", b"/api/v1/runs/..%2fstatus", b"/api/v1/runs/%ff%fe", b"/api/v1/runs/%00",
        b"/api/v1/runs/%0d%0aX:y", b"/static/../api/v1/status", b"/static/%2e%2e/%2e%2e/etc/passwd",
        b"/static//etc/passwd",
        b"/docs/../api/v1/status", b"/api/v1/runs/x/health/live", b"/health", b"/metrics", b"/openapi.json",
        b"/actuator/health", b"/%", b"/%zz", b"/%u002e", b"*", b"", b"x", b"http://", b"http://[", b"//", b"///",
        b"/" + b"a" * 15_000, b"/" + b"a" * 200_000, b"/" + b"../" * 4_000, b"/api/v1/runs/" + b"%2f" * 4_000,
        b"/api/v1/runs/" + b"/".join([b"x"] * 3_000), b"/api/v1/runs?" + b"a=b&" * 3_000, b"/api/v1/runs?limit=%00",
        b"/api/v1/runs?cursor=" + b"%27" * 1_000, b"/api/v1/runs?status=" + b"," * 3_000, b"/api/v1/runs?limit=1e9",
        b"/api/v1/runs?limit=-1", b"/api/v1/runs?\xff=\xfe", b"/api/v1/runs?%ff=%fe", b"/\xf0\x28\x8c\x28",
    ]  # fmt: skip
    while True:
        path = random.choice(tricks)
        token = random.choice([target.bearer, b"", b""])
        yield Shot(request(target, b"GET " + path, token=token), bool(token))


def methods(target: Target, random: Random) -> Iterator[Shot]:
    """Methods that nobody knows, and those of others."""
    names = [
        b"BREW", b"TRACE", b"TRACK", b"CONNECT", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"PROPFIND", b"get",
        b"Get", b"G" * 10_000, b"G\0T", b"G=T", b"PRI", b"-", b"\xff", b"GET GET", b" GET", b"",
    ]  # fmt: skip
    while True:
        token = random.choice([target.bearer, b""])
        path = random.choice([STATUS, RUNS, b"/", b"*", b"localhost:1", RUNS + b"/x"])
        name = random.choice(names)
        yield Shot(request(target, name + b" " + path, token=token), bool(token))


def lengths(target: Target, random: Random) -> Iterator[Shot]:
    """Lengths that are wrong, given twice, or no numbers."""
    body = b'{"workflow":"nobody"}'
    given: list[list[bytes]] = [
        [b"Content-Length: %d" % size] for size in (0, 1, len(body) - 1, len(body) + 10, 10 * MEGABYTE, 2**63, 10**30)
    ]
    given += [[b"Content-Length: " + odd] for odd in (b"-1", b"1e3", b"0x15", b"\xd9\xa1", b"", b"21;", b"21 21")]
    given += [
        [b"Content-Length: %d" % len(body)] * 2,
        [b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 1)],
        [b"Content-Length: 21, 21"],
        [b"Content-Length: " + b"0" * 10_000 + b"21"],
    ]
    while True:
        token = random.choice([target.bearer, b""])
        yield Shot(request(target, b"POST " + RUNS, *random.choice(given), token=token) + body, bool(token))


def encodings(target: Target, random: Random) -> Iterator[Shot]:
    """Bytes that are no UTF-8, wherever there is room for them."""
    odd = [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x82",
        b"\x80" * 50,
        b"\0",
        b"\xfe\xff",
    ]
    while True:
        text = random.choice(odd)
        escaped = b"".join(b"%%%02x" % byte for byte in text)
        bodies = [
            b'{"workflow":"' + text + b'"}', b'{"' + text + b'":1}', text,
            b'{"workflow":"bench","input":"' + text + b'"}',
            b'{"workflow":"nobody","input":"\\ud800"}', b'{"workflow":"nobody","id":"\\u0000"}',
            b'\xef\xbb\xbf{"workflow":"nobody"}', '{"workflow":"nobody"}'.encode("utf-16"),
        ]  # fmt: skip
        token = target.bearer
        yield Shot(request(target, b"POST " + RUNS, body=random.choice(bodies), token=token), trusted=True)
        yield Shot(request(target, b"GET " + RUNS + b"/" + escaped, token=token), trusted=True)
        yield Shot(request(target, b"GET " + RUNS + b"?workflow=" + escaped, token=token), trusted=True)
        yield Shot(
            request(target, b"POST " + RUNS, b"Idempotency-Key: " + text, body=bodies[-1], token=token), trusted=True
        )
        yield Shot(request(target, b"GET " + STATUS, b"X-Jivsd-By: " + text, token=token), trusted=True)


def peers(target: Target, random: Random) -> Iterator[Shot]:
    """The holes that other systems of this kind had (CVE-2020-13927, -2026-3514, -2026-30820, -2026-7723)."""
    reader = b"Authorization: Bearer " + target.reader.encode() + b"\r\n"
    start = b'{"workflow":"bench","input":0}'
    without = [b"GET " + path for path in (
        STATUS, RUNS, b"/api/v1/events", b"/api/v1/workflows", b"/api/v1/plugins", b"/api/v1/incidents", b"/metrics",
        b"/api/v1/outbox", b"/api/v1/locks", b"/api/v1/nodes", b"/openapi.json", b"/api/v1/status/health/live",
        b"/api/v1/runs/health/live", b"/api/v1/runs/health/ready", b"/api/v1/experimental/status", b"/admin", b"/.env",
        b"/api/v1/status?token=" + target.token.encode(), b"/api/v1/status?access_token=" + target.token.encode(),
    )]  # fmt: skip
    presented = [
        b"", b"Authorization: Bearer\r\n", b"Authorization: Bearer \r\n", b"Authorization: Bearer null\r\n",
        b"Authorization: Basic " + target.token.encode() + b"\r\n",
        b"Authorization: " + target.token.encode() + b"\r\n",
        b"Authorization: Bearer " + target.token.encode()[:-1] + b"\r\n", target.bearer[:-2] + b"x\r\n",
        b"Cookie: token=" + target.token.encode() + b"\r\n", b"X-Api-Key: " + target.token.encode() + b"\r\n",
        b"X-Forwarded-User: root\r\nX-Real-IP: 127.0.0.1\r\n", target.bearer + target.bearer, target.bearer + reader,
    ]  # fmt: skip
    acts = [RUNS, RUNS + b"/bulk", RUNS + b"/x/terminate", RUNS + b"/x/cancel", b"/api/v1/plugins/reload",
            RUNS + b"/x/signals/y", b"/api/v1/incidents/x/skip", b"/api/v1/prune"]  # fmt: skip
    while True:
        yield Shot(request(target, random.choice(without), token=random.choice(presented)))
        yield Shot(request(target, b"POST " + random.choice(acts), body=start, token=random.choice([reader, b""])))


def websockets(target: Target, random: Random) -> Iterator[Shot]:
    """Upgrades that are wrong, have a byte too many, or go on with no frames at all."""
    upgrade = [b"Connection: Upgrade", b"Upgrade: websocket", KEY.rstrip()]
    extended = [*upgrade, b"Sec-WebSocket-Extensions: x;" + b"y=1;" * 2_000]
    more = [
        b"", b"X", b"\x81\xff" + b"\xff" * 8, b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00" * 10_000,
        b"\x89\x80\0\0\0\0" * 5_000,
        b"\x01\x80\0\0\0\0" * 5_000, b"\x88\x82\0\0\0\0\x03\xe7", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000,
    ]  # fmt: skip
    while True:
        path = random.choice([b"/api/v1/events", b"/", RUNS, b"/health/live"])
        lines = random.choice([upgrade, upgrade[:2], [*upgrade[:2], b"Sec-WebSocket-Version: 99"], extended])
        token = random.choice([target.bearer, b""])
        yield Shot(request(target, b"GET " + path, *lines, token=token) + random.choice(more), bool(token))


def pipelined(target: Target, random: Random) -> Iterator[Shot]:
    """Very many requests at once on one connection, of which few may be answered."""
    while True:
        asked = [b"GET /health/live", b"GET " + STATUS, b"POST " + RUNS, b"GET /nope", b"BREW /"]
        yield Shot(b"".join(request(target, random.choice(asked)) for _ in range(500)))


ALL: Final[dict[str, Callable[[Target, Random], Iterator[Shot]]]] = {
    "deep JSON": deep_json,
    "huge JSON": huge_json,
    "headers": headers,
    "chunks": chunks,
    "smuggling": smuggling,
    "spoofed Host and Origin": spoofed,
    "paths": paths,
    "methods": methods,
    "lengths": lengths,
    "encodings": encodings,
    "holes of peers": peers,
    "WebSockets": websockets,
    "pipelining": pipelined,
}
"""By name."""
