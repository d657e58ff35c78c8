"""Reads the layers of the configuration: each flat, from a key to its value and where that came from."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jivsd.places import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KeyPath = tuple[str, ...]
"""A key's place in the tree: `("log", "level")`."""

PREFIX = "JIVSD_"
CONFIG_VARIABLE = "JIVSD_CONFIG"
"""Names the configuration file; the only variable with our prefix that is not a key."""

SECRET_FILE_LIMIT = 64 * 1024
"""Bytes: a longer file is not a secret, somebody named the wrong one."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that the configuration knows; `*` in its path stands for a name that people choose."""

    path: KeyPath
    secret: bool = False
    folders: bool = False
    """Its value is a path, or paths: in a file, relative to the folder of that file."""

    def matches(self, path: KeyPath) -> bool:
        """Whether the path is this key's."""
        return len(path) == len(self.path) and all(
            mine in ("*", part) for mine, part in zip(self.path, path, strict=True)
        )


class Given(NamedTuple):
    """A value and, in words, where it came from."""

    value: Any
    source: str


Layer = dict[KeyPath, Given]


def dotted(path: KeyPath) -> str:
    """Return a key as people write it."""
    return ".".join(path)


def variable(path: KeyPath) -> str:
    """Return the environment variable of a key."""
    return PREFIX + "__".join(path).upper()


class Reader:
    """Reads layers and collects what is wrong with them in `problems`."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.problems: list[str] = []
        self._keys = keys

    def find(self, path: KeyPath) -> Key | None:
        """Return the key of this path, if there is one."""
        return next((key for key in self._keys if key.matches(path)), None)

    def file(self, path: Path) -> Layer:
        """Read a TOML file.

        Raises:
            ConfigError: it cannot be read, or is not TOML: then nothing else can be said.
        """
        try:
            tree = tomllib.loads(path.read_bytes().decode())
        except OSError as error:
            raise ConfigError([f"cannot read the configuration file {path}: {error.strerror}"]) from None
        except UnicodeDecodeError as error:
            raise ConfigError([f"the configuration file {path} is not UTF-8: byte {error.start}"]) from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError([f"the configuration file {path} is not valid TOML: {error}"]) from None
        layer: Layer = {}
        self._flatten((), tree, path, layer)
        return layer

    def credentials(self, folder: Path) -> Layer:
        """Read systemd credentials: files in `$CREDENTIALS_DIRECTORY` that are named like a secret key."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.problems.append(f"cannot read $CREDENTIALS_DIRECTORY, {folder}: {error.strerror}")
            return {}
        layer: Layer = {}
        for name in names:
            path = tuple(name.split("."))
            key = self.find(path)
            if key is not None and key.secret:
                self._read_secret(path, folder / name, f"credential {folder / name}", layer)
        return layer

    def environment(self, environ: Mapping[str, str]) -> Layer:
        """Read the variables with our prefix; a secret's may end in `_FILE` and name a file that holds it."""
        layer: Layer = {}
        for name, value in sorted(environ.items()):
            if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            of_file = (*path[:-1], path[-1].removesuffix("_file"))
            source = f"environment variable {name}"
            if self.find(path) is not None:
                layer[path] = Given(value, source)
            elif of_file == path or (key := self.find(of_file)) is None or not key.secret:
                self.problems.append(f"{source}: there is no such setting{self._guess(name)}")
            elif variable(of_file) in environ:
                self.problems.append(f"{dotted(of_file)}: both {variable(of_file)} and {name} are set; set one of them")
            else:
                self._read_secret(of_file, Path(value), source, layer)
        return layer

    def flags(self, overrides: Mapping[str, Any]) -> Layer:
        """Take the values of flags, by dotted key; None is a flag that was not given."""
        layer: Layer = {}
        for name, value in overrides.items():
            path = tuple(name.split("."))
            if value is None:
                continue
            if self.find(path) is None:
                self.problems.append(f"{name} (command line): there is no such setting{self._guess(name)}")
            else:
                layer[path] = Given(value, "command line")
        return layer

    def _flatten(self, path: KeyPath, value: Any, file: Path, layer: Layer) -> None:
        key = self.find(path)
        if key is not None:
            self._take(key, path, value, file, layer)
        elif not self._is_section(path):
            self.problems.append(f"{dotted(path)} (file {file}): there is no such setting{self._guess(dotted(path))}")
        elif not isinstance(value, dict):
            self.problems.append(
                f"{dotted(path)} (file {file}): must be a section, [{dotted(path)}], not a value{self._members(path)}"
            )
        else:
            for name, inner in cast("dict[str, Any]", value).items():
                self._flatten((*path, name), inner, file, layer)

    def _take(self, key: Key, path: KeyPath, value: Any, file: Path, layer: Layer) -> None:
        source = f"file {file}"
        if key.secret and isinstance(value, dict):
            match cast("dict[str, Any]", value):
                case {"file": str(name), **rest} if not rest:
                    self._read_secret(path, file.parent / Path(name).expanduser(), source, layer)
                case _:
                    self.problems.append(f'{dotted(path)} ({source}): must be a text or {{file = "/path"}}')
        else:
            layer[path] = Given(_anchored(value, file.parent) if key.folders else value, source)

    def _read_secret(self, path: KeyPath, file: Path, source: str, layer: Layer) -> None:
        origin = source if str(file) in source else f"{source}, file {file}"
        try:
            with file.open("rb") as opened:
                content = opened.read(SECRET_FILE_LIMIT + 1)
            text = content.decode().rstrip("\r\n")
        except OSError as error:
            self.problems.append(f"{dotted(path)} ({origin}): the file cannot be read: {error.strerror}")
        except (UnicodeDecodeError, ValueError):
            self.problems.append(f"{dotted(path)} ({origin}): the file must hold UTF-8 text")
        else:
            if len(content) > SECRET_FILE_LIMIT:
                self.problems.append(f"{dotted(path)} ({origin}): the file has more than {SECRET_FILE_LIMIT} bytes")
            else:
                layer[path] = Given(text, origin)

    def _is_section(self, path: KeyPath) -> bool:
        return any(Key(key.path[: len(path)]).matches(path) for key in self._keys if len(key.path) > len(path))

    def _members(self, path: KeyPath) -> str:
        inside = [key for key in self._keys if Key(key.path[: len(path)]).matches(path)]
        names = dict.fromkeys(key.path[len(path)] for key in inside if "*" not in key.path)
        return f"; it has {', '.join(names)}" if names else ""

    def _guess(self, name: str) -> str:
        """Return what may have been meant, in the same spelling."""
        if name.startswith(PREFIX):
            known = {CONFIG_VARIABLE, *(variable(key.path) for key in self._keys)}
        else:
            known = {dotted(key.path[:length]) for key in self._keys for length in range(1, len(key.path) + 1)}
        close = difflib.get_close_matches(name, sorted(known), n=1)
        return f"; did you mean {close[0]}?" if close else ""


def _anchored(value: Any, folder: Path) -> Any:
    match value:
        case str():
            return folder / Path(value).expanduser()
        case list():
            return [_anchored(one, folder) for one in cast("list[Any]", value)]
        case _:
            return value
