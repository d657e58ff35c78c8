"""A small file system that is full when it is told to be, without root's permission.

It lies in memory, in a mount namespace of an unprivileged user namespace (see user_namespaces(7)); only a program that
is started inside sees it. A shell keeps it: what has to be mounted is said to that one.
"""

from __future__ import annotations

import subprocess
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZE: Final = "512m"
"""How much there is room for when it is not full: memory is taken by what is written only."""
ATTEMPTS: Final = 50
"""How often it is said how much there is room for, while somebody goes on taking it."""
INSIDE: Final = ("unshare", "--user", "--mount", "--map-current-user", "--keep-caps")


class NoRoom(Exception):
    """The system lets an ordinary user mount nothing."""


class Room:
    """The file system. `close` gives it up; it is gone when those who were started inside are gone, too."""

    def __init__(self, folder: Path, *, user: int | None = None, group: int | None = None) -> None:
        """Mount it.

        Args:
            folder: on this one, which must be there.
            user: for whom; None: the caller.
            group: likewise.

        Raises:
            NoRoom.
        """
        self.folder = folder
        try:
            self._keeper = subprocess.Popen(
                [*INSIDE, "/bin/sh"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us
                user=user,
                group=group,
                extra_groups=None if user is None else (),
            )
        except OSError as error:
            raise NoRoom(f"{INSIDE[0]} cannot be run: {error.strerror}") from None
        try:
            self._mount(f"-t tmpfs -o size={SIZE},mode=0700 jivsd")
        except NoRoom:
            self.close()
            raise

    @property
    def entered_by(self) -> Sequence[str]:
        """What comes before a command, for it to be run inside."""
        return ("nsenter", "--target", str(self._keeper.pid), "--user", "--mount", "--preserve-credentials", "--")

    def fill(self) -> None:
        """Let there be no more room than is taken."""
        taken = f"$(($(df --block-size=1 --output=used '{self.folder}' | tail -1)))"
        for _ in range(ATTEMPTS):
            if self._mounts(f"-o remount,size={taken}"):
                return
        raise NoRoom("there was always more taken before it could be said that there is no more")

    def empty(self) -> None:
        """Let there be room again."""
        self._mount(f"-o remount,size={SIZE}")

    def close(self) -> None:
        """Give it up."""
        self._keeper.communicate()

    def _mount(self, options: str) -> None:
        if not self._mounts(options):
            raise NoRoom("this system lets an ordinary user mount nothing (see user_namespaces(7))")

    def _mounts(self, options: str) -> bool:
        """Whether it can be mounted so."""
        try:
            self._said.write(f"mount {options} '{self.folder}'; echo $?\n".encode())
            self._said.flush()
            return self._heard.readline().strip() == b"0"
        except BrokenPipeError:
            return False

    @property
    def _said(self) -> IO[bytes]:
        assert self._keeper.stdin is not None
        return self._keeper.stdin

    @property
    def _heard(self) -> IO[bytes]:
        assert self._keeper.stdout is not None
        return self._keeper.stdout
