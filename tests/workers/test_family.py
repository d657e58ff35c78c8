"""A parent and its workers: real processes, small ones, through the code that runs daemons."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ear import Ear

PROGRAM = Path(__file__).with_name("family.py")
PATIENCE = 20


class Running:
    def __init__(self, folder, process):
        self.folder = folder
        self.process = process

    def pid(self, name):
        return int((self.folder / f"{name}.pid").read_text())

    def kill(self, name, number=signal.SIGKILL):
        os.kill(self.pid(name), number)

    def asked(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.folder / "shared.sock"))
            return client.recv(100).decode().split()

    def ends(self):
        """Return its exit code and its log."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@contextmanager
def family(folder, environ=None, **deeds):
    command = [sys.executable, str(PROGRAM), str(folder), *(f"{name}={deed}" for name, deed in deeds.items())]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(environ or {})}
    ) as process:
        try:
            yield Running(folder, process)
        finally:
            process.kill()
            for file in folder.glob("*.pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGKILL)


@contextmanager
def ready(folder, environ=None, **deeds):
    with family(folder, environ, **deeds) as running:
        assert running.process.stdout.readline() == "ready\n"
        yield running


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_workers_answer_on_the_parents_socket_and_end_with_it(tmp_path):
    with ready(tmp_path, one="serve", two="serve") as running:
        pids = {name: str(running.pid(name)) for name in ("one", "two")}
        name, pid = running.asked()
        assert pids[name] == pid
        other = {"one": "two", "two": "one"}[name]
        running.kill(name, signal.SIGSTOP)
        assert running.asked() == [other, pids[other]]
        running.kill(name, signal.SIGCONT)
        running.process.terminate()
        assert running.ends()[0] == 0
        assert (tmp_path / "one.ended").exists()
        assert (tmp_path / "two.ended").exists()
        assert not (tmp_path / "shared.sock").exists()


def test_a_worker_that_dies_is_started_again_and_the_others_do_not_notice(tmp_path):
    with ready(tmp_path, one="serve", two="serve") as running:
        one, two = running.pid("one"), running.pid("two")
        running.kill("one")
        until(lambda: running.pid("one") != one and running.asked()[0] == "one")
        assert running.pid("two") == two
        running.process.terminate()
        code, said = running.ends()
        assert code == 0
        assert "it ended by signal SIGKILL" in said


def test_a_worker_that_dies_too_often_ends_all(tmp_path):
    with ready(tmp_path, one="serve", two="serve") as running:
        for _ in range(3):
            before = running.pid("two")
            running.kill("two")
            until(lambda before=before: running.process.poll() is not None or running.pid("two") != before)
        code, said = running.ends()
        assert code == 1
        assert "worker two has ended too often: it ended by signal SIGKILL" in said
        assert (tmp_path / "one.ended").exists()


def test_what_keeps_the_first_from_starting_is_said_once(tmp_path):
    with family(tmp_path, one="fail", two="serve") as running:
        code, said = running.ends()
        assert code == 1
        assert said.count("could not be started: it ended by exit code 3") == 1
        assert not (tmp_path / "two.pid").exists()


def test_workers_do_not_outlive_their_parent(tmp_path):
    with ready(tmp_path, one="serve", two="serve") as running:
        running.process.kill()
        until(lambda: gone(running.pid("one")) and gone(running.pid("two")))
        assert (tmp_path / "one.ended").exists()  # asked, not killed


def test_one_that_does_not_stop_is_killed_and_the_exit_code_tells(tmp_path):
    with ready(tmp_path, one="stubborn", two="serve") as running:
        running.process.terminate()
        code, said = running.ends()
        assert code == 1
        assert "killing the workers that are left" in said


def test_a_second_interrupt_ends_them_at_once(tmp_path):
    with ready(tmp_path, one="stubborn", two="stubborn") as running:
        running.process.send_signal(signal.SIGINT)
        until(lambda: not (tmp_path / "shared.sock").exists())
        running.process.send_signal(signal.SIGINT)
        assert running.ends()[0] == 130


def test_hangups_are_handed_on(tmp_path):
    with ready(tmp_path, one="serve", two="serve") as running:
        running.process.send_signal(signal.SIGHUP)
        until(lambda: (tmp_path / "one.hup").exists() and (tmp_path / "two.hup").exists())
        assert running.process.poll() is None


@pytest.mark.parametrize("first", ["one", "two"])
def test_a_worker_that_is_told_to_end_by_itself_comes_back(tmp_path, first):
    with ready(tmp_path, one="serve", two="serve") as running:
        before = running.pid(first)
        running.kill(first, signal.SIGTERM)
        until(lambda: running.pid(first) != before)
        running.process.terminate()
        assert running.ends()[0] == 0


def test_a_worker_that_hangs_is_killed_and_systemd_hears_that_all_is_well(tmp_path):
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
    with Ear(address) as ear, ready(tmp_path, environ, one="serve", two="serve") as running:
        assert ear.until("READY=1") == ["READY=1", "STATUS=2 workers are ready"]
        one, two = running.pid("one"), running.pid("two")
        running.kill("two", signal.SIGSTOP)
        assert ear.longest_silence(lambda: running.pid("two") != two) < 1
        assert running.pid("one") == one
        running.process.send_signal(signal.SIGHUP)
        assert ear.until("READY=1")[0] == "RELOADING=1"
        running.process.terminate()
        assert ear.until("STOPPING=1")
        code, said = running.ends()
        assert code == 0
        assert "worker hangs; it is killed" in said
