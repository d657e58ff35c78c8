"""Private PostgreSQL servers end with the process that started them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTER = """
import sys
from jivsd.proof.pgserver import Server
server = Server(durable=False)
server.start()
print(server.folder, flush=True)
sys.stdin.read()
"""
PATIENCE = 30.0


@pytest.mark.slow
def test_a_server_ends_with_a_process_that_is_killed():
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with starter:
        folder = Path(starter.stdout.readline().strip())
        server = Path("/proc") / (folder / "data" / "postmaster.pid").read_text().split()[0]
        assert server.exists()
        starter.kill()
    deadline = time.monotonic() + PATIENCE
    while folder.exists() or _lives(server):
        assert time.monotonic() < deadline, "the server goes on"
        time.sleep(0.02)


def _lives(process):
    """Whether a process goes on: one that nobody has fetched the end of does not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
