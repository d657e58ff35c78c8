"""How incidents look: the list, and the page of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look
from jivsd.records import Incident, IncidentGroup, IncidentState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.engine.api import GroupDecision


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
        if open_ and (seen := incident.acknowledged) is not None:
            what.append(f" (seen by {seen.by})", style="not bold dim")
        if not open_:
            what.append(f" ({incident.resolution})", style="not bold green")
        table.add_row(incident.incident_id, kind, look.brief(look.now() - incident.at), what)
    return [table]


def groups(found: Sequence[IncidentGroup]) -> Page:
    """The table of `jivsd incidents groups`."""
    if not found:
        return ["No incidents."]
    table = look.table(
        "GROUP", "KIND", "COUNT", "SEEN", "FIRST", "LAST", "WHAT", wraps=("WHAT",), numbers=("COUNT", "SEEN")
    )
    for group in found:
        where = ":".join(part for part in (group.workflow, group.path) if part)
        what = Text(f"{where}: " if where else "", style="bold").append(group.message, style="not bold")
        first, last = (f"{look.brief(look.now() - at)} ago" for at in (group.first_at, group.last_at))
        seen = f"{group.acknowledged:,}" if group.acknowledged else ""
        table.add_row(group.fingerprint, Text(group.kind, style="red"), f"{group.count:,}", seen, first, last, what)
    return [table]


def decided(found: GroupDecision, action: str) -> Page:
    """What came of an action on a group, those that it failed for one by one."""
    failed = [one for one in found.items if one.error is not None]
    done = len(found.items) - len(failed)
    said = f"{action}: {done:,} of {len(found.items):,} done."
    if failed:
        table = look.table("INCIDENT", "RUN", "WHY NOT", wraps=("WHY NOT",))
        for one in failed:
            table.add_row(one.incident_id, one.run_id or "", Text(one.error or "", style="red"))
        return [said, table]
    return [said]


def incident(incident: Incident) -> Page:
    """The page of `jivsd incidents show`."""
    open_ = incident.state is IncidentState.OPEN
    details = [
        (name.capitalize(), value if isinstance(value, str) else look.json_line(value))
        for name, value in incident.details.items()
        if value != incident.message
    ]
    history = [
        f"{look.moment(one.at)} {one.what} by {one.by or 'itself'}" + (f": {one.why}" if one.why else "")
        for one in incident.history
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
            ("Group", incident.fingerprint),
            *details,
            ("History", "\n".join(history) or None),
            ("Resolution", incident.resolution),
            ("By", incident.resolved_by),
            ("Why", incident.resolved_why),
            ("At", look.moment_and_ago(incident.resolved_at) if incident.resolved_at else None),
        ]
    )
    if not open_:
        return [page]
    if incident.kind == "deadlock":
        first = incident.details["circle"][0]["run_id"]
        return [page, Text(f"\nBreak it: jivsd cancel {first}, or another run of it; jivsd locks --graph", style="dim")]
    hint = Text(f"\nTry again: jivsd incidents retry {incident.incident_id}", style="dim")
    if incident.kind in ("step", "compensation"):
        hint.append(f"\nOr give the value yourself: jivsd incidents resolve {incident.incident_id} --value JSON")
        hint.append(f"\nOr go on without it: jivsd incidents skip {incident.incident_id}")
    elif incident.kind == "request":
        hint.append(f"\nOr let it be: jivsd incidents skip {incident.incident_id}")
    return [page, hint]
