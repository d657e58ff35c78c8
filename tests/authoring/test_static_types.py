"""Plugin code is typed through and through: a type checker sees what a step, job or child returns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_type_checker_sees_results_and_mistakes(tmp_path):
    examples = [HERE / "typing_example.py", HERE / "design_example.py"]
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, *map(str, examples)]
    done = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
