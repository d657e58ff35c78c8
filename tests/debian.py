"""Programs that only Debian has: those of this machine, or else of packages that are unpacked aside, not installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

ASIDE = Path(tempfile.gettempdir()) / f"jivsd-debian-{os.getuid()}"
"""Where packages are unpacked; kept for the next session."""
PATIENCE = 300
CHROMIUM = ("chromium", "usr/lib/chromium/chromium")
"""The browser that the dashboard's tests look with: the package, and the program in it."""


def found(package, pattern):
    """The newest program that fits a pattern below `/`, of a package; skips the test where there is none."""
    for root in (Path("/"), ASIDE / package):
        if programs := sorted(root.glob(pattern)):
            return programs[-1]
    why = _unpack(package)
    programs = sorted((ASIDE / package).glob(pattern))
    if not programs:
        pytest.skip(f"{package} is not here{why}; say: apt-get install {package}")
    return programs[-1]


def needed(package, pattern):
    """The same for what no session does without: root gets it installed, everybody else stops before the tests."""
    for root in (Path("/"), ASIDE / package):
        if programs := sorted(root.glob(pattern)):
            return programs[-1]
    why = _install(package) if os.geteuid() == 0 else ""
    if programs := sorted(Path("/").glob(pattern)):
        return programs[-1]
    pytest.exit(f"the tests need {package}{why}; say as root: apt-get install --yes {package}", returncode=3)


def environment(program):
    """The variables with which an unpacked program finds its libraries."""
    if not program.is_relative_to(ASIDE):
        return dict(os.environ)
    root = ASIDE / program.relative_to(ASIDE).parts[0]
    folders = {str(path.parent) for path in root.glob("**/lib/**/*.so*")}
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(folders))}


@cache
def _install(package):
    """Install a package. Returns why that cannot be."""
    get = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={PATIENCE}"]
    install = [*get, "install", "--no-install-recommends", "--yes", package]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run([*get, "update"], capture_output=True, timeout=PATIENCE, check=False)
        subprocess.run(install, capture_output=True, timeout=PATIENCE, check=True, text=True, env=quiet)
    except (OSError, subprocess.SubprocessError) as error:
        return f" ({_reason(error)})"
    return ""


@cache
def _unpack(package):
    """Download a package with what it needs, and unpack all of it. Returns why that cannot be."""
    archives = ASIDE / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    get = ["apt-get", "-qq", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
    wanted = ["install", "--download-only", "--no-install-recommends", "--yes", package]
    try:
        if os.geteuid() == 0 and subprocess.run([*get, *wanted], capture_output=True, timeout=PATIENCE).returncode:
            subprocess.run([*get, "update"], capture_output=True, timeout=PATIENCE, check=False)
        subprocess.run([*get, *wanted], capture_output=True, timeout=PATIENCE, check=True, text=True)
        for archive in archives.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, ASIDE / package], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f" ({_reason(error)})"
    return ""


def _reason(error):
    said = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return said[-1] if said else type(error).__name__
