"""The checks that read the code instead of running it: style, types, floors, size."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "types": ["basedpyright", "--pythonpath", sys.executable],
    "floors": ["importlinter.cli", "lint"],
}
MAX_LINES = 500


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", CHECKS)
def test_check_finds_nothing(check):
    module, *arguments = CHECKS[check]
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_are_small():
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in ROOT.glob("jivsd/**/*.py")}
    sizes |= {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in ROOT.glob("plugins/**/*.py")}
    assert {path: size for path, size in sizes.items() if size > MAX_LINES} == {}


def test_top_level_is_what_was_asked_for():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.partition("/")[0] for line in tracked.splitlines()}
    allowed = {"pyproject.toml", "jivsd", "plugins", "tests", "schema", "systemd", "README.md"}
    assert {name for name in top if not name.startswith(".")} <= allowed
