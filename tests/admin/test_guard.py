"""Who may ask: everybody on the Unix socket; over TCP those with the token, from our own pages, by our own names."""

from __future__ import annotations

import pytest

from admin.serving import Refusing, connected, serving
from jivsd.engine.api import NotFound

NOBODY = NotFound("nobody")
RUN = "/api/v1/runs/x"


@pytest.mark.parametrize("path", ["/x", RUN, "/api/v1/status", "/health", "/nope", "/api/v1/runs", "/health/live/",
                                  "//health/live", "/health/live/x", "/health/livex", "/HEALTH/LIVE", "/health/%6cive",
                                  "/health/live;x", "/x/../health/live", "/api/v1/runs/x/health/live"])  # fmt: skip
async def test_everything_needs_the_token_but_exact_paths(tmp_path, path):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served, connected(served) as wire:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            await wire.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            status, headers, body = await wire.answer()
            assert status == 401, (method, path)
            assert headers["www-authenticate"] == 'bearer realm="jivsd"'
            assert b'"code":"unauthorized"' in body
            assert b"s3cret" not in body
        for open_path in ("/health/live", "/health/live?x=1"):
            assert (await served.tcp.get(open_path)).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer s3cret", 404),
        ("bearer  s3cret ", 404),
        ("Bearer s3cre", 401),
        ("Bearer s3cret2", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
        ("", 401),
    ],
)
async def test_the_token_is_compared_whole(tmp_path, header, status):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served, connected(served) as wire:
        await wire.send(f"GET {RUN} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {header}\r\n\r\n".encode())
        assert (await wire.answer())[0] == status


async def test_two_tokens_are_none(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served:
        twice = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer s3cret")]
        assert (await served.tcp.get(RUN, headers=twice)).status_code == 401


async def test_the_unix_socket_and_a_daemon_without_a_token_need_none(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served:
        assert (await served.unix.get(RUN)).status_code == 404
    async with serving(tmp_path, Refusing(NOBODY)) as served:
        assert (await served.tcp.get(RUN)).status_code == 404


async def test_no_header_makes_tcp_look_like_the_socket(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served:
        spoofed = {"X-Forwarded-For": "127.0.0.1", "Door": "unix", "State": "unix", "Remote-Addr": "<local>"}
        assert (await served.tcp.get(RUN, headers=spoofed)).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 404),
        ("LocalHost:8080", 404),
        ("127.0.0.1:1", 404),
        ("[::1]:8080", 404),
        ("192.0.2.7", 404),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example@127.0.0.1", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:x", 403),
        ("", 403),
    ],
)
async def test_only_our_own_names_are_served(tmp_path, host, status):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served) as wire:
        await wire.send(f"GET {RUN} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        got, _, body = await wire.answer()
        assert got == status
        assert status != 403 or b'"code":"host"' in body


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 404),
        ("http://LOCALHOST:8080", 404),
        ("http://localhost:9090", 403),
        ("http://localhost", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("ftp://localhost:8080", 403),
    ],
)
async def test_pages_of_other_origins_are_refused(tmp_path, origin, status):
    async with serving(tmp_path, Refusing(NOBODY)) as served:
        refused = await served.tcp.get(RUN, headers={"Host": "localhost:8080", "Origin": origin})
        assert refused.status_code == status
        assert status != 403 or refused.json()["code"] == "origin"
        upgrade = await served.tcp.get(
            "/api/v1/nothing",
            headers={
                "Host": "localhost:8080",
                "Origin": origin,
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            },
        )
        assert upgrade.status_code == (404 if status == 404 else 403)


async def test_a_person_is_named_beside_the_user_and_never_instead(tmp_path):
    seen = []

    class Engine:
        async def pause(self, ref, *, by, reason):
            seen.append(by)
            raise NOBODY

    async with serving(tmp_path, Engine()) as served:
        user = (await served.unix.post(f"{RUN}/pause"), seen.pop())[1]
        for given, expected in [("ann", f"ann ({user})"), (user, user), ("x" * 500, f"{'x' * 100} ({user})")]:
            await served.unix.post(f"{RUN}/pause", headers={"X-Jivsd-By": given})
            assert seen.pop() == expected
        await served.tcp.post(f"{RUN}/pause", headers={"X-Jivsd-By": user})
        assert seen.pop() == f"{user} (http)"
        await served.tcp.post(f"{RUN}/pause")
        assert seen.pop() == "http"
