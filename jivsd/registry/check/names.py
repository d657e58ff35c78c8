"""What the names inside of one function stand for: its own, the Context, coroutines of it, sets."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jivsd.registry.check.modules import Function, is_jivsd
from jivsd.registry.check.rules import SET_METHODS

if TYPE_CHECKING:
    from jivsd.registry.check.modules import Module

CONTEXT_NAMES: Final = frozenset({"ctx", "context"})
"""What a Context is called where its annotation does not say it."""
SET_TYPES: Final = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a function is used. `takes_context`: its first parameter behind self, annotated or not, is the Context.

    `set_attributes`: the attributes of self that are sets.
    """

    takes_context: bool = False
    is_method: bool = False
    set_attributes: frozenset[str] = frozenset()


class Names:
    """The names of a function, those of the functions inside of it included."""

    def __init__(self, module: Module, function: Function, usage: Usage) -> None:
        self._module = module
        self._set_attributes = usage.set_attributes
        arguments = [*function.args.posonlyargs, *function.args.args]
        self.self_name = arguments[0].arg if usage.is_method and arguments else None
        self.bound: set[str] = set()
        self.contexts: set[str] = set()
        self.coroutines: set[str] = set()
        """Local names of what a Context's method returned, and of functions that are defined here."""
        self.effects: set[str] = set()
        """Functions handed to side_effect, which may do what a workflow may not."""
        self.sets: set[str] = set()
        if usage.takes_context and len(arguments) > usage.is_method:
            self.contexts.add(arguments[usage.is_method].arg)
        self._parameters(function)
        self._assignments(function)

    def _parameters(self, function: Function) -> None:
        shared: set[str] = set()
        for node in ast.walk(function):
            match node:
                case ast.arg(arg=name, annotation=annotation):
                    self.bound.add(name)
                    if self._is_context_annotation(annotation, name):
                        self.contexts.add(name)
                    elif annotation is not None and _is_set_type(annotation):
                        self.sets.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.ExceptHandler(name=str(name)):
                    self.bound.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if node is not function:
                    self.bound.add(name)
                    self.coroutines.add(name)
                case ast.Global(names=names):
                    shared.update(names)
                case ast.Call(func=ast.Attribute(attr="side_effect"), args=[ast.Name(id=name), *_]):
                    self.effects.add(name)
                case _:
                    pass
        self.bound -= shared

    def _is_context_annotation(self, annotation: ast.expr | None, name: str) -> bool:
        if annotation is None:
            return name in CONTEXT_NAMES
        return is_jivsd(self._module.origin(annotation), "Context")

    def _assignments(self, function: Function) -> None:
        others: set[str] = set()
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    (self.sets if self.is_set(value) else others).add(name)
                    if isinstance(value, ast.Name) and value.id in self.contexts:
                        self.contexts.add(name)
                    elif isinstance(value, ast.Call) and self.is_context(value.func):
                        self.coroutines.add(name)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _is_set_type(annotation):
                    self.sets.add(name)
                case _:
                    pass
        self.sets -= others

    def is_context(self, node: ast.expr) -> bool:
        """Whether an expression is the Context, or a method of it, or kept on self under the Context's name."""
        while isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == self.self_name:
                return node.attr.strip("_") in CONTEXT_NAMES | self.contexts
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.contexts

    def is_set(self, node: ast.expr) -> bool:
        """Whether an expression is certainly a set."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self.sets
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return name == self.self_name and attribute in self._set_attributes
            case ast.Call(func=ast.Name(id="set" | "frozenset" as name)):
                return name not in self.bound
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                return method in SET_METHODS and self.is_set(value)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
                return self.is_set(left) or self.is_set(right) or (_is_keys(left) and _is_keys(right))
            case ast.IfExp(body=body, orelse=other):
                return self.is_set(body) or self.is_set(other)
            case _:
                return False


def set_attributes(owner: ast.ClassDef) -> frozenset[str]:
    """The attributes of self that a class declares as sets, or makes as such in one of its methods."""
    found: set[str] = set()
    for node in ast.walk(owner):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=annotation):
                if _is_set_type(annotation):
                    found.add(name)
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if _makes_set(value):
                found.add(name)
            case _:
                pass
    return frozenset(found)


def _makes_set(node: ast.expr) -> bool:
    return isinstance(node, ast.Set | ast.SetComp) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    )


def _is_set_type(annotation: ast.expr) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return _is_set_type(value)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_set_type(left) or _is_set_type(right)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case _:
            return False


def _is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"
