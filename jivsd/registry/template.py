"""What `jivsd plugins new NAME` writes: a plugin that works, with a test."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_name: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


class CannotCreate(Exception):
    """The plugin was not written; the message says why and what would work."""


def new_plugin(name: str, folder: Path) -> list[Path]:
    """Write the plugin `name` and its test into `folder`, which is made if need be; return the two files.

    Raises:
        CannotCreate: the name cannot be a plugin's, a module of Python has it (which the plugin would hide from its
            own test), one of the files is there, or the folder cannot be written to.
    """
    module = name.replace("-", "_")
    if not _name.fullmatch(name) or len(name) > 60 or keyword.iskeyword(module) or module.startswith("test_"):
        raise CannotCreate(
            f"{name!r} cannot be a plugin's name: up to 60 lower-case letters, digits and single - or _ between them, "
            "beginning with a letter, not with test_, and no word of Python"
        )
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in module.split("_")),
        "title": " ".join(module.split("_")).capitalize(),
    }
    written = [folder / f"{module}.py", folder / f"test_{module}.py"]
    for path in written:
        if path.exists():
            raise CannotCreate(f"{path} is there already; choose another name, or another folder")
    if importlib.util.find_spec(module) is not None:
        raise CannotCreate(f"Python has a module named {module!r}, which the plugin would hide; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in zip(written, ("plugin.py.txt", "test.py.txt"), strict=True):
            with path.open("x", encoding="utf-8") as file:
                file.write(Template(_read(template)).substitute(words))
    except OSError as error:
        raise CannotCreate(f"{error.filename or folder} cannot be written: {error.strerror or error}") from None
    return written


def _read(template: str) -> str:
    return (importlib.resources.files("jivsd.registry") / "templates" / template).read_text(encoding="utf-8")
