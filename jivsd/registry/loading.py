"""Imports a plugin's source from memory, under its content's hash: old and new code live side by side.

The module is `jivsd_plugins.<hash>`; the modules of a package are below it, so that relative imports work. Nothing is
read from the disk again and no bytecode is written; tracebacks and debuggers get the source from the loader, by the
file name `<plugin>@<hash>/<file>`. There is no `__file__`: the text files of a package are read with
`importlib.resources.files(__package__)`, which gives each version its own.
"""

from __future__ import annotations

import importlib
import importlib.abc
import io
import sys
import zipfile
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Final

from jivsd.authoring.errors import InvalidDefinition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from jivsd.registry.source import PluginProblem, Source

ROOT: Final = "jivsd_plugins"


def load(source: Source) -> list[ModuleType]:
    """Import a plugin; its module, and those of its modules that it imported itself.

    A version that is loaded is not imported again.

    Raises:
        PluginProblem: the import raised; the problem says what and where.
    """
    if ROOT not in sys.modules:
        importlib.import_module(ROOT)
    name = f"{ROOT}.{source.code_hash}"
    _finder.sources.setdefault(source.code_hash, source)
    try:
        main = importlib.import_module(name)
    except KeyboardInterrupt:
        forget(source)
        raise
    except BaseException as error:  # SystemExit too: a plugin that exits must not take the daemon along
        problem = _explain(error, _finder.sources[source.code_hash])
        forget(source)
        raise problem from error
    return [main, *(module for loaded, module in list(sys.modules.items()) if loaded.startswith(f"{name}."))]


def forget(source: Source) -> None:
    """Take a plugin that cannot be used out of Python's modules."""
    name = f"{ROOT}.{source.code_hash}"
    for loaded in [loaded for loaded in list(sys.modules) if loaded == name or loaded.startswith(f"{name}.")]:
        del sys.modules[loaded]
    _finder.sources.pop(source.code_hash, None)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the sources that it was given."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        root, _, inner = fullname.partition(".")
        if root != ROOT:
            return None
        if not inner:
            return ModuleSpec(ROOT, None, is_package=True)
        code_hash, _, inner = inner.partition(".")
        source = self.sources.get(code_hash)
        return None if source is None else _spec(source, fullname, inner.replace(".", "/"))


def _spec(source: Source, fullname: str, inner: str) -> ModuleSpec | None:
    if not inner:
        return _spec_of(source, fullname, source.main)
    for path in (f"{inner}/__init__.py", f"{inner}.py"):
        if path in source.files:
            return _spec_of(source, fullname, path)
    if any(path.startswith(f"{inner}/") for path in source.files):
        return ModuleSpec(fullname, None, is_package=True)
    return None


def _spec_of(source: Source, fullname: str, path: str) -> ModuleSpec:
    loader = _Loader(source, path)
    return ModuleSpec(fullname, loader, origin=loader.get_filename(fullname), is_package=loader.is_package(fullname))


class _Loader(importlib.abc.ExecutionLoader):
    """Loads one file of a source."""

    def __init__(self, source: Source, path: str) -> None:
        self._source = source
        self._path = path

    def get_source(self, fullname: str) -> str:
        return self._source.files[self._path]

    def get_filename(self, fullname: str) -> str:
        return _prefix(self._source) + self._path

    def is_package(self, fullname: str) -> bool:
        return self._path.rpartition("/")[2] == "__init__.py"

    def get_resource_reader(self, fullname: str) -> _Resources:
        return _Resources(self._source, self._path.rpartition("/")[0])


class _Resources:
    """What `importlib.resources` asks of a loader: the files of a package, as a folder that is in memory."""

    def __init__(self, source: Source, folder: str) -> None:
        self._source = source
        self._folder = folder

    def files(self) -> zipfile.Path:
        archive = zipfile.ZipFile(io.BytesIO(), "w")
        for path, text in self._source.files.items():
            archive.writestr(path, text)
        return zipfile.Path(archive, f"{self._folder}/" if self._folder else "")


_finder: Final = _Finder()
sys.meta_path.insert(0, _finder)


def _prefix(source: Source) -> str:
    return f"{source.name}@{source.code_hash[:12]}/"


def _explain(error: BaseException, source: Source) -> PluginProblem:
    path, line = _at_fault(error, source)
    return source.problem(_sentence(error, source), path=path, line=line)


def _at_fault(error: BaseException, source: Source) -> tuple[str | None, int | None]:
    """The file and line of the plugin that raised, or that cannot be parsed."""
    prefix = _prefix(source)
    if isinstance(error, SyntaxError) and error.filename is not None and error.filename.startswith(prefix):
        return error.filename.removeprefix(prefix), error.lineno
    found: tuple[str | None, int | None] = None, None
    trace = error.__traceback__
    while trace is not None:
        if (file := trace.tb_frame.f_code.co_filename).startswith(prefix):
            found = file.removeprefix(prefix), trace.tb_lineno
        trace = trace.tb_next
    return found


def _sentence(error: BaseException, source: Source) -> str:
    text = " ".join(str(error).split())[:500]
    match error:
        case SyntaxError():
            return f"it is not valid Python: {error.msg}"
        case InvalidDefinition():
            return text
        case SystemExit():
            return "it ends the process when it is imported (sys.exit); a plugin only declares things"
        case ModuleNotFoundError() if error.name is not None and error.name.partition(".")[0] == source.name:
            return f"{text}; a plugin imports its own modules by relative imports: `from . import x`"
        case NameError() if error.name == "__file__":
            return f"{text}; a plugin is not run from its file: read others with importlib.resources.files(__package__)"
        case _:
            return f"{type(error).__name__} when it was imported: {text}"
