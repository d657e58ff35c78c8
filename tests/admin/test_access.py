"""What tokens with roles may do, and what is recorded of actions."""

from __future__ import annotations

import io
import json

import pytest

from admin.serving import serving
from jivsd import logs
from jivsd.admin.access import Role, Token

API = "/api/v1"
TOKENS = (Token("grafana", "r", Role.READ), Token("shop", "o", Role.OPERATE), Token("ann", "a"))


def bearing(secret):
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    ("secret", "method", "path", "status"),
    [
        ("r", "GET", "/runs", 200),
        ("r", "GET", "/incidents", 200),
        ("r", "POST", "/runs/x/queries/progress", 404),
        ("r", "POST", "/runs", 403),
        ("r", "POST", "/runs/x/cancel", 403),
        ("r", "POST", "/plugins/reload", 403),
        ("o", "GET", "/status", 200),
        ("o", "POST", "/runs", 202),
        ("o", "POST", "/runs/x/cancel", 404),
        ("o", "POST", "/incidents/x/retry", 404),
        ("o", "POST", "/plugins/reload", 403),
        ("o", "POST", "/prune", 403),
        ("o", "POST", "/outbox/prune", 403),
        ("o", "POST", "/workflows/x/quarantine", 403),
        ("a", "POST", "/runs", 202),
        ("a", "POST", "/workflows/x/quarantine", 404),
        ("wrong", "GET", "/runs", 401),
    ],
)
async def test_a_token_may_what_its_role_allows(tmp_path, secret, method, path, status):
    async with serving(tmp_path, tokens=TOKENS) as served:
        body = {"workflow": "approval"} if (method, path) == ("POST", "/runs") else None
        answer = await served.tcp.request(method, API + path, headers=bearing(secret), json=body)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert answer.json()["code"] == "forbidden"
            assert "needs a token with the role" in answer.json()["detail"]


async def test_the_one_token_and_the_socket_may_all(tmp_path):
    async with serving(tmp_path, token="one", tokens=TOKENS) as served:
        for client, headers in ((served.tcp, bearing("one")), (served.unix, {})):
            assert (await client.post(f"{API}/workflows/x/quarantine", headers=headers)).status_code == 404


async def test_every_action_is_recorded_with_who_and_what_came_of_it(tmp_path):
    logs.configure("info", "json", "test", stream := io.StringIO())
    async with serving(tmp_path, tokens=TOKENS) as served:
        named = {**bearing("o"), "X-Jivsd-By": "ben"}
        await served.tcp.post(f"{API}/runs", headers=named, json={"workflow": "approval", "id": "a1"})
        await served.tcp.post(f"{API}/runs/approval:a1/cancel", headers=bearing("o"), json={"reason": "s3cret"})
        await served.tcp.post(f"{API}/runs/x/cancel", headers=bearing("o"))
        await served.tcp.post(f"{API}/plugins/reload", headers=bearing("r"))
        await served.tcp.get(f"{API}/runs", headers=bearing("r"))
        await served.tcp.post(f"{API}/runs/approval:a1/queries/progress", headers=bearing("r"))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    said = [line for line in lines if line["event"] == "action"]
    assert [(one["who"], one["what"], one["status"]) for one in said] == [
        ("ben (shop)", f"POST {API}/runs", 202),
        ("shop", f"POST {API}/runs/approval:a1/cancel", 200),
        ("shop", f"POST {API}/runs/x/cancel", 404),
        ("grafana", f"POST {API}/plugins/reload", 403),
    ]
    assert said[2]["code"] == "not_found"
    assert all("timestamp" in one for one in said)
    assert "s3cret" not in str(said)


async def test_monitors_of_another_kind_find_what_they_look_for(tmp_path):
    async with serving(tmp_path, tokens=TOKENS) as served:
        for page in ("/actuator/health", "/actuator/health/workflow", "/actuator/prometheus"):
            assert (await served.tcp.get(page)).status_code == 401
        health = await served.unix.get("/actuator/health")
        assert health.json() == (await served.unix.get("/health")).json()
        assert (health.json()["status"], health.json()["components"]["journal"]["status"]) == ("UP", "UP")
        metrics = await served.unix.get("/actuator/prometheus")
        assert "jivsd_journal_pending" in metrics.text
