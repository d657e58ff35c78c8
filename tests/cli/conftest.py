"""A real daemon for the command line to talk to, and the command line as a function."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jivsd.cli import main

COMMAND = [sys.executable, "-m", "jivsd"]


class Daemon:
    """A daemon process on the folder; its log is kept in `lines`."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        plugins = data_dir / "plugins"
        plugins.mkdir(mode=0o755, exist_ok=True)
        (plugins / "trial.py").write_text((Path(__file__).parent / "trial.py").read_text())
        self._process = subprocess.Popen(
            [
                *COMMAND,
                "run",
                "--data-dir",
                str(data_dir),
                "--plugins",
                str(plugins),
                "--log-format",
                "json",
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._ready.wait(30), self.lines
        assert self._process.poll() is None, self.lines

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as log:
            for line in log:
                self.lines.append(line)
                if json.loads(line)["event"] == "ready":
                    self._ready.set()
        self._ready.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hang_up(self) -> None:
        """Send SIGHUP, and wait until the daemon has said that it has loaded its plugins again."""
        said = self._count("plugins loaded again")
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while self._count("plugins loaded again") == said:
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)

    def _count(self, event: str) -> int:
        return sum(json.loads(line)["event"] == event for line in self.lines)

    def end(self, *, kill: bool = False) -> int:
        """Ask it to stop, or kill it; return its exit code."""
        self._process.kill() if kill else self._process.terminate()
        code = self._process.wait(30)
        self._reader.join(10)
        return code


@pytest.fixture(scope="session")
def data_dir():
    """A folder for the daemon, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="jivsd-cli-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def daemon(data_dir):
    daemon = Daemon(data_dir)
    yield daemon
    daemon.end()


@dataclass
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        assert self.out == ""
        return json.loads(self.err)["error"]


@pytest.fixture
def run(capsys):
    """Runs a command in this process, where no daemon is."""

    def call(*arguments: object) -> Result:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return call


@pytest.fixture
def jivsd(run, daemon, monkeypatch):
    """Runs a command that finds the daemon by JIVSD_DATA_DIR."""
    monkeypatch.setenv("JIVSD_DATA_DIR", str(daemon.data_dir))
    return run
