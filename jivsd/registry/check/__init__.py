"""Reads workflow code for what a replay would not do again in the same way (DESIGN.md section 4, rule 16).

It reads text and cannot see everything: what it finds are warnings, and the engine notices foreign awaits itself. A
line with the comment `# jivsd: ignore` is left alone. Steps may do all of this.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from jivsd.registry.check.finding import Finding
from jivsd.registry.check.inspection import Inspection
from jivsd.registry.check.modules import Modules, is_jivsd, role
from jivsd.registry.check.names import Usage, set_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.registry.check.modules import Function, Module
    from jivsd.registry.check.rules import Rule
    from jivsd.registry.source import Source

__all__ = ["Finding", "check_source"]

IGNORE: Final = "# jivsd: ignore"


def check_source(source: Source) -> list[Finding]:
    """Check a plugin's workflows, and the functions of the plugin that they use. Never raises for odd code."""
    try:
        return _Check(source).run()
    except RecursionError:
        return [Finding(file=source.where, rule="J00", message="its code is nested too deeply to be checked")]


class _Check:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._modules = Modules(source.files, main=source.main)
        self._findings: set[Finding] = set()
        self._seen: set[ast.AST] = set()
        self._pending: list[tuple[Module, Function, Usage]] = []

    def run(self) -> list[Finding]:
        for module in self._modules:
            for function in module.functions.values():
                if role(module, function) == "workflow":
                    self._pending.append((module, function, Usage(takes_context=True)))
            for owner in module.classes.values():
                if role(module, owner) == "workflow":
                    self._pending.extend(self._methods(list(self._with_bases(module, owner))))
        while self._pending:
            module, function, usage = self._pending.pop()
            if function not in self._seen:
                self._seen.add(function)
                self._inspect(module, function, usage)
        return sorted(self._findings)

    def _with_bases(self, module: Module, owner: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
        """A class and its bases in the plugin."""
        if owner in self._seen:
            return
        self._seen.add(owner)
        yield module, owner
        for base in owner.bases:
            if (origin := module.origin(base)) is not None and (found := self._modules.class_of(origin)) is not None:
                yield from self._with_bases(*found)

    def _methods(self, owners: list[tuple[Module, ast.ClassDef]]) -> Iterator[tuple[Module, Function, Usage]]:
        sets = frozenset[str]().union(*(set_attributes(owner) for _, owner in owners))
        for module, owner in owners:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and role(module, node) is None:
                    context = node.name == "run" or _is_async_update(module, node)
                    yield module, node, Usage(takes_context=context, is_method=True, set_attributes=sets)

    def _inspect(self, module: Module, function: Function, usage: Usage) -> None:
        def report(node: ast.AST, rule: Rule, what: str, advice: str | None) -> None:
            line: int = getattr(node, "lineno", 0)
            if IGNORE not in "".join(module.lines[line - 1 : line]):
                self._findings.add(
                    Finding(
                        file=self._source.place(module.file),
                        line=line,
                        rule=rule.code,
                        message=f"`{what}` {rule.why}",
                        advice=advice or rule.advice,
                    )
                )

        def follow(module: Module, function: Function) -> None:
            self._pending.append((module, function, Usage()))

        Inspection(self._modules, module, function, usage, report=report, follow=follow).run()


def _is_async_update(module: Module, node: Function) -> bool:
    named = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return isinstance(node, ast.AsyncFunctionDef) and any(is_jivsd(module.origin(one), "update") for one in named)
