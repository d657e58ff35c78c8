"""The units: systemd understands them, they open as little as can be, and an installed user gets them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from debian import environment, found

from jivsd import openfiles
from jivsd.cli import main
from jivsd.config import load

UNITS = Path(__file__).parents[2] / "systemd"
EXPOSURE = 12
"""Tenths, as `systemd-analyze security` counts them."""
INSTANCES = {"jivsd.service": "jivsd.service", "jivsd@.service": "jivsd@crm.service"}


def analyze(*arguments):
    program = found("systemd", "usr/bin/systemd-analyze")
    return subprocess.run([program, *arguments], env=environment(program), capture_output=True, text=True, timeout=60)


@pytest.fixture(params=INSTANCES)
def unit(request, tmp_path):
    """A unit whose programs are there, whatever is installed here."""
    text = (UNITS / request.param).read_text()
    file = tmp_path / INSTANCES[request.param]
    file.write_text(text.replace("/opt/jivsd/bin/jivsd", sys.executable))
    return file


def test_systemd_finds_nothing_wrong(unit):
    verified = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_the_service_is_shut_in(unit):
    told = analyze("security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE}", unit)
    assert told.returncode == 0, told.stdout
    assert "Overall exposure level" in told.stdout


@pytest.mark.parametrize("name", INSTANCES)
def test_the_daemon_may_have_enough_files_open(name):
    limits = re.findall(r"^LimitNOFILE=(\d+)$", (UNITS / name).read_text(), re.M)
    assert int(*limits) >= openfiles.ENOUGH, "the filter of system calls does not let it ask for more"


def test_both_units_are_shut_in_alike():
    one, many = ((UNITS / name).read_text().partition("UMask=")[2] for name in INSTANCES)
    assert one == many != ""


@pytest.mark.parametrize(("arguments", "name"), [([], "jivsd.service"), (["--template"], "jivsd@.service")])
def test_an_installed_user_gets_the_unit_with_the_path_of_the_installation(arguments, name, capsys):
    assert main(["config", "unit", *arguments]) == 0
    program = str(Path(sys.prefix) / "bin" / "jivsd")
    assert capsys.readouterr().out == (UNITS / name).read_text().replace("/opt/jivsd/bin/jivsd", program)


def test_the_example_configuration_is_good_as_it_is_and_with_all_that_it_shows(tmp_path, capsys):
    assert main(["config", "example"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "jivsd.toml"
    for shown in (text, text.replace("# store =", "store =").replace("# workers", "workers").replace("# http", "http")):
        file.write_text(shown)
        assert load(file, {}, {"JIVSD_DATA_DIR": str(tmp_path)}).plugins == (tmp_path / "plugins",)
    assert load(file, {}, {"JIVSD_DATA_DIR": str(tmp_path)}).workers == 4
