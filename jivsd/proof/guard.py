"""What ends a private server with the process that started it, however that one ends."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_GUARD: Final = """
read -r word && exit
kill -CONT "$1"; kill -"$3" "$1"
for again in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" && sleep 0.3 || break; done
rm -rf "$2"
"""
"""A shell that hears nothing until its starter says a word, or is no more: then the server has to end with it."""


class Guard:
    """Watches over one process and its folder."""

    def __init__(self, process: int, folder: Path, *, signal: str) -> None:
        """Begin.

        Args:
            process: its id.
            folder: removed after it.
            signal: what ends it, as the shell names it.
        """
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(process), folder, signal],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what kills us and our group must leave it alive
        )

    def dismiss(self) -> None:
        """The process has ended."""
        self._shell.communicate(b"done\n")
