"""What systemd hears of a real daemon, on a real socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from ear import Ear

from jivsd.notify import READY, WATCHDOG, Notifier

MOODS = Path(__file__).with_name("moods.py")
PERIOD = 2.0
"""Seconds after which systemd would act."""
PATIENCE = 30


@contextmanager
def daemon(folder, **environ):
    own = {name: value for name, value in os.environ.items() if not name.startswith("JIVSD_")}
    command = [sys.executable, "-m", "jivsd", "run", "--data-dir", str(folder), "--plugins", str(MOODS)]
    with subprocess.Popen([*command, "--log-format", "text"], env={**own, **environ}, stderr=subprocess.DEVNULL) as it:
        try:
            yield it
        finally:
            it.kill()


def start(folder, workflow, value, *options):
    """Start a run in a process of its own, as the daemon may not answer for a while."""
    command = [sys.executable, "-m", "jivsd", "start", workflow, "--input", str(value), "--data-dir", str(folder)]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_the_life_of_a_daemon_as_systemd_hears_it(tmp_path):
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(PERIOD * 1e6))}
    with Ear(address) as ear, daemon(tmp_path / "state", **environ) as process:
        assert ear.until(READY) == [READY]
        process.send_signal(signal.SIGHUP)
        assert ear.until(READY)[0] == "RELOADING=1"

        with start(tmp_path / "state", "busy", 700, "--wait") as busy:
            assert ear.longest_silence(lambda: busy.poll() is not None) < PERIOD
        assert busy.returncode == 0

        with start(tmp_path / "state", "hang", PERIOD + 0.5, "--wait") as hanging:
            assert ear.longest_silence(lambda: hanging.poll() is not None) > PERIOD
        assert WATCHDOG in ear.next(PERIOD)

        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            while True:
                ear.next(PERIOD / 2)
        process.send_signal(signal.SIGCONT)
        assert WATCHDOG in ear.next()

        process.terminate()
        assert ear.until("STOPPING=1")[0] == "STOPPING=1"
        assert process.wait(PATIENCE) == 0


def test_an_abstract_address_and_a_watchdog_of_another_process():
    name = f"@jivsd-test-{os.getpid()}"
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    with Ear("\0" + name[1:]) as ear:
        notifier = Notifier.of_environment(environ)
        assert environ == {"HOME": "/"}  # programs that steps start are not asked
        assert notifier.watchdog is None
        notifier.send(READY, "STATUS=well")
        assert ear.next() == [READY, "STATUS=well"]
    notifier.send(READY)  # nobody hears it, and that harms nobody
    notifier.close()
    notifier.send(READY)


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_nobody_to_tell(address, capfd):
    notifier = Notifier.of_environment({"NOTIFY_SOCKET": address} if address else {})
    notifier.send(READY)
    assert ("nobody can be told" in capfd.readouterr().err) == (address == "/nowhere/at/all")
