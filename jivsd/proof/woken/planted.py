"""The migration plugin with a bug built in on purpose: a proof that does not find it proves nothing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jivsd import config, daemon
from jivsd.proof.daemons import Daemon
from jivsd.registry import discovery
from jivsd.resources import bundled

if TYPE_CHECKING:
    from collections.abc import Mapping

STALE_WRITER: Final = "stale-writer"
"""The fence of a target in PostgreSQL is left out: a chunk is loaded whoever brings it, and whatever is there."""
_PLUGIN: Final = "migration"
_BUG: Final = "\n\nasync def committed(session, right, chunk):\n    return None\n"


def plant(folder: Path) -> None:
    """Make a copy of the plugin, with the bug."""
    shutil.copytree(bundled("plugins") / _PLUGIN, folder / _PLUGIN, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / _PLUGIN / "postgresql" / "fence.py").open("a") as file:
        file.write(_BUG)


class PlantedDaemon(Daemon):
    """A daemon that has the plugins of a folder in place of the bundled ones."""

    def __init__(self, data_dir: Path, log: Path, plugins: Path, environment: Mapping[str, str]) -> None:
        super().__init__(data_dir, log, environment=environment)
        self._command = [sys.executable, "-m", __name__, str(data_dir), str(plugins)]


def main(data_dir: str, plugins: str) -> int:
    """Run such a daemon."""

    def folder(name: str) -> Path:
        return Path(plugins)

    discovery.bundled = folder
    return daemon.run(config.load(None, {"data_dir": Path(data_dir)}))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
