"""`jivsd run --workers 2`: two processes that answer as one, on a real database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from databases import NEWEST
from prometheus_client.parser import text_string_to_metric_families

from jivsd.proof import load
from jivsd.records import ENDED

JIVSD = [sys.executable, "-m", "jivsd"]
RUN = [*JIVSD, "run", "--workers", "2", "--http", "127.0.0.1:0", "--log-format", "json"]
RUNS = 40
PATIENCE = 60


@contextmanager
def running(url, folder):
    """The service, and a function that reads its log until somebody says something."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JIVSD_")}
    environ = {**own, "JIVSD_STORE": url, "JIVSD_NODE": "host", "JIVSD_CLUSTER__POSTGRESQL_LEASE": "2s"}
    command = [*RUN, "--data-dir", str(folder), "--plugins", load.__file__]
    lines = []
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:

        def until(part, event):
            for line in process.stderr:
                lines.append(line)
                said = json.loads(line)
                if (said["part"], said["event"]) == (part, event):
                    return said
            raise AssertionError(lines)

        try:
            yield process, until
        finally:
            process.kill()


def jivsd(folder, *arguments):
    command = [*JIVSD, *arguments, "--json", "--data-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def samples(page, name):
    """A metric's values, by node."""
    families = {family.name: family for family in text_string_to_metric_families(page)}
    return {sample.labels["node"]: sample.value for sample in families[name].samples}


def ended(url, run_id):
    """A run, once it has ended."""
    while True:
        answer = httpx.get(f"{url}/api/v1/runs/{run_id}/result", params={"wait": "10s"}, timeout=PATIENCE).json()
        if answer["status"] in ENDED:
            return answer


@pytest.mark.slow
def test_two_workers_are_one_daemon_and_one_of_them_may_die(postgres, tmp_path):
    with running(postgres(NEWEST).fresh(), tmp_path) as (process, until):
        listening = until("workers", "ready")["listening"]
        assert listening[0] == f"unix:{tmp_path}/jivsd.sock"
        page = httpx.get(f"{listening[1]}/metrics").text
        assert samples(page, "jivsd_worker_up") == {"host-1": 1, "host-2": 1}
        assert jivsd(tmp_path / "worker-2", "status")["node"] == "host-2"
        assert {node["node"] for node in jivsd(tmp_path, "nodes")["items"]} == {"host-1", "host-2"}

        starts = [{"workflow": "bench", "input": 20} for _ in range(RUNS)]
        answer = httpx.post(f"{listening[1]}/api/v1/runs/bulk", json={"starts": starts}, timeout=PATIENCE).json()
        assert [one["result"] for one in answer["items"]] == ["accepted"] * RUNS
        first, _ = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGKILL)
        assert until("workers", "worker ended")["why"] == "it ended by signal SIGKILL"
        for one in answer["items"]:
            assert ended(listening[1], one["run_id"])["status"] == "COMPLETED"
        process.terminate()
        assert process.wait(PATIENCE) == 0
