from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jivsd.registry import Registry
from jivsd.registry.checkup import check_path
from jivsd.registry.template import CannotCreate, new_plugin


def test_a_new_plugin_loads_and_has_no_findings(tmp_path):
    folder = tmp_path / "plugins"
    plugin, test = new_plugin("my-orders", folder)
    assert (plugin.name, test.name) == ("my_orders.py", "test_my_orders.py")
    assert check_path(folder) == []
    registry = Registry()
    (loaded,) = registry.load([folder], bundled=False, installed=False).plugins
    assert list(loaded.workflows) == ["my-orders"]
    workflow = loaded.workflows["my-orders"]
    assert (set(workflow.signals), set(workflow.queries)) == ({"approve"}, {"approved"})
    assert workflow.namespace["reserve"].compensation is workflow.namespace["release"]


def test_the_tests_of_a_new_plugin_pass(tmp_path):
    _, test = new_plugin("my-orders", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.slow
def test_a_new_plugin_is_clean_typed_code(tmp_path):
    written = new_plugin("my_orders", tmp_path)
    root = Path(__file__).parents[2]
    for command in (
        ["ruff", "check", "--config", str(root / "pyproject.toml"), str(tmp_path)],
        ["ruff", "format", "--check", "--config", str(root / "pyproject.toml"), str(tmp_path)],
        ["basedpyright", "--pythonpath", sys.executable, *map(str, written)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["", "My", "a b", "5a", "-a", "a-", "a--b", "a/b", "../a", "class", "test-a", "a.py", "ä", "x" * 61]
)
def test_names_that_no_plugin_can_have(tmp_path, name):
    with pytest.raises(CannotCreate, match="cannot be a plugin's name: up to 60 lower-case letters"):
        new_plugin(name, tmp_path / "plugins")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_would_hide_a_module_of_python(tmp_path):
    with pytest.raises(CannotCreate, match="Python has a module named 'queue', which the plugin would hide"):
        new_plugin("queue", tmp_path)


def test_nothing_is_overwritten(tmp_path):
    new_plugin("orders-a", tmp_path)
    with pytest.raises(CannotCreate, match=r"orders_a.py is there already"):
        new_plugin("orders_a", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate, match=r"file cannot be written: (File exists|Not a directory)"):
        new_plugin("orders-b", tmp_path / "file")
