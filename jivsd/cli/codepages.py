"""How changes of code look: plugins that were loaded again, runs that were moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from jivsd.cli import look
from jivsd.cli.daemonpages import CODE_SHOWN

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.engine.api import Moves, Reloaded

_COLOURS: Final = {"added": "green", "changed": "green", "removed": "yellow", "kept": "red"}


def reloaded(found: Reloaded) -> Page:
    """What has become of each plugin, and what cannot be used."""
    table = look.table("PLUGIN", "WHAT", "CODE", "BEFORE", "WORKFLOWS", wraps=("WORKFLOWS",))
    for one in found.plugins:
        before = (one.was or "")[:CODE_SHOWN] if one.was != one.code_hash else ""
        what = Text(one.change, style=_COLOURS.get(one.change, "dim"))
        table.add_row(one.name, what, one.code_hash[:CODE_SHOWN], before, ", ".join(one.workflows))
    return [table, *(Text(problem, style="red") for problem in found.problems)]


def moves(found: Moves) -> Page:
    """How many runs were moved, and each that was not, with why."""
    code = f"code {found.code_hash[:CODE_SHOWN]} of plugin {found.plugin!r}"
    if not found.items:
        return [f"No open run is on other code than {code}."]
    parts: list[look.RenderableType] = []
    others = [move for move in found.items if move.state in ("stays", "busy")]
    if others:
        table = look.table(
            "RUN", "WORKFLOW", "AT", "ITS CODE", "NEW CODE", "WHY", wraps=("ITS CODE", "NEW CODE", "WHY")
        )
        for move in others:
            why = move.why or "it did not stand still long enough; try again"
            table.add_row(move.run_id, move.workflow, move.path, move.expected, move.found, why)
        parts.append(table)
    for state, one, many in (
        ("moved", "run moved to", "runs moved to"),
        ("fits", "run can be moved to", "runs can be moved to"),
    ):
        if count := sum(move.state == state for move in found.items):
            parts.append(f"{count:,} {one if count == 1 else many} {code}.")
    if others:
        parts.append(f"{len(others):,} {'run stays on its' if len(others) == 1 else 'runs stay on their'} own code.")
    return parts
