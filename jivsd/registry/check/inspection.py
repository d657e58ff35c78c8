"""Walks through a function of workflow code and says what a replay would not do again in the same way."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING

from jivsd.registry.check import rules
from jivsd.registry.check.modules import is_jivsd, role
from jivsd.registry.check.names import Names
from jivsd.registry.check.rules import Rule

if TYPE_CHECKING:
    from jivsd.registry.check.modules import Function, Module, Modules
    from jivsd.registry.check.names import Usage

Report = Callable[[ast.AST, Rule, str, str | None], None]
"""Takes a finding: where, the rule, what it is about, and other advice than the rule's."""


class Inspection(ast.NodeVisitor):
    """One function. `follow` is called for every function of the plugin that it uses: that is workflow code, too."""

    def __init__(
        self,
        modules: Modules,
        module: Module,
        function: Function,
        usage: Usage,
        *,
        report: Report,
        follow: Callable[[Module, Function], None],
    ) -> None:
        self._modules = modules
        self._module = module
        self._function = function
        self._names = Names(module, function, usage)
        self._report = report
        self._follow = follow
        self._unordered: set[ast.AST] = set()
        """Comprehensions whose order does not matter."""
        self._judged: set[ast.AST] = set()
        """Calls that were found to be undurable when they were awaited."""

    def run(self) -> None:
        for statement in self._function.body:
            self.visit(statement)

    # what it awaits

    def visit_Await(self, node: ast.Await) -> None:
        self._check_durable(node.value, "await ")
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        for item in node.items:
            self._check_durable(item.context_expr, "async with ")
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._check_durable(node.iter, "async for ... in ")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        match node.value:
            case ast.Call(func=ast.Attribute(value=value, attr=method) as called) if method in rules.COROUTINES:
                if self._names.is_context(value):
                    self._found(node, rules.FORGOTTEN, f"{ast.unparse(called)}(...)")
            case _:
                pass
        self.generic_visit(node)

    def _check_durable(self, node: ast.expr, how: str) -> None:
        if self._is_durable(node):
            return
        self._judged.add(node)
        shown = _shown(node.func) + "(...)" if isinstance(node, ast.Call) else _shown(node)
        self._found(node, rules.UNDURABLE, how + shown, self._instead(node))

    def _is_durable(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self._names.coroutines
            case ast.IfExp(body=body, orelse=other):
                return self._is_durable(body) and self._is_durable(other)
            case ast.Call(func=function, args=args, keywords=keywords):
                return (
                    self._names.is_context(function)
                    or any(self._is_from_context(value) for value in (*args, *(pair.value for pair in keywords)))
                    or self._is_own(function)
                )
            case _:
                return False

    def _is_from_context(self, node: ast.expr) -> bool:
        return self._names.is_context(node.func if isinstance(node, ast.Call) else node)

    def _is_own(self, function: ast.expr) -> bool:
        """Whether it is a function of this plugin, which is checked itself."""
        match function:
            case ast.Attribute(value=ast.Name(id=name)) if name == self._names.self_name:
                return True
            case ast.Name(id=name) if name in self._names.coroutines:
                return True
            case _:
                origin = self._origin(function) or ""
                return origin.startswith("contextlib.") or self._modules.function(origin) is not None

    def _instead(self, node: ast.expr) -> str | None:
        origin = self._origin(node.func) if isinstance(node, ast.Call) else None
        return rules.INSTEAD.get(origin.rpartition(".")[2]) if origin is not None and "." in origin else None

    # what it calls and reads

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and self._names.is_context(node.func.value):
            if node.func.attr == "side_effect":
                return  # what it is given runs once and is recorded
        elif (origin := self._origin(node.func)) is not None:
            self._check_origin(node, origin)
        if isinstance(node.func, ast.Attribute):
            self._check_method(node, node.func)
        self._check_order_of_arguments(node)
        self.generic_visit(node)

    def _check_origin(self, node: ast.Call, origin: str) -> None:
        own = self._modules.function(origin)
        if own is not None and role(*own) == "step":
            called = _shown(node.func)
            self._found(node, rules.DIRECT, f"{called}(...)", f"use `await ctx.step({called}, ...)`")
        elif origin == "contextlib.suppress":
            for kind in node.args:
                self._check_swallowed(node, kind)
        elif node in self._judged or (origin == "random.Random" and node.args):
            pass  # said already; seeded
        elif origin == "next" and node.args and self._is_shared(node.args[0]):
            self._found(node, rules.GLOBAL, f"next({_shown(node.args[0])})")
        elif (rule := rules.rule_for(origin)) is not None:
            advice = self._instead(node) if rule is rules.UNDURABLE else None
            self._found(node, rule, f"{_shown(node.func)}({'...' if node.args or node.keywords else ''})", advice)

    def _check_method(self, node: ast.Call, called: ast.Attribute) -> None:
        if called.attr in rules.FILE_METHODS and self._origin(called) is None:
            self._found(node, rules.IO, f"{_shown(called)}(...)")
        elif called.attr in rules.MUTATORS and self._is_shared(called.value):
            if self._modules.function(self._origin(called) or "") is None:
                self._found(node, rules.GLOBAL, f"{_shown(called)}(...)")
        elif called.attr == "pop" and self._names.is_set(called.value):
            self._found(node, rules.SET_ORDER, f"{_shown(called)}()")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        origin = self._origin(node)
        if origin in rules.READ_ANYWHERE and (rule := rules.rule_for(origin)) is not None:
            self._found(node, rule, _shown(node))
        self._use(origin)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            origin = self._origin(node)
            if origin in rules.READ_ANYWHERE and (rule := rules.rule_for(origin)) is not None:
                self._found(node, rule, _shown(node))
            self._use(origin)

    def _use(self, origin: str | None) -> None:
        if origin is not None and (own := self._modules.function(origin)) is not None and role(*own) is None:
            self._follow(*own)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def _visit_function(self, node: Function) -> None:
        if node.name not in self._names.effects and role(self._module, node) is None:
            for statement in node.body:
                self.visit(statement)

    # the order of sets

    def visit_For(self, node: ast.For) -> None:
        self._check_order(node.iter, "for ... in ")
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._check_comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._check_comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._check_comprehension(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._check_order(node.value, "*")
        self.generic_visit(node)

    def _check_comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        if node not in self._unordered:
            for generator in node.generators:
                self._check_order(generator.iter, "for ... in ")
        self.generic_visit(node)

    def _check_order_of_arguments(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if name in rules.ORDER_FREE:
                self._unordered.update(node.args)
            case ast.Name(id=name) if name in rules.ORDERED_FROM and name not in self._names.bound:
                for value in node.args:
                    self._check_order(value, f"{name}(...) of ")
            case ast.Attribute(attr="join"):
                for value in node.args:
                    self._check_order(value, "join(...) of ")
            case _:
                pass

    def _check_order(self, node: ast.expr, how: str) -> None:
        if self._names.is_set(node):
            self._found(node, rules.SET_ORDER, f"{how}{_shown(node)}")

    # what it changes outside of itself

    def visit_Global(self, node: ast.Global) -> None:
        self._found(node, rules.GLOBAL, f"global {', '.join(node.names)}")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._check_target(target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._check_target(node.target)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._check_target(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._check_target(target)
        self.generic_visit(node)

    def _check_target(self, target: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self._check_target(element)
        elif isinstance(target, ast.Attribute | ast.Subscript) and self._is_shared(target.value):
            self._found(target, rules.GLOBAL, f"assigning to {_shown(target)}")

    def _is_shared(self, node: ast.expr) -> bool:
        """Whether it is a variable, class or import of the module, or a part of one."""
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        module = self._module
        return (
            isinstance(node, ast.Name)
            and node.id not in self._names.bound
            and (node.id in module.variables or node.id in module.classes or node.id in module.imports)
        )

    # what it catches

    def visit_Try(self, node: ast.Try) -> None:
        self._check_try(node)

    def visit_TryStar(self, node: ast.TryStar) -> None:
        self._check_try(node)

    def _check_try(self, node: ast.Try | ast.TryStar) -> None:
        for handler in node.handlers:
            if any(isinstance(inner, ast.Raise) for inner in ast.walk(handler)):
                continue
            if handler.type is None:
                self._found(handler, rules.SWALLOWED, "except:")
            else:
                self._check_swallowed(handler, handler.type)
        for statement in node.finalbody:
            if any(isinstance(inner, ast.Return) for inner in ast.walk(statement)):
                self._found(statement, rules.SWALLOWED, "return in `finally`", "return after it")
        self.generic_visit(node)

    def _check_swallowed(self, node: ast.AST, kind: ast.expr) -> None:
        for one in kind.elts if isinstance(kind, ast.Tuple) else [kind]:
            origin = self._origin(one)
            if origin in rules.SWALLOWING or any(is_jivsd(origin, name) for name in rules.SWALLOWING_OF_JIVSD):
                self._found(node, rules.SWALLOWED, f"except {_shown(one)}")

    def _origin(self, node: ast.expr) -> str | None:
        """The origin of an expression, unless its first name is the function's own."""
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id in self._names.bound:
            return None
        return self._module.origin(node)

    def _found(self, node: ast.AST, rule: Rule, what: str, advice: str | None = None) -> None:
        self._report(node, rule, what, advice)


def _shown(node: ast.expr) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:59] + "…"
