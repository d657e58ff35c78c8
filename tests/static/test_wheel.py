"""What is installed works outside the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel was installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def jivsd(installed, folder, *arguments):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JIVSD_")}
    environ["PYTHONPATH"] = str(installed)
    command = [sys.executable, "-m", "jivsd", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_wheel_has_everything(installed):
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert "jivsd/py.typed" in files
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "jivsd/admin/static").iterdir()}
    assert "jivsd/admin/static/index.html" in pages
    assert pages <= files
    for folder in ("schema", "plugins", "systemd"):
        sources = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert sources
        assert {f"jivsd/_bundled/{source}" for source in sources} <= files


@pytest.mark.slow
def test_wheel_runs_outside_the_checkout(installed, tmp_path):
    where = [sys.executable, "-c", "import jivsd; print(jivsd.__file__)"]
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(where, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(installed))
    checked = jivsd(installed, tmp_path, "plugins", "check", str(installed / "jivsd/_bundled/plugins/migration"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = jivsd(installed, tmp_path, "config", "show", "--json", "--data-dir", str(tmp_path / "data"))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert json.loads(shown.stdout)["items"]
