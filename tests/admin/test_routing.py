"""Whatever way an action is asked for, the guard, the roles, the limits and the record are the same."""

from __future__ import annotations

import io
import json

import pytest
from quart_trio import QuartTrio

from admin.serving import Refusing, connected, serving
from admin.test_access import TOKENS, bearing
from jivsd import logs
from jivsd.admin.exchange import parameters_of
from jivsd.engine.api import NotFound
from jivsd.jsonguard import MAX_BYTES

RUNS = "/api/v1/runs"
START = b'{"workflow": "approval"}'
STARTS = b'{"starts": [{"workflow": "approval"}]}'
SAME = [RUNS, RUNS + "/", "//api/v1/runs", RUNS + "?wait=0s"]
"""Ways to write the address at which runs are started."""
OTHER = ["/api/v1/%72uns", "/api/v1/%2e/runs", "/%2e%2e/api/v1/runs", "/x/../api/v1/runs", "/api//v1/runs", RUNS + ";x",
         "/API/V1/RUNS", "/api/v1/runs%2f", "/api%2fv1%2fruns", RUNS + "//"]  # fmt: skip
"""What resembles it."""


async def said(served, head, body=START):
    """Say what no HTTP library would send; return the status and the answer's document."""
    async with connected(served) as wire:
        await wire.send(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        status, headers, answer = await wire.answer()
        assert int(headers["content-length"]) == len(answer)
        assert status < 400 or headers["content-type"] == "application/problem+json"
        return status, json.loads(answer)


async def started(served):
    return (await served.unix.get(RUNS)).json()["items"]


@pytest.mark.parametrize("path", [*SAME, *OTHER, RUNS + "/bulk"])
async def test_no_way_to_start_is_open_to_who_may_not(tmp_path, path):
    async with serving(tmp_path, tokens=TOKENS) as served:
        for header, status, code in [
            ("Host: localhost", 401, "unauthorized"),
            ("Host: localhost\r\nAuthorization: Bearer wrong", 401, "unauthorized"),
            ("Host: localhost\r\nAuthorization: Bearer r", 403, "forbidden"),
            ("Host: evil.example\r\nAuthorization: Bearer a", 403, "host"),
            ("Host: localhost\r\nHost: evil.example\r\nAuthorization: Bearer a", 400, "bad_request"),
            ("Host: localhost\r\nOrigin: http://evil.example\r\nAuthorization: Bearer a", 403, "origin"),
        ]:
            found, problem = await said(served, f"POST {path} HTTP/1.1\r\n{header}", STARTS)
            expected = (404, "unknown_address") if code == "forbidden" and path in OTHER else (status, code)
            assert (found, problem["code"]) == expected, header
        assert await started(served) == []


async def test_an_address_is_one_however_it_is_written(tmp_path):
    async with serving(tmp_path) as served:
        for path in SAME:
            assert (await said(served, f"POST {path} HTTP/1.1\r\nHost: localhost"))[0] == 202
        for path in OTHER:
            status, problem = await said(served, f"POST {path} HTTP/1.1\r\nHost: localhost")
            assert (status, problem["code"]) == (404, "unknown_address"), path
        assert len(await started(served)) == len(SAME)


async def test_what_is_refused_for_its_body_or_role_is_recorded_too(tmp_path):
    logs.configure("info", "json", "test", stream := io.StringIO())
    async with serving(tmp_path, tokens=TOKENS) as served:
        large = b" " * (MAX_BYTES + 1)
        for secret, body in [("r", START), ("o", large), ("o", b"[" * 100), ("o", b'{"workflow": 1}'), ("o", START)]:
            await said(served, f"POST /{RUNS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}", body)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    actions = [(line["who"], line["what"], line["status"]) for line in lines if line["event"] == "action"]
    what = f"POST /{RUNS}"
    assert actions == [("grafana", what, 403), *(("shop", what, status) for status in (413, 400, 422, 202))]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_body_is_json_whatever_it_is_called(tmp_path, kind):
    async with serving(tmp_path) as served:
        headers = {"Content-Type": kind}
        assert (await served.tcp.post(RUNS, headers=headers, content=START)).status_code == 202
        form = await served.tcp.post(RUNS, headers=headers, content=b"workflow=approval")
        assert (form.status_code, form.json()["code"]) == (400, "bad_json")


@pytest.mark.parametrize("target", [f"{RUNS}/x/result?wait=60s", f"{RUNS}/x", "/health/live"])
async def test_a_body_that_a_route_does_not_want_is_bounded_as_well(tmp_path, target):
    async with serving(tmp_path, Refusing(NotFound("nobody"))) as served:
        async with connected(served) as wire:
            await wire.send(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n".encode()
            )
            assert (await wire.answer())[0] == 413
            assert await wire.is_closed()
        async with connected(served) as wire:
            await wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(MAX_BYTES // 65536 + 1):
                await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert (await wire.answer())[0] == 413


async def test_a_small_body_that_nobody_wants_is_no_hindrance(tmp_path):
    async with serving(tmp_path) as served, connected(served) as wire:
        for _ in range(2):
            await wire.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd")
            assert (await wire.answer())[0] == 200


async def test_head_is_answered_like_get_without_the_body(tmp_path):
    async with serving(tmp_path) as served:
        for path in (RUNS, "/", "/openapi.json", "/metrics"):
            head = await served.tcp.head(path)
            got = await served.tcp.get(path)
            assert (head.status_code, head.content, head.headers["content-type"]) == (
                200,
                b"",
                got.headers["content-type"],
            )
        refused = await served.tcp.head(f"{RUNS}/x/cancel")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_a_route_of_quarts_own_has_the_same_guard(tmp_path):
    async def nothing():
        return b"{}"

    async with serving(tmp_path, Refusing(NotFound("nobody")), token="s3cret") as served:
        app = served.app
        assert isinstance(app, QuartTrio)
        app.add_url_rule("/own", view_func=nothing, methods=["GET"])
        assert (await served.unix.get("/own")).content == b"{}"
        for path in ("/own", "//own", "/own/"):
            assert (await said(served, f"GET {path} HTTP/1.1\r\nHost: localhost", b""))[0] == 401
        assert (await served.tcp.get("/own", headers=bearing("s3cret"))).content == b"{}"
        wrong = await served.tcp.post("/own", headers=bearing("s3cret"))
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


def test_parameters_keep_their_order_and_their_blanks():
    assert parameters_of(b"a=1&b=&a=2&c=%C3%A4+x&%ff=y") == {"a": ["1", "2"], "b": [""], "c": ["ä x"], "\ufffd": ["y"]}
    assert parameters_of(b"") == {}
