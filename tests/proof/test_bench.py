"""The bench, small: it measures what it says, and its report can be read."""

from __future__ import annotations

import builtins
import json
import re
from xml.etree import ElementTree

import pytest

from jivsd.cli import main
from jivsd.proof import benchreport
from jivsd.proof.bench import bench
from jivsd.proof.sweep import sweep


@pytest.fixture(scope="module")
def measured():
    return bench(runs=50, steps=3, concurrency=10)


def test_what_it_measures(measured):
    assert (measured.store, measured.runs, measured.steps, measured.concurrency) == ("sqlite", 50, 3, 10)
    assert measured.steps_per_s == pytest.approx(3 * measured.runs_per_s, rel=0.01)
    assert measured.raw_rows_per_s > measured.raw_commits_per_s > 0
    assert measured.cpu_us_per_step > 0
    assert 0 < measured.one_step_ms.p50 <= measured.one_step_ms.p99
    assert measured.one_step_ms.p50 < measured.ten_steps_ms.p50
    assert measured.loop_ms > 0
    assert {"jivsd", "python", "sqlite", "apsw", "trio", "msgspec"} <= measured.versions.keys()


def test_the_report_has_its_curves(measured, tmp_path):
    told = []
    points = sweep(steps=2, concurrencies=(1, 5), runs=10, on_point=told.append)
    assert [point.concurrency for point in points] == [1, 5]
    assert told == points
    page = benchreport.write(tmp_path / "report", measured, points)
    text = page.read_text()
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures == ["throughput.svg", "latency.svg"]
    for picture in pictures:
        drawn = ElementTree.parse(page.parent / picture).getroot()
        assert drawn.tag.endswith("svg")
        assert "runs open at once" in "".join(drawn.itertext())
        assert not re.search(rb'(src|href)="http', (page.parent / picture).read_bytes())
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
