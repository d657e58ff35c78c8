"""The examples of the README's section on testing, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_readmes_tests_pass(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (plugin,) = [block for block in blocks if '@workflow("move-tenant"' in block]
    tests = [block for block in blocks if "def test_" in block and "history.json" not in block]
    assert len(tests) == 2
    (tmp_path / "move_tenant.py").write_text(plugin)
    (tmp_path / "test_move_tenant.py").write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
