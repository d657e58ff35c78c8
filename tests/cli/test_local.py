"""The commands that need no daemon: config, db, plugins, version; the frame around all commands."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMAND, Daemon
from typer.main import get_command

from jivsd.cli import main
from jivsd.cli.app import app
from jivsd.cli.exits import MEANINGS, Exit


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The folder of a daemon that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    daemon = Daemon(folder)
    subprocess.run(
        [*COMMAND, "start", "add-up", "--input", "2", "--wait", "--data-dir", str(folder)],
        check=True,
        capture_output=True,
    )
    assert daemon.end() == 0
    return folder


def test_db_upgrade_check_and_backup(run, database, tmp_path):
    assert "is up to date" in run("db", "upgrade", "--data-dir", database).out
    assert run("db", "check", "--data-dir", database, "--json").json == {"ok": True, "problems": []}
    copy = tmp_path / "copy.db"
    made = run("db", "backup", copy, "--data-dir", database, "--json").json
    assert made == {"file": str(copy), "bytes": copy.stat().st_size}
    assert run("db", "check", "--store", f"sqlite:///{copy}").code == 0
    again = run("db", "backup", copy, "--data-dir", database)
    assert again.code == 5
    assert "already" in again.err


def test_a_damaged_database_is_found(run, database, tmp_path):
    copy = tmp_path / "damaged.db"
    run("db", "backup", copy, "--data-dir", database)
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE event SET payload = ? WHERE seq = 2", (b'{"args_hash":"x","result":9}',))
    connection.close()
    checked = run("db", "check", "--store", f"sqlite:///{copy}")
    assert checked.code == 1
    assert re.search(r"event 2 of run \S+ is damaged", checked.out)
    copy.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    assert run("db", "check", "--store", f"sqlite:///{copy}").code == 1
    assert run("db", "check", "--store", f"sqlite:///{copy}", "--json").json["ok"] is False


def test_db_commands_do_not_make_a_database(run, tmp_path):
    for command in (["upgrade"], ["check"], ["backup", "x.db"]):
        refused = run("db", *command, "--data-dir", tmp_path)
        assert refused.code == 4
        assert f"there is no database {tmp_path}/jivsd.db" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_db_upgrade_is_refused_while_the_daemon_runs(jivsd):
    refused = jivsd("db", "upgrade")
    assert refused.code == 5
    assert "in use by another jivsd" in refused.err
    assert jivsd("db", "check").code == 0


def test_config_show_and_check(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JIVSD_TOKEN", "hunter2")
    shown = run("config", "show", "--data-dir", tmp_path)
    assert "hunter2" not in shown.out
    assert re.search(rf"^data_dir +{tmp_path} +command line", shown.out, re.MULTILINE)
    assert run("config", "show", "--json").json["next"] is None
    assert run("config", "check").out == "The configuration is good.\n"
    (tmp_path / "bad.toml").write_text("nonsense = 1\n[log]\nlevel = 'loud'\n")
    checked = run("config", "check", "--config", tmp_path / "bad.toml", "--json")
    assert checked.code == 1
    assert len(checked.json["problems"]) == 2
    assert run("config", "show", "--config", tmp_path / "bad.toml").code == 6


def test_a_new_plugin_passes_its_check(run, tmp_path):
    made = run("plugins", "new", "orders", "--folder", tmp_path / "p")
    assert made.code == 0
    plugin, test = (Path(line) for line in made.out.splitlines())
    assert plugin.is_file()
    assert test.is_file()
    assert f"pytest {test}" in made.err
    assert run("plugins", "check", plugin).code == 0
    assert run("plugins", "new", "orders", "--folder", tmp_path / "p").code == 6


def test_plugins_check_finds_what_is_wrong(run, tmp_path):
    (tmp_path / "broken.py").write_text("print('noise')\nx = (\n")
    (tmp_path / "noisy.py").write_text("print('noise')\nimport nowhere_to_be_found\n")
    found = run("plugins", "check", tmp_path, "--json")
    assert found.code == 1
    assert {finding["rule"] for finding in found.json["findings"]} == {"load"}
    assert "broken.py:2" in run("plugins", "check", tmp_path).out
    assert run("plugins", "check", tmp_path / "nothing.py").code == 4


def test_version(run):
    assert re.fullmatch(r"jivsd \d+\.\d+\.\d+\n", run("version").out)
    assert set(run("version", "--json").json) == {"version", "python"}


@pytest.mark.slow
def test_help_teaches(run):
    page = run("--help").out
    for code, meaning in MEANINGS.items():
        assert re.search(rf"\b{code.value}\b +{re.escape(meaning[:40])}", page)
    for name, command in _commands(get_command(app)):
        assert command.help, name
        if not hasattr(command, "commands"):
            assert f"$ jivsd {name}" in command.epilog.replace("\\", ""), name
            help = run(*name.split(), "--help")
            assert help.code == 0
            assert "--json" in help.out or name == "run"


def _commands(command, path=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield " ".join((*path, name)), inner
        yield from _commands(inner, (*path, name))


@pytest.mark.parametrize("arguments", [["nope"], ["list", "--nope"], ["show"], ["db", "nope"], ["list", "extra"]])
def test_a_wrong_command_line_points_to_its_help(run, arguments):
    refused = run(*arguments)
    assert (refused.code, refused.out) == (Exit.USAGE, "")
    assert re.search(r"^Help: jivsd( \w+)? --help$", refused.err, re.MULTILINE)
    assert run(*arguments, "--json").error["code"] == "usage"


def test_alone_it_shows_the_help(run):
    assert "First steps" in run().out


def test_a_bug_is_one_line_and_its_details_are_kept(run, monkeypatch):
    def broken(*_):
        raise KeyError("at postgresql://u:hunter2@h/d")

    monkeypatch.setattr("jivsd.config.describe", broken)
    bug = run("config", "show", "--json")
    assert bug.code == 70
    details = Path(bug.error["details"])
    try:
        assert "KeyError" in bug.error["message"]
        assert "Traceback" in details.read_text()
        assert "hunter2" not in details.read_text() + bug.err
    finally:
        details.unlink()


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr("jivsd.config.describe", lambda _: 1 / 0)
    assert main(["--debug", "config", "show"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    Path(err.split()[-1]).unlink()


@pytest.mark.slow
def test_a_closed_pipe_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run([*COMMAND, "config", "show"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (listing.returncode, listing.stderr) == (141, b"")


@pytest.mark.slow
def test_output_that_the_terminal_cannot_encode(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "JIVSD_NODE": "n1", "JIVSD_DATA_DIR": str(tmp_path / "ü")}
    for more in ([], ["--json"]):
        shown = subprocess.run([*COMMAND, "config", "show", *more], env=environment, capture_output=True, check=False)
        assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["items"]


@pytest.mark.slow
def test_shell_completion_knows_statuses():
    completion = {"_JIVSD_COMPLETE": "complete_bash", "COMP_WORDS": "jivsd list --status comp", "COMP_CWORD": "3"}
    done = subprocess.run(
        [*COMMAND], env={**os.environ, **completion}, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == ["compensating", "compensation_blocked", "completed", "compensated"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["version"], ["list", "--data-dir", "/nowhere"]])
def test_the_daemons_libraries_are_not_imported_for_a_client_command(arguments):
    code = (
        "import sys; from jivsd.cli import main; main(sys.argv[1:]); "
        "print(*{'quart', 'hypercorn', 'apsw', 'asyncpg', 'redis', 'structlog', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] in ("", "rich")  # httpx imports rich for a command line of its own
