"""Every route, against the real engine, over the Unix socket."""

from __future__ import annotations

import getpass
import re
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
import trio

from admin.serving import serving

API = "/api/v1"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
RUN_FIELDS = {
    "run_id", "workflow", "workflow_id", "status", "paused", "error", "created_at", "started_at", "ended_at",
    "wake_at", "timeout", "lock_key", "lock_wait", "priority", "start_at", "correlation_id", "chain", "attributes",
    "parent", "parent_path", "parent_workflow", "parent_workflow_id", "code_hash",
}  # fmt: skip


@asynccontextmanager
async def api(folder):
    async with serving(folder) as served:
        yield served.unix


async def start(http, workflow, input=None, wait="0s", **options):
    response = await http.post(f"{API}/runs?wait={wait}", json={"workflow": workflow, "input": input, **options})
    assert response.status_code in (200, 202), response.text
    return response.json()["run"]


async def test_a_start_that_waits_has_the_result_in_its_answer(tmp_path):
    async with api(tmp_path) as http:
        body = {"workflow": "buy", "input": {"item": "tea", "amount": 2}, "correlation_id": "c1", "timeout": "90s"}
        response = await http.post(f"{API}/runs?wait=5s", json=body)
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        started = response.json()
        assert started["existing"] is False
        run = started["run"]
        assert set(run) == RUN_FIELDS | {"input", "output"}
        assert run["status"] == "COMPLETED"
        assert run["output"] == "2 x tea"
        assert run["timeout"] == "1m30s"
        assert run["correlation_id"] == "c1"
        for field in ("created_at", "started_at", "ended_at"):
            assert INSTANT.fullmatch(run[field])
        assert response.headers["location"] == f"{API}/runs/{run['run_id']}"
        assert (await http.get(response.headers["location"])).json() == run


async def test_a_start_that_does_not_wait_long_enough_is_accepted(tmp_path):
    async with api(tmp_path) as http:
        for query in ("", "?wait=10ms"):
            response = await http.post(f"{API}/runs{query}", json={"workflow": "approval"})
            assert response.status_code == 202
            assert response.json()["run"]["ended_at"] is None
            assert "output" not in response.json()["run"]


async def test_an_idempotency_key_is_taken_from_body_or_header(tmp_path):
    async with api(tmp_path) as http:
        body = {"workflow": "buy", "input": {"item": "tea"}}
        first = (await http.post(f"{API}/runs", json={**body, "idempotency_key": "k"})).json()
        for key in ("k", '"k"'):
            again = (await http.post(f"{API}/runs", json=body, headers={"Idempotency-Key": key})).json()
            assert again["existing"] is True
            assert again["run"]["run_id"] == first["run"]["run_id"]
        other = {"workflow": "buy", "input": {"item": "milk"}}
        refused = await http.post(f"{API}/runs", json=other, headers={"Idempotency-Key": "k"})
        assert refused.status_code == 409
        assert refused.json()["code"] == "key_reused"
        assert refused.json()["run_id"] == first["run"]["run_id"]
        for headers in ({"Idempotency-Key": "z"}, {"Idempotency-Key": '""'}, {"Idempotency-Key": ""}):
            refused = await http.post(f"{API}/runs", json={**body, "idempotency_key": "k"}, headers=headers)
            assert refused.status_code == 422
            assert "Idempotency-Key" in refused.json()["detail"]


async def test_an_open_workflow_id_is_a_conflict_that_names_its_run(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "approval", id="x")
        refused = await http.post(f"{API}/runs", json={"workflow": "approval", "id": "x"})
        assert refused.status_code == 409
        assert refused.json()["code"] == "open"
        assert refused.json()["run_id"] == run["run_id"]


async def test_lists_have_pages_and_filters_and_no_payloads(tmp_path):
    async with api(tmp_path) as http:
        bought = [await start(http, "buy", {"item": "tea"}, "5s") for _ in range(3)]
        waiting = await start(http, "approval", id="w", attributes={"place": "a=b,c", "tries": 2})
        page = (await http.get(f"{API}/runs?limit=3")).json()
        assert [run["run_id"] for run in page["items"]] == [r["run_id"] for r in (waiting, bought[2], bought[1])]
        assert set(page["items"][0]) == RUN_FIELDS
        rest = (await http.get(f"{API}/runs", params={"cursor": page["next"]})).json()
        assert [run["run_id"] for run in rest["items"]] == [bought[0]["run_id"]]
        assert rest["next"] is None
        for query, expected in [
            ("workflow=approval", [waiting]),
            ("id=w", [waiting]),
            ("open=true", [waiting]),
            ("status=COMPLETED&workflow=buy&limit=1", bought[2:]),
            ("status=RUNNING,WAITING", [waiting]),
            ("status=RUNNING&status=WAITING", [waiting]),
            ("status=FAILED", []),
            ("attribute=place=a=b,c&attribute=tries=2", [waiting]),
            ("attribute=tries=2&status=COMPLETED", []),
            ("ended_before=2000-01-01T00:00:00Z", []),
        ]:
            page = (await http.get(f"{API}/runs?{query}")).json()
            assert [run["run_id"] for run in page["items"]] == [run["run_id"] for run in expected], query


@pytest.mark.parametrize(
    ("query", "field", "text"),
    [
        ("limit=0", "limit", "`int` >= 1"),
        ("limit=501", "limit", "`int` <= 500"),
        ("limit=x", "limit", "expected `int`"),
        ("limit=1&limit=2", "limit", "given 2 times"),
        ("status=DONE", "status[0]", "invalid enum value 'DONE'"),
        ("colour=red", "colour", "is unknown; known are workflow, id, status"),
        ("cursor=garbage", "cursor", "'garbage' is not a cursor"),
        ("workflow=a%00b", "workflow", "has a control character"),
        ("open=perhaps", "open", "expected `bool`"),
        ("ended_before=2000-01-01T00:00:00", "ended_before", "needs a time zone"),
        ("attribute=place", "attribute", "'place' is not of the form NAME=VALUE"),
        ("ended_before=soon", "ended_before", "invalid RFC3339"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused(tmp_path, query, field, text):
    async with api(tmp_path) as http:
        refused = await http.get(f"{API}/runs?{query}")
        assert refused.status_code == 422
        assert refused.json()["field"] == field
        assert text in refused.json()["detail"]


@pytest.mark.parametrize("workflow_id", ["a/b", "a:b", "ä ö%2F+?#", "..", "x/timeline", "%"])
async def test_a_run_is_found_by_any_workflow_id(tmp_path, workflow_id):
    async with api(tmp_path) as http:
        run = await start(http, "approval", id=workflow_id)
        ref = quote(f"approval:{workflow_id}", safe="")
        assert (await http.get(f"{API}/runs/{ref}")).json()["run_id"] == run["run_id"]
        assert (await http.get(f"{API}/runs/{ref}/why")).json()["run"]["workflow_id"] == workflow_id


async def test_signals_are_taken_once_and_queries_answered(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "approval", id="a")
        url = f"{API}/runs/{run['run_id']}"
        assert (await http.post(f"{url}/queries/approver")).json()["value"] is None
        first = await http.post(f"{url}/signals/approve", json={"payload": "ann", "message_id": "m1"})
        assert first.status_code == 202
        assert first.json() == {"run_id": run["run_id"], "message_id": "m1", "duplicate": False}
        assert (await http.get(f"{url}/result?wait=5s")).json()["output"] == "ann"
        run = await start(http, "approval", id="a")
        again = await http.post(
            f"{API}/runs/approval:a/signals/approve", json={"payload": "bob"}, headers={"Idempotency-Key": "m1"}
        )
        assert again.json()["duplicate"] is True
        answer = (await http.post(f"{url}/queries/approver", json={"payload": None})).json()
        assert answer["value"] == "ann"
        assert answer["seq"] > 1
        late = await http.post(f"{url}/signals/approve", json={"payload": "carl"})
        assert (late.status_code, late.json()["code"]) == (409, "ended")


async def test_updates_are_answered(tmp_path):
    async with api(tmp_path) as http:
        run = (await start(http, "approval"))["run_id"]
        ask = f"{API}/runs/{run}/updates/ask"
        accepted = await http.post(ask, json={"payload": "who", "message_id": "m"})
        assert accepted.status_code == 202
        said = {"run_id": run, "message_id": "m", "duplicate": False, "answered": False, "value": None}
        assert accepted.json() == said
        await http.post(f"{API}/runs/{run}/signals/approve", json={"payload": "ann"})
        answered = await http.post(f"{ask}?wait=5s", json={"payload": "who"}, headers={"Idempotency-Key": "m"})
        assert answered.status_code == 200
        assert answered.json() == {
            "run_id": run, "message_id": "m", "duplicate": True, "answered": True, "value": "who? ann",
        }  # fmt: skip
        waiting = (await start(http, "approval"))["run_id"]
        for name, body, status, code, text in [
            ("ask", {"payload": "odd"}, 422, "update_failed", "ValueError: what?"),
            ("ask", {"payload": ""}, 422, "invalid", "is refused: ValueError: ask something"),
            ("ask", {"payload": 5}, 422, "invalid", "Expected `str`, got `int`"),
            ("tell", {}, 404, "not_found", "it has: ask"),
        ]:
            refused = await http.post(f"{API}/runs/{waiting}/updates/{name}?wait=5s", json=body)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            assert text in refused.json()["detail"]


async def test_a_result_is_waited_for(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "approval")
        url = f"{API}/runs/{run['run_id']}"
        early = await http.get(f"{url}/result")
        assert early.status_code == 202
        answers = []

        async def wait():
            answers.append(await http.get(f"{url}/result?wait=1h"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await http.post(f"{url}/signals/approve", json={"payload": "ann"})
        assert answers[0].status_code == 200
        assert answers[0].json()["output"] == "ann"


async def test_actions_record_who_and_why(tmp_path):
    user = getpass.getuser()
    async with api(tmp_path) as http:
        run = await start(http, "approval")
        url = f"{API}/runs/{run['run_id']}"
        paused = await http.post(f"{url}/pause", json={"reason": "lunch"}, headers={"X-Jivsd-By": "ann"})
        assert paused.json()["paused"] is True
        again = await http.post(f"{url}/pause")
        assert (again.status_code, again.json()["code"]) == (409, "state")
        assert (await http.post(f"{url}/resume", headers={"X-Jivsd-By": user})).json()["paused"] is False
        await http.post(f"{url}/cancel", json={"reason": "no longer wanted"})
        ended = (await http.get(f"{url}/result?wait=5s")).json()
        assert ended["status"] == "CANCELLED"
        timeline = (await http.get(f"{url}/timeline")).json()
        said = [(event["kind"], event["by"]) for event in timeline["items"] if event["by"]]
        assert said == [
            ("Started", user), ("Paused", f"ann ({user})"), ("Resumed", user), ("CancelRequested", user),
        ]  # fmt: skip
        reasons = [event["payload"].get("reason") for event in timeline["items"]]
        assert "lunch" in reasons
        assert "no longer wanted" in reasons


async def test_a_timeline_has_pages(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "nap", 0.001, "5s")
        url = f"{API}/runs/{run['run_id']}/timeline"
        page = (await http.get(f"{url}?limit=2")).json()
        assert [event["seq"] for event in page["items"]] == [1, 2]
        assert page["items"][0]["kind"] == "Started"
        assert INSTANT.fullmatch(page["items"][0]["at"])
        rest = (await http.get(f"{url}?after={page['next']}")).json()
        assert [event["kind"] for event in rest["items"]] == ["Ended"]
        assert rest["next"] is None


async def test_terminate_and_retry(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "approval")
        terminated = await http.post(f"{API}/runs/{run['run_id']}/terminate")
        assert terminated.status_code == 200
        ended = (await http.get(f"{API}/runs/{run['run_id']}/result?wait=5s")).json()
        assert ended["status"] == "TERMINATED"
        failed = await start(http, "broke", wait="5s")
        assert failed["status"] == "FAILED"
        assert failed["error"]["message"] == "no funds"
        again = await http.post(f"{API}/runs/{failed['run_id']}/retry")
        assert again.json()["run_id"] != failed["run_id"]
        assert again.headers["location"].endswith(again.json()["run_id"])
        assert again.json()["workflow_id"] == failed["workflow_id"]


async def test_an_incident_is_shown_and_resolved(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "held", wait="50ms")
        listed = (await http.get(f"{API}/incidents?run={run['run_id']}")).json()
        incident = listed["items"][0]
        assert incident["kind"] == "step"
        assert INSTANT.fullmatch(incident["at"])
        url = f"{API}/incidents/{incident['incident_id']}"
        assert (await http.get(url)).json() == incident
        missing = await http.post(f"{url}/resolve", json={"reason": "forgot it"})
        assert missing.status_code == 422
        assert missing.json()["field"] == "value"
        resolved = await http.post(
            f"{url}/resolve", json={"value": "by bike", "reason": "urgent"}, headers={"X-Jivsd-By": "ann"}
        )
        assert resolved.status_code == 200
        assert resolved.json()["state"] == "RESOLVED"
        assert resolved.json()["resolved_by"].startswith("ann")
        ended = (await http.get(f"{API}/runs/{run['run_id']}/result?wait=5s")).json()
        assert ended["output"] == "by bike"
        assert (await http.get(f"{API}/incidents")).json()["items"] == []
        assert len((await http.get(f"{API}/incidents?state=ALL")).json()["items"]) == 1
        assert (await http.post(f"{url}/retry", json={"reason": "again"})).status_code == 409


async def test_workflows_plugins_status_and_health(tmp_path):
    async with api(tmp_path) as http:
        workflows = (await http.get(f"{API}/workflows")).json()
        buy = next(one for one in workflows["items"] if one["name"] == "buy")
        assert buy["input_schema"]["$defs"]["Order"]["required"] == ["item"]
        assert next(one for one in workflows["items"] if one["name"] == "approval")["timeout"] == "168h"
        plugins = (await http.get(f"{API}/plugins")).json()
        assert plugins["next"] is None
        await start(http, "buy", {"item": "tea"}, "5s")
        status = (await http.get(f"{API}/status")).json()
        assert status["runs"] == {"COMPLETED": 1}
        assert INSTANT.fullmatch(status["started_at"])
        assert (await http.get("/health/live")).json() == {"status": "UP"}
        assert (await http.get("/health/ready")).json() == {"status": "UP"}
        health = (await http.get("/health")).json()
        assert health["status"] == "UP"
        assert health["components"]["database"] == {"status": "UP", "detail": None}


async def test_prune_needs_a_limit_in_time(tmp_path):
    async with api(tmp_path) as http:
        run = await start(http, "buy", {"item": "tea"}, "5s")
        for body, field in [
            ({}, "older_than"),
            ({"older_than": "1h", "ended_before": "2020-01-01T00:00:00Z"}, "older_than"),
            ({"older_than": "long"}, "older_than"),
            ({"older_than": "0s", "status": ["RUNNING"]}, "status"),
            ({"ended_before": "2020-01-01T00:00:00"}, "ended_before"),
        ]:
            refused = await http.post(f"{API}/prune", json=body)
            assert refused.status_code == 422, body
            assert refused.json()["field"] == field
        old = {"ended_before": "2020-01-01T00:00:00Z"}
        assert (await http.post(f"{API}/prune", json=old)).json() == {"pruned": 0, "next": None}
        assert (await http.post(f"{API}/prune", json={"older_than": "0s", "workflow": "buy"})).json() == {
            "pruned": 1,
            "next": None,
        }
        gone = await http.get(f"{API}/runs/{run['run_id']}")
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_incidents_come_in_groups_that_are_decided_at_once(tmp_path):
    async with api(tmp_path) as http:
        runs = [await start(http, "held", wait="50ms") for _ in range(2)]
        (group,) = (await http.get(f"{API}/incidents/groups")).json()["items"]
        assert (group["count"], group["runs"]) == (2, 2)
        assert INSTANT.fullmatch(group["first_at"])
        place = f"{API}/incidents/groups/{group['fingerprint']}"
        listed = (await http.get(f"{API}/incidents?fingerprint={group['fingerprint']}")).json()["items"]
        assert {one["run_id"] for one in listed} == {run["run_id"] for run in runs}
        seen = await http.post(f"{API}/incidents/{listed[0]['incident_id']}/acknowledge", json={"reason": "mine"})
        assert seen.json()["history"][0]["why"] == "mine"
        assert (await http.post(f"{API}/incidents/{listed[0]['incident_id']}/skip")).status_code == 422
        assert (await http.post(f"{place}/forget")).json()["code"] == "not_found"
        wrong = (await http.post(f"{place}/resolve", json={"value": 5})).json()
        assert {one["code"] for one in wrong["items"]} == {"invalid"}
        done = (await http.post(f"{place}/resolve", json={"value": "by bike", "reason": "urgent"})).json()
        assert {one["run_id"] for one in done["items"] if "error" not in one} == {run["run_id"] for run in runs}
        assert done["more"] is False
        assert (await http.get(f"{API}/incidents/groups")).json()["items"] == []


async def test_a_workflow_is_quarantined_and_lifted(tmp_path):
    async with api(tmp_path) as http:
        held = (await http.post(f"{API}/workflows/held/quarantine", json={"reason": "it charges twice"})).json()
        assert held["kind"] == "quarantine"
        refused = await http.post(f"{API}/runs", json={"workflow": "held"})
        assert (refused.status_code, refused.json()["code"]) == (409, "quarantined")
        assert refused.json()["incident"] == held["incident_id"]
        workflows = (await http.get(f"{API}/workflows")).json()["items"]
        assert next(one for one in workflows if one["name"] == "held")["quarantined"] == held["incident_id"]
        assert (await http.post(f"{API}/workflows/held/lift")).json()["resolution"] == "lift"
        assert (await http.post(f"{API}/workflows/held/lift")).status_code == 404
        await start(http, "held", wait="50ms")
