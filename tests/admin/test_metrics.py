"""One page for Prometheus, whichever worker of a host is asked."""

from __future__ import annotations

import subprocess

import debian
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from admin.serving import serving
from jivsd.admin import metrics
from jivsd.admin.metrics import merged
from jivsd.listening import listen_unix
from jivsd.metrics import Metrics


def families(text):
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found)  # a family that stands in two places is refused
    return {family.name: family for family in found}


async def test_without_siblings_it_is_the_nodes_own(tmp_path):
    async with serving(tmp_path) as served:
        page = await served.tcp.get("/metrics")
        assert page.headers["Content-Type"].startswith("text/plain; version=")
        await served.unix.post("/api/v1/runs?wait=5s", json={"workflow": "same", "input": 4})
        after = families((await served.tcp.get("/metrics")).text)
    assert [sample.labels for sample in after["jivsd_runs_started"].samples] == [{"workflow": "same"}]
    assert "jivsd_worker_up" not in after


async def test_with_a_token_it_needs_it(tmp_path):
    async with serving(tmp_path, token="t") as served:
        assert (await served.tcp.get("/metrics")).status_code == 401
        assert (await served.tcp.get("/metrics", headers={"Authorization": "Bearer t"})).status_code == 200


async def test_whichever_worker_is_asked_tells_those_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "SIBLING_SECONDS", 0.2)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    deaf, gone = tmp_path / "deaf.sock", tmp_path / "gone.sock"
    siblings = {"two": tmp_path / "two" / "jivsd.sock", "deaf": deaf, "gone": gone}
    async with serving(tmp_path / "one", siblings=siblings) as one, serving(tmp_path / "two") as two:
        own = one.engine.node
        await two.unix.post("/api/v1/runs?wait=5s", json={"workflow": "same", "input": 4})
        with listen_unix(deaf), trio.fail_after(5):
            found = families((await one.tcp.get("/metrics")).text)
            again = families((await one.tcp.get("/metrics")).text)
    started = [(sample.labels["node"], sample.value) for sample in found["jivsd_runs_started"].samples]
    assert ("two", 1) in started
    assert {sample.labels["node"] for sample in found["jivsd_store_up"].samples} == {own, "two"}
    up = {sample.labels["node"]: sample.value for sample in found["jivsd_worker_up"].samples}
    assert up == {own: 1, "two": 1, "deaf": 0, "gone": 0}
    missed = again["jivsd_worker_scrapes_missed"].samples
    assert {(sample.labels["worker"], sample.value) for sample in missed} == {("deaf", 2), ("gone", 2)}


def test_labels_of_the_name_node_and_odd_values_survive():
    odd = 'a,node="b"}\\"'
    own = Metrics()
    own.runs_started.labels(odd).inc()
    text = own.render().decode() + '# HELP x of a plugin\n# TYPE x gauge\nx{a="1",node="theirs"} 2.0\nx{node="n"} 3.0\n'
    found = families(merged({"one": text, "two": own.render().decode()}, {"one": True, "two": True}))
    started = [sample.labels for sample in found["jivsd_runs_started"].samples]
    assert started == [{"node": "one", "workflow": odd}, {"node": "two", "workflow": odd}]
    assert [sample.labels for sample in found["x"].samples] == [
        {"node": "one", "a": "1", "exported_node": "theirs"},
        {"node": "one", "exported_node": "n"},
    ]
    buckets = [sample for sample in found["jivsd_journal_commit_seconds"].samples if "le" in sample.labels]
    assert buckets[0].labels == {"node": "one", "le": "0.0001"}


@pytest.mark.parametrize("page", ["", "# HELP x y\n# TYPE x gauge\n"])
def test_an_empty_page_adds_nothing(page):
    assert "jivsd_worker_up" in families(merged({"one": page}, {"one": True}))


async def test_what_is_counted_moves_when_it_should(tmp_path):
    async with serving(tmp_path) as served:
        api = "/api/v1/runs"

        async def value(name, **labels):
            found = families((await served.tcp.get("/metrics")).text)
            return next(one.value for one in found[name].samples if one.labels == labels)

        await served.unix.post(api, json={"workflow": "approval", "id": "a"})
        await served.unix.get(f"{api}/approval:a/result?wait=100ms")
        assert sum([await value("jivsd_runs", status=one) for one in ("running", "waiting")]) == 1
        assert await value("jivsd_step_slots", pool="all") == 2000
        assert await value("jivsd_step_slots_used", pool="all") == 0
        assert await value("jivsd_workflow_duration_limit_seconds", workflow="approval") == 7 * 24 * 3600
        assert await value("jivsd_actors", state="active") + await value("jivsd_actors", state="waiting") == 1
        for _ in range(2):
            answer = await served.unix.post(
                f"{api}/approval:a/signals/approve", json={"payload": "ann", "message_id": "m"}
            )
            assert answer.status_code == 202, answer.text
        assert (await served.unix.get(f"{api}/approval:a/result?wait=5s")).status_code == 200
        assert await value("jivsd_inbox_consumed") == 1
        assert await value("jivsd_inbox_duplicates") == 1
        assert await value("jivsd_inbox_backlog") == 0
        assert await value("jivsd_runs", status="completed") == 1
        assert await value("jivsd_runs", status="waiting") == 0
        assert await value("jivsd_db_connections_max") == 0
        assert await value("jivsd_runs_completed", workflow="approval") == 1
        assert await value("jivsd_db_connections", state="open") == 0, "the store is embedded"


def test_promtool_finds_nothing_wrong_with_the_page():
    promtool = debian.found("prometheus", "usr/bin/promtool")
    shown = Metrics()
    shown.runs_started.labels("a").inc()
    shown.run_duration.labels("a", "completed").observe(1.0)
    shown.actors.labels("active").set(1)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=shown.render(), capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")
