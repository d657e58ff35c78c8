"""How changes of code look: plugins that were loaded again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from jivsd.cli import look
from jivsd.cli.daemonpages import CODE_SHOWN

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.engine.api import Reloaded

_COLOURS: Final = {"added": "green", "changed": "green", "removed": "yellow", "kept": "red"}


def reloaded(found: Reloaded) -> Page:
    """What has become of each plugin, and what cannot be used."""
    table = look.table("PLUGIN", "WHAT", "CODE", "BEFORE", "WORKFLOWS", wraps=("WORKFLOWS",))
    for one in found.plugins:
        before = (one.was or "")[:CODE_SHOWN] if one.was != one.code_hash else ""
        what = Text(one.change, style=_COLOURS.get(one.change, "dim"))
        table.add_row(one.name, what, one.code_hash[:CODE_SHOWN], before, ", ".join(one.workflows))
    return [table, *(Text(problem, style="red") for problem in found.problems)]
