"""What the files of a plugin say at their top level: imports, functions, classes, and what a name in them means.

A name's origin is dotted: `time.time` for what is imported from outside, `.flows.nap` (module path within the plugin
first) for what is the plugin's own, plain `open` for a builtin.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Function = ast.FunctionDef | ast.AsyncFunctionDef
JIVSD_NAMES: Final = ("Cancelled", "Context", "Frozen", "step", "update", "workflow")
"""What the check looks for among jivsd's own names."""
FOLLOWED: Final = 8
"""How many imports from module to module within a plugin are followed to a definition."""


@dataclass
class Module:
    """One file: `name` is its dotted path within the plugin, empty for the plugin's main file."""

    file: str
    name: str
    lines: list[str]
    imports: dict[str, str] = field(default_factory=dict[str, str])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    classes: dict[str, ast.ClassDef] = field(default_factory=dict[str, ast.ClassDef])
    variables: dict[str, ast.expr | None] = field(default_factory=dict[str, "ast.expr | None"])
    """Names assigned at the top level, with the (last) value."""

    def origin(self, node: ast.expr) -> str | None:
        """The origin of an expression made of names and attributes, as seen at the top level; None for others."""
        if isinstance(node, ast.Name):
            return self._origin_of_name(node.id)
        if isinstance(node, ast.Attribute):
            base = self.origin(node.value)
            return None if base is None else f"{base}.{node.attr}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self._origin_of_text(node.value)
        return None

    def _origin_of_name(self, name: str) -> str:
        if name in self.imports:
            return self.imports[name]
        value = self.variables.get(name)
        if isinstance(value, ast.Call) and _root(value.func) in self.imports:
            made_by = self.origin(value.func)
            if made_by is not None and not made_by.startswith("."):
                return made_by  # `client = httpx.Client()`: what it does, httpx does
        if name in self.functions or name in self.classes or name in self.variables:
            return f".{self.name}.{name}" if self.name else f".{name}"
        return name

    def _origin_of_text(self, text: str) -> str | None:
        try:
            return self.origin(ast.parse(text, mode="eval").body)
        except SyntaxError:
            return None


def _root(node: ast.expr) -> str | None:
    """The first name of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def is_jivsd(origin: str | None, name: str) -> bool:
    """Whether an origin is jivsd's own `name`, wherever it was imported from."""
    return origin is not None and origin.startswith("jivsd.") and origin.rpartition(".")[2] == name


class Modules:
    """All the files of a plugin."""

    def __init__(self, files: Mapping[str, str], *, main: str) -> None:
        self._modules: dict[str, Module] = {}
        for file, text in files.items():
            if file.endswith(".py"):
                module = _read(file, text, main)
                if module is not None:
                    self._modules[module.name] = module

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def function(self, origin: str) -> tuple[Module, Function] | None:
        """The plugin's function of this origin."""
        module, name = self._definition(origin)
        return (module, module.functions[name]) if module is not None and name in module.functions else None

    def class_of(self, origin: str) -> tuple[Module, ast.ClassDef] | None:
        """The plugin's class of this origin."""
        module, name = self._definition(origin)
        return (module, module.classes[name]) if module is not None and name in module.classes else None

    def _definition(self, origin: str) -> tuple[Module | None, str]:
        name = ""
        for _ in range(FOLLOWED):
            if not origin.startswith("."):
                return None, ""
            path, _, name = origin.rpartition(".")
            module = self._modules.get(path.removeprefix("."))
            if module is None or name not in module.imports:
                return module, name
            origin = module.imports[name]
        return None, name


def role(module: Module, node: Function | ast.ClassDef) -> Literal["step", "workflow"] | None:
    """What its decorators make of a function or class."""
    for decorator in node.decorator_list:
        named = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(named, ast.Attribute) and named.attr == "compensate":
            return "step"
        origin = module.origin(named)
        if is_jivsd(origin, "step"):
            return "step"
        if is_jivsd(origin, "workflow"):
            return "workflow"
    return None


def _read(file: str, text: str, main: str) -> Module | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # loading says what is wrong with it
        return None
    parts = [] if file == main else file.removesuffix(".py").removesuffix("/__init__").split("/")
    module = Module(file, ".".join(parts), text.splitlines())
    package = parts if file.rpartition("/")[2] == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = _imported_from(node, package)
            if node.module == "jivsd" and node.names[0].name == "*":
                module.imports |= {name: f"jivsd.{name}" for name in JIVSD_NAMES}
            module.imports |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    for node in tree.body:
        _define(module, node)
    return module


def _imported_from(node: ast.ImportFrom, package: list[str]) -> str:
    """`time`, or `.flows` for a module of the plugin; "" for the plugin's main file."""
    if not node.level:
        return node.module or ""
    above = package[: len(package) - (node.level - 1)]
    return "".join(f".{part}" for part in (*above, *(node.module or "").split(".")) if part)


def _define(module: Module, node: ast.stmt) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            module.functions[node.name] = node
        case ast.ClassDef():
            module.classes[node.name] = node
        case ast.Assign():
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        module.variables[name.id] = node.value
        case ast.AnnAssign(target=ast.Name(id=name)):
            module.variables[name] = node.value
        case ast.If() | ast.Try() | ast.With():
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.stmt):
                    _define(module, inner)
        case _:
            pass
