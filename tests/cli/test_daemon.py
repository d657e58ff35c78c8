"""The daemon's own commands, and what happens when it is not there."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import subprocess
import threading

import pytest
from conftest import COMMAND, Daemon
from databases import NEWEST


def test_status_is_one_page(jivsd, daemon):
    page = jivsd("status").out
    assert f"sqlite:///{daemon.data_dir}/jivsd.db" in page
    assert re.search(r"trial +[0-9a-f]{12} +add-up, announce, gate, safe, ship, weigh", page)
    status = jivsd("status", "--json").json
    assert {plugin["name"] for plugin in status["plugins"]} >= {"trial", "migration"}
    assert {child["name"]: child["state"] for child in status["children"]}["engine"] == "running"


def test_plugins_and_incidents_are_lists(jivsd):
    plugins = jivsd("plugins", "list", "--json").json
    assert plugins["next"] is None
    assert "add-up, announce, gate, safe, ship, weigh" in jivsd("plugins", "list").out
    assert jivsd("incidents", "list").code == 0
    assert set(jivsd("incidents", "list", "--all", "--json").json) == {"items", "next"}


def test_it_takes_as_many_open_files_as_it_may_have(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        daemon = Daemon(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        assert daemon.end() == 0


def test_the_data_folder_can_be_named_before_or_after_the_command(run, daemon):
    assert run("list", "--data-dir", daemon.data_dir).code == 0
    assert run("--data-dir", daemon.data_dir, "list").code == 0


def test_without_a_daemon_every_command_says_how_to_start_one(run, tmp_path):
    for command in (["list"], ["status"], ["start", "nap"], ["show", "x"], ["wait", "x"], ["prune", "--before", "1d"]):
        refused = run(*command, "--data-dir", tmp_path)
        assert refused.code == 3
        assert f"jivsd run --data-dir {tmp_path}" in refused.err
        assert len(refused.err.splitlines()) == 1
    assert run("list", "--data-dir", tmp_path, "--json").error["code"] == "not_running"


def test_a_data_folder_with_too_long_a_path(run, tmp_path):
    refused = run("list", "--data-dir", tmp_path / ("x" * 100), "--json")
    assert refused.code == 6
    assert "too long" in refused.error["message"]


def test_a_data_folder_that_cannot_be_made_stops_the_daemon_with_one_sentence(run, tmp_path):
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    refused = run("run", "--data-dir", occupied)
    assert refused.code == 1
    assert refused.err.count(f"data_dir: cannot make the folder {occupied}: File exists") == 1
    assert "Errno" not in refused.err


def test_a_folder_of_plugins_that_is_not_there_stops_the_daemon_with_one_sentence(run, tmp_path):
    refused = run("run", "--data-dir", tmp_path / "data", "--plugins", tmp_path / "nowhere")
    assert refused.code == 1
    assert f"plugins: there is no file or folder {tmp_path}/nowhere" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.slow
def test_a_second_daemon_is_refused(daemon):
    second = subprocess.run(
        [*COMMAND, "run", "--data-dir", str(daemon.data_dir)], capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert "in use by another jivsd" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_wrong_configuration_stops_the_daemon_before_it_starts(run, tmp_path):
    (tmp_path / "jivsd.toml").write_text('[log]\nlevel = "loud"\n[limits]\nthreads = -1\n')
    refused = run("run", "--data-dir", tmp_path, "--config", tmp_path / "jivsd.toml")
    assert refused.code == 6
    assert "log.level" in refused.err
    assert "limits.threads" in refused.err


@pytest.mark.slow
def test_waiting_goes_on_while_the_daemon_is_killed_and_restarted(data_dir, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    first = Daemon(folder)
    place = ["--data-dir", str(folder)]
    subprocess.run([*COMMAND, "start", "gate", "--id", "k", *place], check=True, capture_output=True)
    waiting = subprocess.Popen(
        [*COMMAND, "wait", "gate:k", *place], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    try:
        assert "gate: RUNNING: FANNING: 70 %" in _line(waiting.stderr, "70 %")
        first.end(kill=True)
        assert "waiting for the daemon to come back" in _line(waiting.stderr, "waiting for")
        second = Daemon(folder)
        try:
            subprocess.run([*COMMAND, "signal", "gate:k", "approve", '"ann"', *place], check=True, capture_output=True)
            out, _ = waiting.communicate(timeout=30)
        finally:
            second.end()
    finally:
        waiting.kill()
        waiting.wait()
    assert waiting.returncode == 0
    assert '"ann"' in out


def _line(stream, part):
    """Read until there is a line with `part` in it."""
    for line in stream:
        if part in line:
            return line
    raise AssertionError(f"no line with {part!r}")


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar_and_ctrl_c_ends_only_the_watching(jivsd, daemon):
    run_id = jivsd("start", "gate", "--id", "bar").out.strip()
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [*COMMAND, "wait", "gate:bar"],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(theirs)
    seen = b""
    timer = threading.Timer(30, watching.kill)
    timer.start()
    try:
        while b"75%" not in seen:
            seen += os.read(ours, 4096)
        watching.send_signal(signal.SIGINT)
        while chunk := _read(ours):
            seen += chunk
        assert watching.wait(30) == 130
    finally:
        timer.cancel()
        watching.kill()
        os.close(ours)
    text = seen.decode()
    for part in ("gate", "FANNING", "━", "3/4 branches", "one to go", "The run goes on without you"):
        assert part in text
    assert "Traceback" not in text
    assert jivsd("show", run_id, "--json").json["ended_at"] is None


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_redis_without_a_shared_journal_is_refused(run, tmp_path):
    refused = run("run", "--data-dir", tmp_path, "--redis", "redis://localhost:1")
    assert refused.code == 1
    assert "nodes share a PostgreSQL database, no file: say store = postgresql://…, or leave redis" in refused.err


@pytest.mark.slow
def test_a_daemon_with_its_journal_in_postgresql_is_killed_and_goes_on(postgres, tmp_path, run):
    databases = postgres(NEWEST)
    url = databases.clean()
    folder = tmp_path / "d"
    folder.mkdir()
    place = ["--data-dir", str(folder)]
    first = Daemon(folder, "--store", url)
    started = run("start", "gate", "--id", "k", *place)
    first.end(kill=True)
    assert started.code == 0
    second = Daemon(folder, "--store", url)
    try:
        run("signal", "gate:k", "approve", '"ann"', *place)
        assert run("wait", "gate:k", *place).code == 0
        assert url in run("status", *place).out
    finally:
        second.end()
    assert "Nothing is wrong with" in run("db", "check", "--store", url).out
    assert "is up to date" in run("db", "upgrade", "--store", url).out
    refused = run("db", "backup", tmp_path / "copy", "--store", url)
    assert (refused.code, "pg_dump" in refused.err) == (5, True)
    refused = run("run", *place, "--store", f"{url}?schema=Wrong")
    assert (refused.code, "'Wrong' cannot be jivsd's schema" in refused.err) == (1, True)
