"""What private servers have in common: a process with a folder of its own and a log, that ends with who started it."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from jivsd.proof.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

PATIENCE: Final = 30.0
"""Seconds that a server may take to start or to end."""
LAST_WORDS: Final = 2000
"""Characters of a log's end that are repeated."""


class ServerFailed(Exception):
    """The server did not do what it was asked; the message has the end of its log."""


class PrivateServer(ABC):
    """One server; `with` starts it, ends it, removes all."""

    def __init__(self, name: str, folder: Path) -> None:
        """Prepare.

        Args:
            name: what it is, for sentences.
            folder: its own; removed with it.
        """
        self.folder = folder
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServerFailed."""

    @abstractmethod
    def remove(self) -> None:
        """End it and remove all that it left."""

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "log"

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_text(errors="replace")[-LAST_WORDS:]
        except OSError:
            return "it has written no log"

    def _launch(
        self,
        command: Sequence[str | Path],
        *,
        last_signal: str,
        user: int | None = None,
        group: int | None = None,
        groups: tuple[int, ...] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the process.

        Args:
            command: the program and its arguments.
            last_signal: what ends it if we are killed, as the shell names it.
            user: as whom it runs, if not as we do.
            group: its group.
            groups: its further groups.
        """
        with self.log.open("ab") as log:
            process = self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for us: we end it
                user=user,
                group=group,
                extra_groups=groups,
            )
        self._guard = Guard(process.pid, self.folder, signal=last_signal)
        return process

    def _until_ended(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of the process, which was asked for. Raises ServerFailed."""
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{self._name} did not end: {self.last_words()}") from None
        self._process = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
