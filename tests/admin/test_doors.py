"""Nobody holds a door for longer than he may, and what one connection does, no other notices."""

from __future__ import annotations

import os
import socket
import stat
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from admin.serving import Refusing, connected, serving
from jivsd.admin import conversation
from jivsd.admin import server as doors
from jivsd.admin.app import create_app
from jivsd.admin.server import Server
from jivsd.engine.api import NotFound
from jivsd.jsonguard import MAX_BYTES
from jivsd.listening import CannotListen, address_of, close, listen_tcp, listen_unix

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
NOBODY = NotFound("nobody")
both = pytest.mark.parametrize("door", ["unix", "tcp"])


class Slow:
    """An engine whose `show` takes until somebody lets it go, and whose `timeline` is too long to be sent at once."""

    def __init__(self):
        self.asked = trio.Event()
        self.released = trio.Event()
        self.cancelled = False

    async def show(self, ref):
        self.asked.set()
        try:
            await self.released.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        raise NOBODY

    async def timeline(self, ref, after, limit):
        raise NotFound("x" * 20_000_000)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch):
    """A jump of time would not wait for the thread that looks up the user's name."""
    monkeypatch.setitem(doors._users, os.getuid(), "me")


def post(size, sent, target="/api/v1/runs"):
    return f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * sent


# ---- sockets


def test_the_unix_socket_is_for_owner_and_group_whatever_the_umask(tmp_path):
    path = tmp_path / "jivsd.sock"
    for mask in (0, 0o022, 0o177):
        before = os.umask(mask)
        try:
            listener = listen_unix(path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert address_of(listener) == f"unix:{path}"
        close(listener)
        assert not path.exists()


def test_a_socket_that_nobody_answers_is_replaced(tmp_path):
    path = tmp_path / "jivsd.sock"
    listen_unix(path).close()
    assert path.exists()
    close(listen_unix(path))


def test_a_socket_that_somebody_answers_is_left_alone(tmp_path):
    path = tmp_path / "jivsd.sock"
    first = listen_unix(path)
    with pytest.raises(CannotListen, match=r"another daemon answers at .*jivsd\.sock"):
        listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(first)


def test_what_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "jivsd.sock"
    path.write_text("precious")
    with pytest.raises(CannotListen, match="a file of that name that is no socket"):
        listen_unix(path)
    assert path.read_text() == "precious"
    with pytest.raises(CannotListen, match="No such file or directory"):
        listen_unix(tmp_path / "none" / "jivsd.sock")


def test_a_taken_port_and_an_unknown_host_are_told():
    listener = listen_tcp("127.0.0.1", 0)[0]
    port = listener.getsockname()[1]
    with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        listen_tcp("127.0.0.1", port)
    close(listener)
    with pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1:80"):
        listen_tcp("192.0.2.1", 80)


# ---- patience


@both
@pytest.mark.jump
@pytest.mark.parametrize("said", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "a word", "half"])
async def test_slow_headers_are_not_waited_for(tmp_path, door, said):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as wire:
        await wire.send(said)
        start = trio.current_time()
        assert await wire.is_closed()
        assert trio.current_time() - start <= conversation.HEADER_DEADLINE + 1


@both
@pytest.mark.jump
async def test_an_idle_connection_is_closed(tmp_path, door):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as wire:
        for _ in range(3):
            await trio.sleep(conversation.HEADER_DEADLINE / 2)
            await wire.send(LIVE)
            assert (await wire.answer())[0] == 200
        start = trio.current_time()
        assert await wire.is_closed()
        assert trio.current_time() - start <= conversation.HEADER_DEADLINE + 1


@both
@pytest.mark.jump
async def test_a_slow_body_is_not_waited_for(tmp_path, door):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as wire:
        start = trio.current_time()
        await wire.send(post(1000, 10))
        status, headers, body = await wire.answer()
        assert status == 408
        assert headers["content-type"] == "application/problem+json"
        assert b"the body did not arrive in time" in body
        assert await wire.is_closed()
        assert trio.current_time() - start <= 12


@both
@pytest.mark.jump
async def test_a_client_that_does_not_read_is_dropped(tmp_path, door):
    async with serving(tmp_path, Slow()) as served, connected(served, door) as wire:
        start = trio.current_time()
        await wire.send(b"GET /api/v1/runs/x/timeline HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.sleep(conversation.SEND_DEADLINE + 1)
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await wire.answer()
        assert trio.current_time() - start <= 12


@both
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 20 * MAX_BYTES])
async def test_a_large_body_is_refused_and_the_connection_closed(tmp_path, door, size):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as wire:
        await wire.send(post(size, 100_000))
        status, _, body = await wire.answer()
        assert status == 413
        assert b'"code":"too_large"' in body
        assert await wire.is_closed()


@both
async def test_a_body_without_a_length_is_bounded_too(tmp_path, door):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as wire:
        await wire.send(b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_BYTES // 65536 + 1):
            await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        status, _, body = await wire.answer()
        assert status == 413
        assert b'"code":"too_large"' in body


@both
async def test_a_body_that_nobody_wants_holds_nothing(tmp_path, door):
    async with serving(tmp_path, Refusing(NOBODY), token="t") as served:
        for target in ("/nope", "/api/v1/runs/x/pause/x"):
            async with connected(served, door) as wire:
                await wire.send(post(900_000, 600_000, target))
                status, _, _ = await wire.answer()
                assert status == (401 if door == "tcp" else 404)
                assert await wire.is_closed()


@pytest.mark.slow
async def test_a_connection_serves_thousands_of_requests(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served) as wire:
        for _ in range(1010):
            await wire.send(LIVE)
            status, headers, _ = await wire.answer()
            assert status == 200
            assert "connection" not in headers


# ---- crowds and crashes


async def test_too_many_connections_are_turned_away_at_one_door_only(tmp_path, monkeypatch):
    monkeypatch.setattr(doors, "MAX_CONNECTIONS", 2)
    async with serving(tmp_path, Refusing(NOBODY)) as served:
        async with connected(served) as one, connected(served) as two, connected(served) as three:
            for wire in (one, two):
                await wire.send(LIVE)
                assert (await wire.answer())[0] == 200
            status, headers, body = await three.answer()
            assert (status, headers["retry-after"]) == (503, "1")
            assert headers["content-type"] == "application/problem+json"
            assert b"too many connections" in body
            assert await three.is_closed()
            assert (await served.unix.get("/health/live")).status_code == 200
        await trio.testing.wait_all_tasks_blocked()
        async with connected(served) as wire:
            await wire.send(LIVE)
            assert (await wire.answer())[0] == 200


@both
@pytest.mark.parametrize(
    "said",
    [
        b"\x00\xff\x13nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nX",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: %%%\r\n\r\n",
        b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET ?x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=[
        "nonsense",
        "long header",
        "websocket and a byte",
        "http2",
        "h2c",
        "chunk",
        "connect",
        "bad url",
        "query only",
    ],
)
async def test_nonsense_stays_with_its_connection(tmp_path, door, said):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served, door) as other:
        async with connected(served, door) as wire:
            await wire.send(said)
            with trio.move_on_after(0.2):
                await wire.is_closed()
        await other.send(LIVE)
        assert (await other.answer())[0] == 200


# ---- ends


@both
async def test_draining_lets_requests_end_and_closes_idle_connections(tmp_path, door):
    engine = Slow()
    async with serving(tmp_path, engine) as served, connected(served, door) as idle, connected(served, door) as busy:
        await idle.send(LIVE)
        await idle.answer()
        await busy.send(b"GET /api/v1/runs/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await engine.asked.wait()
        served.server.drain()
        assert await idle.is_closed()
        engine.released.set()
        assert (await busy.answer())[0] == 404
        assert await busy.is_closed()


async def test_draining_answers_those_who_wait_for_a_result(tmp_path):
    async with serving(tmp_path) as served:
        run = (await served.unix.post("/api/v1/runs", json={"workflow": "approval"})).json()["run"]
        answers = []

        async def wait(path, **body):
            answers.append(await served.unix.request("POST" if body else "GET", path, **body))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, f"/api/v1/runs/{run['run_id']}/result?wait=60s")
                nursery.start_soon(partial(wait, "/api/v1/runs?wait=60s", json={"workflow": "approval"}))
                await trio.testing.wait_all_tasks_blocked(0.1)
                served.server.drain()
    assert [answer.status_code for answer in answers] == [202, 202]


async def test_draining_tells_who_waits_for_a_result_of_the_run_in_which_it_goes_on(tmp_path):
    async with serving(tmp_path) as served:
        run = (await served.unix.post("/api/v1/runs", json={"workflow": "rounds", "input": 0})).json()["run"]
        answers = []

        async def wait():
            answers.append((await served.unix.get(f"/api/v1/runs/{run['run_id']}/result?wait=60s")).json())

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.1)
                served.server.drain()
    (following,) = answers
    assert following["run_id"] != run["run_id"]
    assert following["status"] in ("RUNNING", "WAITING")


@pytest.mark.jump
async def test_draining_ends_within_its_grace(tmp_path):
    engine = Slow()
    listener = listen_unix(tmp_path / "jivsd.sock")
    server = Server(create_app(engine, feed=None), [listener], grace=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        stuck = await trio.open_unix_socket(tmp_path / "jivsd.sock")
        await stuck.send_all(b"GET /api/v1/runs/x/timeline HTTP/1.1\r\nHost: localhost\r\n\r\n")
        waiting = await trio.open_unix_socket(tmp_path / "jivsd.sock")
        await waiting.send_all(b"GET /api/v1/runs/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await engine.asked.wait()
        server.drain()
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(3, abs=0.1)
    assert engine.cancelled
    await stuck.aclose()
    await waiting.aclose()
    close(listener)


@pytest.mark.jump
async def test_a_cancelled_server_ends_at_once(tmp_path):
    engine = Slow()
    start = trio.current_time()
    async with serving(tmp_path, engine) as served, connected(served, "unix") as stuck:
        await stuck.send(b"GET /api/v1/runs/x/timeline HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - start < 0.1


async def test_a_server_that_comes_back_takes_up_who_has_come_meanwhile(tmp_path):
    listener = listen_unix(tmp_path / "jivsd.sock")
    server = Server(create_app(Refusing(NOBODY), feed=None), [listener])
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        server.drain()
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "jivsd.sock"), verify=False)
    answers = []
    async with httpx.AsyncClient(transport=transport, base_url="http://jivsd") as http, trio.open_nursery() as nursery:

        async def ask():
            answers.append(await http.get("/health/live"))
            nursery.cancel_scope.cancel()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(server.run)
    assert answers[0].status_code == 200
    close(listener)


async def test_a_client_that_leaves_ends_its_request(tmp_path):
    engine = Slow()
    async with serving(tmp_path, engine) as served:
        async with connected(served) as wire:
            await wire.send(b"GET /api/v1/runs/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await engine.asked.wait()
        with trio.fail_after(5):
            while not engine.cancelled:
                await trio.testing.wait_all_tasks_blocked()
        assert (await served.tcp.get("/health/live")).status_code == 200
