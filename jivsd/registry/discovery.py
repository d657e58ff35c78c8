"""Where plugins are: folders, installed distributions, and those that come with jivsd."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jivsd.registry.source import PluginProblem, Source, is_hidden, is_test, read_source
from jivsd.registry.trust import distrust
from jivsd.resources import bundled

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP: Final = "jivsd.plugins"
"""The entry point group by which an installed distribution brings plugins: `name = "module"`."""

Found = Source | PluginProblem


def in_path(path: Path, *, trusted: bool = False) -> Iterator[Found]:
    """The plugins at a path: a `.py` file, a package folder, or a folder of such, in the order of their names.

    Left out are names that begin with `_` or `.`, and tests.
    """
    try:
        path = path.resolve(strict=True)
        why = None if trusted else distrust(path)
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
    if why is not None:
        yield PluginProblem(why, plugin="", where=str(path))
    elif not path.is_dir() or (path / "__init__.py").exists():
        yield _read(path, trusted=trusted)
    else:
        yield from _in_folder(path, trusted=trusted)


def _in_folder(folder: Path, *, trusted: bool) -> Iterator[Found]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield PluginProblem(f"cannot be read: {error.strerror or error}", plugin="", where=str(folder))
        return
    for entry in entries:
        if entry.name.startswith("_") or is_hidden(entry.name) or is_test(entry.name):
            continue
        if not entry.is_dir():
            if entry.suffix == ".py":
                yield _read(entry, trusted=trusted)
        elif (entry / "__init__.py").exists():
            yield _read(entry, trusted=trusted)
        elif any(entry.glob("*.py")):
            yield PluginProblem("a plugin that is a folder needs an __init__.py", plugin=entry.name, where=str(entry))


def in_bundle() -> Iterator[Found]:
    """The plugins that come with jivsd. Who can write to them can change jivsd itself, so that is not asked."""
    try:
        folder = bundled("plugins")
    except FileNotFoundError as error:
        yield PluginProblem(str(error), plugin="", where="jivsd's own folder")
        return
    yield from in_path(folder, trusted=True)


def came_with_jivsd(place: Path) -> bool:
    """Whether a plugin's file or folder is one of those that come with jivsd."""
    try:
        return place.resolve().is_relative_to(bundled("plugins").resolve())
    except FileNotFoundError:
        return False


def in_distributions() -> Iterator[Found]:
    """The plugins of installed distributions. Python runs what is installed anyway, so nobody asks who wrote it."""
    points = {(point.name, point.module) for point in importlib.metadata.entry_points(group=GROUP)}
    for name, module in sorted(points):
        where = f"entry point {name} = {module}"
        try:
            spec = importlib.util.find_spec(module)
        except (Exception, SystemExit) as error:  # finding a submodule imports its parents: they may raise anything
            yield PluginProblem(f"{type(error).__name__}: {error}", plugin=name, where=where)
            continue
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            reason = "there is no such module" if spec is None else "its source is not a file of Python"
            yield PluginProblem(reason, plugin=name, where=where)
            continue
        file = Path(spec.origin)
        found = _read(file.parent if file.name == "__init__.py" else file, trusted=True)
        yield Source(name, found.files, found.origin) if isinstance(found, Source) else found


def _read(path: Path, *, trusted: bool) -> Found:
    try:
        return read_source(path, trusted=trusted)
    except PluginProblem as problem:
        return problem
