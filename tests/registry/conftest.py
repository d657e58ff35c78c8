"""Plugins in a folder of their own."""

from __future__ import annotations

import os
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from jivsd.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from jivsd.registry import Report


class Folder:
    """A folder of plugins: `write` files, then `load` them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = Registry()
        path.mkdir()

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def load(self) -> Report:
        return self.registry.load([self.path], bundled=False, installed=False)

    def problem(self) -> str:
        """The one problem of this folder, as people see it."""
        report = self.load()
        assert report.plugins == []
        (problem,) = report.problems
        assert "\n" not in str(problem)
        return str(problem)


@pytest.fixture(autouse=True)
def usual_umask():
    """Plugins that a group can write to are refused, whatever umask the tests run under."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "plugins")


NAP = """
    from __future__ import annotations

    import msgspec

    from jivsd import Context, workflow


    class Nap(msgspec.Struct):
        seconds: float


    @workflow("nap")
    async def nap(ctx: Context, nap: Nap) -> str:
        await ctx.sleep(nap.seconds)
        return "slept"
"""


@pytest.fixture
def nap():
    """The text of a plugin with the workflow "nap"."""
    return NAP
