from __future__ import annotations

import subprocess
import sys

import pytest

from jivsd.testing.history import History


@pytest.mark.slow
def test_an_exported_run_replays_without_the_daemon(jivsd, tmp_path):
    file = tmp_path / "bundle.json"
    jivsd("start", "add-up", "--input", "3", "--id", "exported", "--wait")
    done = jivsd("export", "add-up:exported", "--output", file, "--json")
    assert done.code == 0, done.err
    assert (done.json["file"], done.json["events"]) == (str(file), 5)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "async def add_up" in "".join(History.read(file).plugin.files.values())
    command = [sys.executable, "-m", "jivsd.testing", "replay", str(file), "--break", "add#3"]
    debugged = subprocess.run(command, input="p total\nc\n", capture_output=True, text=True, timeout=60, check=True)
    assert "total = await ctx.step(add, total)" in debugged.stdout
    assert "(Pdb) 2\n" in debugged.stdout
    assert debugged.stdout.endswith("add-up:exported replays: 5 events, 3 commands; it ends COMPLETED\n")


@pytest.mark.slow
def test_an_open_run_can_be_exported_too(jivsd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_id = jivsd("start", "gate", "--id", "exported", "--json").json["run_id"]
    done = jivsd("export", run_id)
    assert done.out.startswith(f"{run_id}.json: ")
    assert "python -m jivsd.testing replay" in done.err
    assert History.read(f"{run_id}.json").ended() is None


@pytest.mark.slow
def test_what_is_secret_is_shown_to_nobody_but_replays(jivsd, tmp_path):
    file = tmp_path / "safe.json"
    started = jivsd("start", "safe", "--input", '"open-sesame"', "--id", "s1", "--wait")
    seen = [started, *(jivsd(*one) for one in (["show", "safe:s1"], ["timeline", "safe:s1", "--flat", "--json"]))]
    assert all("open-sesame" not in one.out + one.err for one in seen)
    assert "***" in jivsd("show", "safe:s1").out
    done = jivsd("export", "safe:s1", "--output", file)
    assert "holds what is secret of this run" in done.err
    command = [sys.executable, "-m", "jivsd.testing", "replay", str(file)]
    replayed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "safe:s1 replays" in replayed.stdout


def test_what_cannot_be_exported(jivsd, tmp_path):
    assert jivsd("export", "add-up:never").code == 4
    jivsd("start", "add-up", "--input", "0", "--id", "unwritten", "--wait")
    failed = jivsd("export", "add-up:unwritten", "--output", tmp_path / "no" / "file.json", "--json")
    assert failed.error["code"] == "not_written"
