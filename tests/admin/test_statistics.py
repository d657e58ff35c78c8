"""Statistics over HTTP."""

from __future__ import annotations

import pytest

from admin.serving import serving

PLACE = "/api/v1/statistics"


async def test_since_is_a_time_or_an_age(tmp_path):
    async with serving(tmp_path) as served:
        http = served.unix
        await http.post("/api/v1/runs?wait=5s", json={"workflow": "buy", "input": {"item": "tea"}})
        for since in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00%2B01:00", "20000h"):
            answered = (await http.get(f"{PLACE}?since={since}")).json()
            (buy,) = answered["items"]
            assert (buy["workflow"], buy["started"], buy["ended"]) == ("buy", 1, {"COMPLETED": 1})
            assert buy["durations"]["p50"].endswith("s")
            assert buy["durations"]["since"] == answered["since"]
        assert (await http.get(f"{PLACE}?since=2100-01-01T00:00:00Z")).json()["items"][0]["started"] == 0
        assert (await http.get("/api/v1/workflows/buy/statistics")).status_code == 200
        assert (await http.get("/api/v1/workflows/nobody/statistics")).status_code == 404


@pytest.mark.parametrize("since", ["soon", "2026-01-01T00:00:00", "", "-"])
async def test_what_is_no_time_is_refused(tmp_path, since):
    async with serving(tmp_path) as served:
        refused = await served.unix.get(f"{PLACE}?since={since}")
        assert (refused.status_code, refused.json()["field"]) == (422, "since")
