"""How the daemon looks: the page of `jivsd status`, the table of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.engine.api import EngineStatus, PluginState


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
    parts = [facts, look.section("Runs", runs if runs.row_count else "none so far")]
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
        table.add_row(plugin.name, plugin.code_hash, ", ".join(plugin.workflows), problem)
    return table
