"""Private servers end with the process that started them; those of Redis do what tests ask of them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jivsd.proof.redisserver import Server, Watched

STARTER = """
import sys
from jivsd.proof.{module} import Server
server = Server({options})
server.start()
print(server.folder, server._process.pid, flush=True)
sys.stdin.read()
"""
PATIENCE = 30.0


@pytest.mark.slow
@pytest.mark.parametrize(("module", "options"), [("pgserver", "durable=False"), ("redisserver", "")])
def test_a_server_ends_with_a_process_that_is_killed(module, options):
    program = STARTER.format(module=module, options=options)
    starter = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with starter:
        folder, process = starter.stdout.readline().split()
        folder, server = Path(folder), Path("/proc") / process
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


def test_a_redis_server_that_was_killed_comes_back_empty_on_its_port():
    with Server(password="secret", users=["alice on >other ~mine:* +get"]) as server:
        port = server.port
        server.ask("SET", "a", "1")
        server.pause()
        server.kill()
        assert not server.answers()
        server.start()
        assert (server.port, server.ask("GET", "a")) == (port, None)
        assert [rule.split()[1] for rule in server.ask("ACL", "LIST")] == ["alice", "default"]
    assert not server.folder.exists()


@pytest.mark.slow
def test_a_sentinel_makes_the_replica_the_primary():
    with Watched(password="secret") as watched:
        before = watched.primary()
        before.ask("SET", "a", "1")
        watched.fail_over()
        assert watched.primary() is not before
        assert watched.primary().ask("GET", "a") == "1"


@pytest.mark.slow
def test_a_cluster_moves_slots_to_the_replica(redis_cluster):
    key = next(key for key in map(str, range(100)) if redis_cluster.primary_of(key) is redis_cluster.nodes[0])
    before = redis_cluster.nodes[0]
    redis_cluster.fail_over()
    after = redis_cluster.primary_of(key)
    assert after is not before
    assert after.ask("SET", key, "1")
