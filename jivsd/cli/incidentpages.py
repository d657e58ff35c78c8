"""How incidents look: the list, and the page of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look
from jivsd.records import Incident, IncidentState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page


def listing(incidents: Sequence[Incident]) -> Page:
    """The table of `jivsd incidents list`."""
    if not incidents:
        return ["No incidents."]
    table = look.table("INCIDENT", "KIND", "AGE", "WHAT", wraps=("WHAT",), numbers=("AGE",))
    for incident in incidents:
        open_ = incident.state is IncidentState.OPEN
        kind = Text(incident.kind, style="red" if open_ else "green")
        where = ":".join(part for part in (incident.workflow, incident.path) if part)
        what = Text(f"{where}: " if where else "", style="bold").append(incident.message, style="not bold")
        if not open_:
            what.append(f" ({incident.resolution})", style="not bold green")
        table.add_row(incident.incident_id, kind, look.brief(look.now() - incident.at), what)
    return [table]


def incident(incident: Incident) -> Page:
    """The page of `jivsd incidents show`."""
    open_ = incident.state is IncidentState.OPEN
    details = [
        (name.capitalize(), value if isinstance(value, str) else look.json_line(value))
        for name, value in incident.details.items()
    ]
    page = look.facts(
        [
            ("Incident", incident.incident_id),
            ("State", Text(incident.state, style="bold red" if open_ else "green")),
            ("Kind", incident.kind),
            ("What", Text(incident.message, style="red" if open_ else "")),
            ("Since", look.moment_and_ago(incident.at)),
            ("Workflow", incident.workflow),
            ("Run", incident.run_id),
            ("Path", incident.path),
            *details,
            ("Resolution", incident.resolution),
            ("By", incident.resolved_by),
            ("Why", incident.resolved_why),
            ("At", look.moment_and_ago(incident.resolved_at) if incident.resolved_at else None),
        ]
    )
    if not open_:
        return [page]
    hint = Text(f"\nTry again: jivsd incidents retry {incident.incident_id}", style="dim")
    if incident.path:
        hint.append(f"\nOr give the value yourself: jivsd incidents resolve {incident.incident_id} --value JSON")
    return [page, hint]
