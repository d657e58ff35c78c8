"""The bench, small: it measures what it says, and its report can be read."""

from __future__ import annotations

import builtins
import json
import re
from xml.etree import ElementTree

import pytest
from databases import NEWEST

from jivsd.cli import main
from jivsd.proof import benchreport, together
from jivsd.proof.bench import bench
from jivsd.proof.ground import ground
from jivsd.proof.recovering import NotRecovered, Recovery, judged
from jivsd.proof.sweep import sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured():
    return bench(runs=50, steps=3, concurrency=10, parked_runs=40, in_flight=20, idle=0.5, requests=20)


def test_what_it_measures(measured):
    assert (measured.store, measured.runs, measured.steps, measured.concurrency) == ("sqlite", 50, 3, 10)
    assert measured.steps_per_s == pytest.approx(3 * measured.runs_per_s, rel=0.01)
    assert measured.raw_rows_per_s > measured.raw_commits_per_s > 0
    assert measured.cpu_us_per_step > 0
    assert 0 < measured.one_step_ms.p50 <= measured.one_step_ms.p99
    assert measured.one_step_ms.p50 < measured.ten_steps_ms.p50
    assert 0 < measured.one_step_socket_ms.p50 <= measured.one_step_socket_ms.p99
    assert measured.loop_ms > 0
    assert measured.signals_per_s > 0
    assert {"jivsd", "python", "sqlite", "apsw", "trio", "msgspec"} <= measured.versions.keys()


def test_what_parked_runs_cost(measured):
    parked = measured.parked
    assert parked.runs == 40
    assert [look.runs for look in parked.memory] == [0, 10, 20, 30, 40]
    assert all(look.rss_bytes > 10_000_000 for look in parked.memory)
    assert parked.rss_growth_bytes == parked.memory[-1].rss_bytes - parked.memory[0].rss_bytes
    assert parked.rss_bytes_per_run == pytest.approx(parked.rss_growth_bytes / 40, rel=0.01)
    assert 0 <= parked.idle_cpu_percent < 100


def test_how_soon_all_is_under_way_again_after_a_kill(measured):
    recovery = measured.recovery
    assert recovery.in_flight == recovery.steps_twice == 20
    assert 0 < recovery.first_step_s <= recovery.all_running_s


def test_a_step_that_ran_again_though_it_had_ended_is_found():
    before = {("a", 0): 1.0, ("a", 1): 1.0, ("a", 2): 1.0}
    assert judged(1, 10.0, before, {("a", 2): 12.5}) == Recovery(1, 2.5, 2.5, 1)
    with pytest.raises(NotRecovered, match="one is step 1 of run a"):
        judged(1, 10.0, before, {("a", 1): 12.0, ("a", 2): 12.5})
    with pytest.raises(NotRecovered, match="nobody has started"):
        judged(1, 10.0, before, {("b", 2): 12.5})


def test_what_several_workers_do_together(postgres):
    databases = postgres(NEWEST)
    with ground(databases.clean()) as found:
        two = together.measure(found.url(), 2, runs=40, steps=3, concurrency=10, parked=20)
    assert (two.workers, two.runs, two.steps, two.concurrency) == (2, 40 * together.TURNS, 3, 10)
    assert min(two.steps_per_s, two.cpu_us_per_step, two.signals_per_s) > 0
    left = (
        "SELECT nspname FROM pg_namespace WHERE nspname ~ '^jivsd_' "
        "UNION ALL SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    assert databases.sql(left, database=databases.common) == [], "the bundled plugins' tables are gone, too"


def test_several_workers_need_a_database_that_they_can_share(capsys):
    assert main(["bench", "--workers", "2", "--json"]) == 2
    assert "--store postgresql://" in json.loads(capsys.readouterr().err)["error"]["message"]


def test_the_report_has_its_curves(measured, tmp_path):
    told = []
    points = sweep(steps=2, concurrencies=(1, 5), runs=10, on_point=told.append)
    assert [point.concurrency for point in points] == [1, 5]
    assert told == points
    page = benchreport.write(tmp_path / "report", measured, points)
    text = page.read_text()
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures == ["throughput.svg", "latency.svg", "memory.svg"]
    for picture in pictures:
        drawn = ElementTree.parse(page.parent / picture).getroot()
        assert drawn.tag.endswith("svg")
        assert ("parked runs" if picture == "memory.svg" else "runs open at once") in "".join(drawn.itertext())
        assert not re.search(rb'(src|href)="http', (page.parent / picture).read_bytes())
    assert "| 20 runs in flight, kill -9 | first step after" in text
    assert f"| 5 | 10 | {points[1].steps_per_s:,.0f} |" in text


def test_without_pygal_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "pygal":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["bench", "--report", str(tmp_path / "report"), "--json"]) == 6
    assert "jivsd[report]" in json.loads(capsys.readouterr().err)["error"]["message"]
    assert not (tmp_path / "report").exists()
