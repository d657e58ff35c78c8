"""The daemon works under what its unit forbids it: as much of that as can be imposed without systemd."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from debian import environment, found
from systemd.cell import NOBODY

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UNIT = ROOT / "systemd" / "jivsd.service"
MOUNTS = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
"""Whether file systems can be taken away: root can, unless that one is in a container."""
PATIENCE = 60
IMPOSED = {
    *("UMask", "NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "User", "Group", "LoadCredential"),
    *("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateMounts", "PrivateDevices", "ProtectControlGroups"),
    *("ProtectKernelTunables", "ProtectProc", "ProcSubset", "StateDirectory", "StateDirectoryMode"),
    *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute"),
    *("SystemCallFilter", "SystemCallErrorNumber"),
}
"""What the cell imposes; file systems, user and capabilities only where file systems can be taken away."""
BY_THE_FILTER = {"ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "RestrictRealtime"}
"""What the filter of system calls forbids anyway."""
LEFT = {"DevicePolicy", "RemoveIPC", "KeyringMode", "SystemCallArchitectures"}
LEFT |= {"RuntimeDirectory", "RuntimeDirectoryMode"}
"""What only systemd does: control groups, what is cleared up afterwards, keys, other architectures' calls."""


def directives():
    lines = UNIT.read_text().partition("User=")[2].partition("[Install]")[0].splitlines()
    return {"User", *(line.partition("=")[0] for line in lines[1:] if line and not line.startswith("#"))}


def syscalls():
    """The names of what `SystemCallFilter=` lets through."""
    program = found("systemd", "usr/bin/systemd-analyze")

    def of(group):
        command = [program, "syscall-filter", group]
        told = subprocess.run(command, env=environment(program), capture_output=True, text=True, timeout=60, check=True)
        names = [line.strip() for line in told.stdout.splitlines() if line.startswith("    ")]
        return {one for name in names if not name.startswith("#") for one in (of(name) if name[0] == "@" else {name})}

    wanted = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    allowed = set()
    for line in wanted:
        groups = set().union(*map(of, line.lstrip("~").split()))
        allowed = allowed - groups if line.startswith("~") else allowed | groups
    return sorted(allowed)


@pytest.fixture
def cell(tmp_path):
    """The beginning of a command that is run in the cell, and the folder that may be written to."""
    with tempfile.TemporaryDirectory(prefix="jivsd-cell-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o750)
        Path(folder).chmod(0o755)
        if MOUNTS:
            os.chown(state, NOBODY, NOBODY)
        keep = sorted({str(ROOT), sys.prefix, sys.base_prefix, folder})
        plan = Path(folder, "plan.json")
        plan.write_text(json.dumps({"syscalls": syscalls(), "state": str(state), "keep": keep, "mounts": MOUNTS}))
        yield [sys.executable, str(HERE / "cell.py"), str(plan)], state


def test_every_line_of_the_unit_is_imposed_or_named():
    assert directives() == IMPOSED | BY_THE_FILTER | LEFT


def test_nobody_gets_out_of_the_cell(cell):
    command, state = cell
    probe = [sys.executable, str(HERE / "probe.py"), str(state)]
    done = subprocess.run([*command, *probe], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    forbidden = {
        "memory to write and execute": "EPERM",
        "a netlink socket": "EAFNOSUPPORT",
        "a namespace": "EPERM",
        "a set-user-id file": "EPERM",
        "another personality": "EPERM",
        "more priority": "EPERM",
        "the clock": "EPERM",
        "reboot": "EPERM",
    }
    files = {"write to /usr": "EROFS", "see process 1": "ENOENT", "see /proc/meminfo": "ENOENT", "see a disk": "ENOENT"}
    allowed = dict.fromkeys(["write to the state", "write to /tmp", "a TCP socket"])
    assert {name: said[name] for name in (*forbidden, *allowed)} == forbidden | allowed
    if MOUNTS:
        assert {name: said[name] for name in files} == files


@pytest.mark.slow
def test_the_daemon_works_in_the_cell(cell):
    command, state = cell
    secrets = state / "credentials"
    secrets.mkdir()
    (secrets / "token").write_text("a-token")
    if MOUNTS:
        for path in (secrets, secrets / "token"):
            os.chown(path, NOBODY, NOBODY)
    (secrets / "token").chmod(0o400)
    variables = {"CREDENTIALS_DIRECTORY": str(secrets), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    daemon = [sys.executable, "-m", "jivsd", "run", "--data-dir", str(state), "--http", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, *daemon, "--log-format", "json"], stderr=subprocess.PIPE, text=True, env=variables
    )
    lines = []
    try:
        url = None
        for line in process.stderr:
            lines.append(line)
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("event") == "ready":
                url = next(one for one in said["listening"] if one.startswith("http"))
                break
        assert url is not None, "".join(lines)

        def ask(path, body=None, token="a-token"):
            request = urllib.request.Request(url + path, body and json.dumps(body).encode())
            request.add_header("Authorization", f"Bearer {token}")
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read().decode()

        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask("/api/v1/status", token="another")
        order = {"workflow": "order", "id": "one", "input": {"order": "one"}}
        ran = json.loads(ask("/api/v1/runs?wait=30s", order))["run"]
        assert ran["status"] == "COMPLETED", ran
        assert 'jivsd_runs_completed_total{workflow="order"} 1.0' in ask("/metrics")
        (began,) = re.findall(r"^process_start_time_seconds (.+)$", ask("/metrics"), re.MULTILINE)
        assert abs(time.time() - float(began)) < PATIENCE
        assert json.loads(ask("/health"))["status"] in ("ok", "up", "UP")
        assert (state / "jivsd.db").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, "".join(lines) + rest
    assert "Traceback" not in rest
    assert '"level":"error"' not in "".join(lines) + rest
