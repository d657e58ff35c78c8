"""The torturer itself: it finds nothing in jivsd, and every bug that is built in."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest


def run(*arguments):
    """Run `jivsd torture`; its exit code, its report, and what it said."""
    command = [sys.executable, "-m", "jivsd", "torture", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def recounted(kept):
    """What the README's SQL says about what `--keep` left: the rows of each query, by the name of its last column."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"sqlite3 -box \./kept/state/jivsd\.db <<'SQL'\n(.*?)SQL\n", readme, re.DOTALL)
    found = {}
    with closing(sqlite3.connect(kept / "state" / "jivsd.db")) as db:
        for query in re.sub(r"--.*", "", block).replace("./kept", os.fspath(kept)).split(";"):
            answer = db.execute(query)
            if answer.description:
                found[answer.description[-1][0]] = answer.fetchall()
    return found


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
    again = recounted(tmp_path / "kept")
    assert again.pop("not_ended") == [(report["runs"], 0)]
    assert dict(again.pop("times")) == report["faults"]
    assert 0 < again.pop("came_back")[0][0] <= report["kills"]
    assert (again.pop("lost_starts"), again.pop("lost_signals")) == ([(0,)], [(0,)])
    assert len(again) == 3
    assert not any(again.values()), again


@pytest.mark.slow
@pytest.mark.parametrize("plant", ["step-twice", "lose-ack", "stale-writer"])
def test_what_was_planted_is_found(plant):
    code, report, said = run("--seconds", "60", "--seed", "1", "--plant", plant)  # it ends when it has found it
    assert code == 1, said
    assert [one for one in report["violations"] if one["run_id"] and one["path"]]
    assert report["plant"] == plant


def test_what_cannot_be_is_wrong_usage():
    code, _, said = run("--seconds", "1", "--nodes", "2")
    assert code == 2
    assert "--nodes 2 comes with PostgreSQL" in json.loads(said)["error"]["message"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_wrong_after_two_minutes(seed):
    command = [sys.executable, "-m", "jivsd", "torture", "--seconds", "120", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
