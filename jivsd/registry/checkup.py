"""What `jivsd plugins check PATH` says: whether a plugin loads, and what its workflows had better not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.registry.check import Finding
from jivsd.registry.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path


def check_path(path: Path) -> list[Finding]:
    """Load the plugin, or the folder of plugins, at `path` and check its workflows.

    Its code runs, as it would in the daemon. Findings that are errors come first: these plugins would not be used.
    """
    report = Registry().load([path], bundled=False, installed=False)
    findings = [
        Finding(file=problem.where, line=problem.line or 0, rule="load", message=problem.reason)
        for problem in report.problems
    ]
    if not report.plugins and not report.problems:
        findings.append(
            Finding(file=str(path), rule="load", message="there is no plugin here, neither a .py file nor a package")
        )
    for plugin in report.plugins:
        if not plugin.workflows:
            findings.append(
                Finding(
                    file=plugin.where,
                    rule="J00",
                    message=f"plugin {plugin.name!r} has no workflow",
                    advice="declare one with @workflow, and import the module that has it",
                )
            )
        findings.extend(plugin.findings)
    return findings
