"""The source of a plugin: a file or a folder of text, read whole, known by the hash of its content."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jivsd.registry.trust import distrust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_LIMIT: Final = 1024 * 1024
"""The largest file of a plugin, in bytes."""
TOTAL_LIMIT: Final = 8 * 1024 * 1024
"""The largest plugin, in bytes."""
FILES_LIMIT: Final = 1000
DEPTH_LIMIT: Final = 16
"""How deep folders may be nested in a plugin."""


class PluginProblem(Exception):
    """Why a plugin, or a folder of plugins, cannot be used, in one sentence.

    `plugin` is its name, "" for a folder of plugins; `where` its file or folder, `line` the line at fault if there is
    one, `reason` the sentence without these.
    """

    def __init__(self, reason: str, *, plugin: str, where: str, line: int | None = None) -> None:
        place = where if line is None else f"{where}, line {line}"
        super().__init__(f"plugin {plugin!r} ({place}): {reason}" if plugin else f"plugins in {place}: {reason}")
        self.reason = reason
        self.plugin = plugin
        self.where = where
        self.line = line

    def concerns(self, plugin: str, where: str) -> bool:
        """Whether this is a problem of a plugin that was read at `where`, or of its folder, and not that it is gone."""
        if self.plugin == plugin:
            return True
        place, own = Path(self.where).resolve(), Path(where)
        try:
            place.stat()
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return own == place or own in place.parents or place in own.parents


@dataclass(frozen=True)
class Source:
    """A plugin's text: relative path (with `/`) to content.

    `name` is that of its file or folder, `origin` where it was read; None: from the journal's copy.
    """

    name: str
    files: Mapping[str, str]
    origin: Path | None = None

    @property
    def is_package(self) -> bool:
        return "__init__.py" in self.files

    @property
    def main(self) -> str:
        """The file that is imported under the plugin's name."""
        return "__init__.py" if self.is_package else next(iter(self.files))

    @cached_property
    def code_hash(self) -> str:
        """The hash of the content, without the names of the plugin and of a single file (BLAKE2b, 128 bits)."""
        if not self.is_package:
            return hashlib.blake2b(self.files[self.main].encode(), digest_size=16, person=b"module").hexdigest()
        digest = hashlib.blake2b(digest_size=16, person=b"package")
        for path in sorted(self.files):
            digest.update(f"{path}\0{self.files[path]}\0".encode())
        return digest.hexdigest()

    @property
    def where(self) -> str:
        """The plugin's place, for people."""
        return f"{self.name} {self.code_hash[:12]} in the journal" if self.origin is None else str(self.origin)

    def place(self, path: str) -> str:
        """The place of one of its files, for people."""
        if self.origin is None:
            return f"{path} of {self.where}"
        return str(self.origin / path) if self.is_package else str(self.origin)

    def problem(self, reason: str, *, path: str | None = None, line: int | None = None) -> PluginProblem:
        """A problem of this plugin, of one of its files or of a line there."""
        where = self.where if path is None else self.place(path)
        return PluginProblem(reason, plugin=self.name, where=where, line=line)


def read_source(path: Path, *, trusted: bool = False) -> Source:
    """Read the plugin at `path`, a `.py` file or a package folder.

    Left out are hidden files, `__pycache__` and tests (`tests/`, `test_*.py`, `*_test.py`, `conftest.py`). `trusted`
    skips the question of who can write to it.

    Raises:
        PluginProblem: it is too large, not UTF-8 text, cannot be read, or others can write to it.
    """
    name = path.stem if path.suffix == ".py" else path.name
    reader = _Reader(name, path, trusted=trusted)
    try:
        path = path.resolve(strict=True)
        files = reader.folder(path) if path.is_dir() else {path.name: reader.text(path)}
    except OSError as error:
        raise reader.problem(path, f"cannot be read: {error.strerror or error}") from None
    return Source(name, files, path)


def is_test(name: str) -> bool:
    """Whether a file or folder of this name holds tests, which are no part of a plugin's code."""
    return name in ("tests", "conftest.py") or (
        name.endswith(".py") and (name[:5] == "test_" or name[-8:] == "_test.py")
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's source: of an editor, of Python's cache."""
    return name.startswith(".") or name.endswith(("~", ".pyc")) or name == "__pycache__"


class _Reader:
    """Reads the files of one plugin and keeps count."""

    def __init__(self, name: str, path: Path, *, trusted: bool) -> None:
        self.name = name
        self.path = path
        self.trusted = trusted
        self.files = 0
        self.size = 0

    def problem(self, path: Path, reason: str) -> PluginProblem:
        return PluginProblem(reason, plugin=self.name, where=str(path))

    def folder(self, root: Path) -> dict[str, str]:
        return {path.relative_to(root).as_posix(): self.text(path) for path in self._walk(root, 0)}

    def _walk(self, folder: Path, depth: int) -> Iterator[Path]:
        if depth > DEPTH_LIMIT:
            raise self.problem(folder, f"its folders are nested deeper than {DEPTH_LIMIT}")
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_hidden(entry.name) or is_test(entry.name):
                continue
            path = Path(entry.path)
            if not entry.is_dir():
                yield path
            elif entry.is_symlink():
                raise self.problem(path, "it is a symbolic link to a folder; a plugin's files are all in its own")
            else:
                self._trust(path)
                yield from self._walk(path, depth + 1)

    def text(self, path: Path) -> str:
        self._trust(path)
        self.files += 1
        if self.files > FILES_LIMIT:
            raise self.problem(self.path, f"it has more than {FILES_LIMIT} files")
        data = self._bytes(path)
        self.size += len(data)
        if self.size > TOTAL_LIMIT:
            raise self.problem(self.path, f"its files have more than {TOTAL_LIMIT >> 20} MiB together")
        try:
            str(path).encode()
            text = data.decode("utf-8-sig")
        except UnicodeError:
            raise self.problem(path, "a plugin's files are UTF-8 text, which this is not") from None
        if "\0" in text:
            raise self.problem(path, "a plugin's files are text, but this has NUL characters")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _bytes(self, path: Path) -> bytes:
        if not stat.S_ISREG(path.stat().st_mode):
            raise self.problem(path, "it is not a regular file")
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise self.problem(path, f"a file of a plugin has at most {FILE_LIMIT >> 20} MiB")
        return data

    def _trust(self, path: Path) -> None:
        if not self.trusted and (why := distrust(path)) is not None:
            raise self.problem(path, why)
