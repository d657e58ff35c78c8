"""Starts over HTTP and by the client: when there is no room, later, and many at once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from admin.serving import serving
from jivsd.client import Client, ClientError
from jivsd.engine import gate
from jivsd.engine.api import NewStart, StartOptions
from jivsd.engine.limits import Limits
from jivsd.jsonguard import MAX_BYTES
from jivsd.records import Status
from jivsd.store.api import RunFilter

API = "/api/v1"


def nap(seconds, **options):
    return {"workflow": "nap", "input": seconds, **options}


async def test_a_delayed_start(tmp_path):
    async with serving(tmp_path) as served:
        http = served.unix
        started = await http.post(f"{API}/runs", json=nap(0, delay="1h", priority=-3))
        assert started.status_code == 202
        run = started.json()["run"]
        assert (run["status"], run["started_at"], run["priority"]) == ("PENDING", None, -3)
        assert run["wake_at"] == run["start_at"]
        waits = (await http.get(f"{API}/runs/{run['run_id']}/why")).json()["waits"]
        assert [(wait["kind"], wait["until"]) for wait in waits] == [("start", run["start_at"])]
        ended = await http.post(f"{API}/runs/{run['run_id']}/terminate")
        assert ended.json()["status"] == "TERMINATED"
        at = (datetime.fromisoformat(ended.json()["ended_at"]) + timedelta(milliseconds=300)).isoformat()
        soon = await http.post(f"{API}/runs?wait=10s", json=nap(0, start_at=at))
        assert soon.json()["run"]["status"] == "COMPLETED"
        assert soon.json()["run"]["started_at"] >= soon.json()["run"]["start_at"]


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ({"start_at": "tomorrow"}, "the field `start_at` of the body does not fit"),
        ({"start_at": "2030-01-01T00:00:00"}, "option start_at: it needs a time zone"),
        ({"delay": "-1s"}, "option delay: '-1s' is negative"),
        ({"priority": 101}, "option priority: a whole number from -100 to 100, not 101"),
    ],
)
async def test_what_does_not_fit_is_said(tmp_path, options, detail):
    async with serving(tmp_path) as served:
        response = await served.unix.post(f"{API}/runs", json=nap(0, **options))
        assert response.status_code == 422
        assert detail in response.json()["detail"]


async def test_without_room_it_is_503_with_retry_after(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "START_WAIT", 0.2)
    async with serving(tmp_path) as served:
        served.engine.gate.limits = Limits(active_runs=0)
        refused = await served.unix.post(f"{API}/runs", json=nap(0))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["code"] == "unavailable"
        assert "no room for a new run of 'nap'" in refused.json()["detail"]
        status = (await served.unix.get(f"{API}/status")).json()
        assert status["limits"][0] == {
            "what": "active_runs", "workflow": None, "used": 0, "limit": 0, "waiting": 0,
        }  # fmt: skip


async def test_many_at_once(tmp_path):
    async with serving(tmp_path) as served:
        http = served.unix
        starts = [nap(0, id="a"), nap("x"), nap(0, id="a"), {"workflow": "nobody"}]
        response = await http.post(f"{API}/runs/bulk", json={"starts": starts})
        assert response.status_code == 200
        items = response.json()["items"]
        assert [item["result"] for item in items] == ["accepted", "refused", "refused", "refused"]
        assert [item.get("code") for item in items] == [None, "invalid", "open", "not_found"]
        assert items[2]["run_id"] == items[0]["run_id"]
        assert items[0].keys() == {"result", "workflow", "run_id", "workflow_id", "status"}
        assert (await http.post(f"{API}/runs/bulk", json={"starts": []})).json() == {"items": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "starts"),
        ({"starts": [nap(0)] * 1001}, "starts"),
        ({"starts": [nap(0, colour="red")]}, "colour"),
        ({"starts": [nap(0, priority="high")]}, "priority"),
    ],
)
async def test_a_bulk_that_is_none_is_refused_as_a_whole(tmp_path, body, field):
    async with serving(tmp_path) as served:
        response = await served.unix.post(f"{API}/runs/bulk", json=body)
        assert response.status_code == 422
        assert field in response.json()["field"]
        assert (await served.engine.runs(RunFilter())).items == []


async def test_the_client_sends_as_many_calls_as_it_takes(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        many = [NewStart("same", b'"small"', StartOptions(id=f"s{number}")) for number in range(1500)]
        results = await client.start_many(many)
        assert [one.workflow_id for one in results] == [f"s{number}" for number in range(1500)]
        assert {one.result for one in results} == {"accepted"}
        large = f'"{"x" * (MAX_BYTES // 3)}"'.encode()
        results = await client.start_many(NewStart("same", large) for _ in range(5))
        assert {one.result for one in results} == {"accepted"}
        assert (await client.result(results[-1].run_id or "", 10)).status is Status.COMPLETED
        with pytest.raises(ClientError, match="too large"):
            await client.start_many([NewStart("same", f'"{"x" * MAX_BYTES}"'.encode())])
        assert await client.status() == await served.engine.status()
