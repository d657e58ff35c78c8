"""How the daemon looks: the page of `jivsd status`, the table of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from jivsd.cli import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.engine.api import EngineStatus, PluginState
    from jivsd.registry.check import Finding


CODE_SHOWN: Final = 12
"""Characters of a code hash in a table."""


def status(found: EngineStatus) -> Page:
    """The daemon in one page."""
    facts = look.facts(
        [
            ("Node", found.node),
            ("Version", found.version),
            ("Up", f"{look.length(look.now() - found.started_at)}, since {look.moment(found.started_at)}"),
            ("Store", found.store),
            ("Store away", Text(found.store_away, style="bold red") if found.store_away else None),
            ("In memory", f"{found.actors:,} runs, {found.steps_running:,} running steps"),
            ("Waiting for a commit", f"{found.journal_pending:,}" if found.journal_pending else None),
            ("Paused", Text(f"{found.paused:,} runs", style="yellow") if found.paused else None),
            ("Open incidents", Text(f"{found.incidents:,}", style="bold red") if found.incidents else None),
        ]
    )
    runs = look.table("STATUS", "RUNS", numbers=("RUNS",))
    for name, count in found.runs.items():
        if count:
            runs.add_row(Text(name, style=look.STYLES.get(name, "")), f"{count:,}")
    children = look.table("CHILD", "STATE", "RESTARTS", numbers=("RESTARTS",))
    for child in found.children:
        children.add_row(child.name, child.state, str(child.restarts))
    limits = look.table("LIMIT", "WORKFLOW", "USED", "OF", "WAITING", numbers=("USED", "OF", "WAITING"))
    for limit in found.limits:
        full = "yellow" if limit.used >= limit.limit else ""
        used, waiting = Text(f"{limit.used:,}", style=full), f"{limit.waiting:,}" if limit.waiting else ""
        limits.add_row(limit.what, limit.workflow or "all", used, f"{limit.limit:,}", waiting)
    parts = [facts, look.section("Runs", runs if runs.row_count else "none so far")]
    parts.append(look.section("Limits", limits))
    if found.children:
        parts.append(look.section("Supervised", children))
    return [*parts, look.section("Plugins", plugins_table(found.plugins))]


def plugins_table(plugins: Sequence[PluginState]) -> look.RenderableType:
    """What was loaded, and what could not be."""
    if not plugins:
        return "none"
    table = look.table("PLUGIN", "CODE", "WORKFLOWS", "PROBLEM", wraps=("WORKFLOWS", "PROBLEM"))
    for plugin in plugins:
        problem = Text(plugin.problem or "", style="red")
        table.add_row(plugin.name, plugin.code_hash[:CODE_SHOWN], ", ".join(plugin.workflows), problem)
    return table


def findings(found: Sequence[Finding]) -> Text:
    """What a check says, a line each: where, what, and what to do instead."""
    text = Text()
    for finding in found:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        text.append("\n" if text else "").append(place, style="bold").append(" ")
        text.append(finding.rule, style="red" if finding.is_error else "yellow").append(f" {finding.message}")
        if finding.advice:
            text.append(f"; {finding.advice}", style="dim")
    return text
