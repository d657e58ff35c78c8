"""The torturer itself: it finds nothing in jivsd, and every bug that is built in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(*arguments):
    """Run `jivsd torture`; its exit code, its report, and what it said."""
    command = [sys.executable, "-m", "jivsd", "torture", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


@pytest.mark.slow
def test_nothing_is_wrong_after_twenty_seconds(tmp_path):
    code, report, said = run("--seconds", "20", "--seed", "3", "--keep", str(tmp_path / "kept"))
    assert (code, report["violations"]) == (0, []), said
    assert report["kills"] >= 1
    assert report["kills"] == report["faults"]["kill"]
    assert report["runs"] >= report["starts"] > 0
    assert report["events"] > report["runs"]
    assert report["seed"] == 3
    assert len(report["commands"]) >= 19
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"state", "world.sqlite", "account.sqlite"}


@pytest.mark.slow
@pytest.mark.parametrize("plant", ["step-twice", "lose-ack", "stale-writer"])
def test_what_was_planted_is_found(plant):
    code, report, said = run("--seconds", "18", "--seed", "1", "--plant", plant)
    assert code == 1, said
    assert [one for one in report["violations"] if one["run_id"] and one["path"]]
    assert report["plant"] == plant


def test_what_cannot_be_is_wrong_usage():
    code, _, said = run("--seconds", "1", "--nodes", "2")
    assert code == 2
    assert "--nodes 2: not with the embedded store" in json.loads(said)["error"]["message"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_wrong_after_two_minutes(seed):
    command = [sys.executable, "-m", "jivsd", "torture", "--seconds", "120", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
