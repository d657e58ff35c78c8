"""Archives: the histories of many runs in one compressed file, a line each, as `jivsd export` writes them.

The file is a row of gzip members, so that `zcat` reads it. Each member is whole by itself: in it the first run of every
code brings the code's source along, and those after it refer to that. A member is on the disk before its runs are
removed; what a crash leaves of one that was being written is cut off when the file is opened again.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from msgspec.structs import replace

from jivsd.testing.history import History

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path
    from types import TracebackType

    from jivsd.store.api import Plugin

MAGIC: Final = b"\x1f\x8b"
_READ: Final = 1024 * 1024


class NotAnArchive(ValueError):
    """A file that is no archive, or that another process writes; the message says which."""


class _Named(msgspec.Struct):
    run_id: str


class Archive:
    """An archive that runs are added to. Use with `with`.

    `last`: the run ids of the last member: whether they were removed before the writer ended, nobody knows.
    `cut`: how many bytes of an unfinished member were cut off.
    """

    def __init__(self, path: Path) -> None:
        """Open an archive, or make one that only its owner can read.

        Raises:
            NotAnArchive: the file is something else, or in use. OSError.
        """
        self.path = path
        new = not path.exists()
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            self._lock()
            end, last = self._survey()
            self.last = frozenset(msgspec.json.decode(line, type=_Named).run_id for line in last.splitlines())
            self.cut = self._file.seek(0, os.SEEK_END) - end
            self._file.truncate(end)
            self._file.seek(end)
            self._sync()
        except BaseException:
            self._file.close()
            raise
        if new:
            _sync_folder(path.absolute().parent)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, histories: Iterable[History], plugins: dict[str, Plugin]) -> None:
        """Add histories as one member; when this returns, they are on the disk. `plugins`: sources by code hash."""
        brought: set[str] = set()
        lines: list[bytes] = []
        for history in histories:
            plugin = plugins.get(history.code_hash) if history.code_hash not in brought else None
            brought.add(history.code_hash)
            lines.append(msgspec.json.encode(replace(history, plugin=plugin)) + b"\n")
        if lines:
            self._file.write(gzip.compress(b"".join(lines), compresslevel=6, mtime=0))
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotAnArchive(f"{self.path} is being written by another process") from None

    def _survey(self) -> tuple[int, bytes]:
        """Where the last whole member ends, and what it holds."""
        end, last = 0, b""
        for end, last in members(self._file, self.path):  # noqa: B007  # what is wanted is the last
            pass
        return end, last


def members(file: BinaryIO, path: Path) -> Generator[tuple[int, bytes]]:
    """The whole members of an archive: where each ends, and what it holds. An unfinished one at the end is left out.

    Raises:
        NotAnArchive: the file is something else, or damaged.
    """
    rest, position = file.read(_READ), 0
    while rest:
        if not rest.startswith(MAGIC[: len(rest)]):
            raise NotAnArchive(f"{path} is not an archive that `jivsd prune --archive` has made, or is damaged")
        member, parts = zlib.decompressobj(wbits=31), list[bytes]()
        try:
            while not member.eof and rest:
                parts.append(member.decompress(rest))
                position += len(rest) - len(member.unused_data)
                rest = member.unused_data if member.eof else file.read(_READ)
        except zlib.error as error:
            raise NotAnArchive(f"{path} is damaged after byte {position:,}: {error}") from None
        if not member.eof:
            return
        yield position, b"".join(parts)
        rest = rest or file.read(_READ)


def is_archive(path: Path) -> bool:
    """Whether a file begins like an archive."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path) -> Generator[History]:
    """The histories of an archive, each with its code.

    Raises:
        NotAnArchive, NotAHistory, OSError.
    """
    with path.open("rb") as file:
        for _, content in members(file, path):
            plugins: dict[str, Plugin] = {}
            for line in content.splitlines():
                history = History.decode(line, str(path))
                if history.plugin is not None:
                    plugins[history.code_hash] = history.plugin
                yield replace(history, plugin=plugins.get(history.code_hash))


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
