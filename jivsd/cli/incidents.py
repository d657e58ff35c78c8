"""Incidents, what a person has to decide or mend: list, show, retry, resolve."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, Cursor, Limit, group, remote
from jivsd.cli.output import Answer
from jivsd.cli.values import read_value

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.records import Incident

IncidentId = Annotated[str, typer.Argument(metavar="INCIDENT", help="An incident's id.", show_default=False)]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why you do this; it is recorded with your name.")]

commands = group("What a person has to decide or mend: list, show, retry, resolve.")


@remote(commands, "list", "jivsd incidents list", "jivsd incidents list --run migration:crm-to-erp --all")
async def list_incidents(
    client: "Client",
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only of this run: its id, or WORKFLOW:ID.")] = None,
    everything: Annotated[bool, typer.Option("--all", metavar=FLAG, help="Also those that are resolved.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Answer:
    """List the open incidents, the newest first."""
    from jivsd.admin import wire
    from jivsd.cli.paging import collect
    from jivsd.engine.api import Incidents

    state = None if everything else "OPEN"
    items, following = await collect(
        lambda size, begin: client.incidents(state, run, limit=size, cursor=begin), limit, cursor
    )

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.listing(items)

    notes = [f"There are more: jivsd incidents list --cursor {following}, with the same options"] if following else []
    return Answer(wire.IncidentPage.of(Incidents(items, following)), view, notes=notes)


@remote(commands, "show", "jivsd incidents show 0197b2c4-…")
async def show(client: "Client", incident: IncidentId) -> Answer:
    """Show an incident: what went wrong, where, and what can be done."""
    return _answer(await client.incident(incident))


@remote(commands, "retry", "jivsd incidents retry INCIDENT --why 'the disk has room again'")
async def retry(client: "Client", incident: IncidentId, why: Why = "") -> Answer:
    """Let what the incident holds be tried again, now that its cause is mended."""
    return _answer(await client.retry_incident(incident, why=why))


@remote(
    commands,
    "resolve",
    "jivsd incidents resolve INCIDENT --value '{\"shipped\": true}' --why 'shipped by hand, see ticket 4711'",
)
async def resolve(
    client: "Client",
    incident: IncidentId,
    value: Annotated[
        str, typer.Option(metavar="JSON", help="What the step would have returned: JSON, @FILE, or - for stdin.")
    ],
    why: Why = "",
) -> Answer:
    """Give the value that the step could not get; the run goes on with it."""
    return _answer(await client.resolve_incident(incident, read_value(value, "--value"), why=why))


def _answer(incident: "Incident") -> Answer:
    from jivsd.admin import wire

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.incident(incident)

    return Answer(wire.IncidentView.of(incident), view)
