"""Which signals a plugin's code waits for by name, read off its source: others are never taken, and can be refused."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

WAIT: Final = "wait_signal"


def awaited(files: Mapping[str, str]) -> frozenset[str] | None:
    """The names in calls of `wait_signal` in a plugin's files; None if there may be others than those that are seen."""
    names: set[str] = set()
    for path, text in files.items():
        if path.endswith(".py") and WAIT in text:
            try:
                found = _in_module(ast.parse(text))
            except (SyntaxError, ValueError, RecursionError):
                return None
            if found is None:
                return None
            names |= found
    return frozenset(names)


def _in_module(tree: ast.Module) -> set[str] | None:
    names: set[str] = set()
    understood: set[ast.expr] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="wait_signal") as method, args=[ast.Constant(value=str(name)), *_]):
                understood.add(method)
                names.add(name)
            case ast.Attribute(attr="wait_signal") if node not in understood:  # after the call that it is part of
                return None
            case ast.Constant(value="wait_signal"):
                return None
            case _:
                pass
    return names
