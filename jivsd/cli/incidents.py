"""Incidents, what a person has to decide or mend: list, groups, show, acknowledge, retry, resolve, skip."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, Cursor, Limit, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.cli.values import read_value

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.engine.api import GroupAction
    from jivsd.records import Incident

IncidentId = Annotated[str, typer.Argument(metavar="INCIDENT", help="An incident's id.", show_default=False)]
OneOrGroup = Annotated[
    str | None, typer.Argument(metavar="[INCIDENT]", help="An incident's id, unless --group.", show_default=False)
]
Group = Annotated[
    str | None, typer.Option("--group", metavar="GROUP", help="All open ones of this group: see `incidents groups`.")
]
Why = Annotated[
    str, typer.Option("--reason", "--why", metavar="TEXT", help="Why you do this; it is recorded with your name.")
]
All = Annotated[bool, typer.Option("--all", metavar=FLAG, help="Also those that are resolved.")]

commands = group("What a person has to decide or mend: list, groups, show, acknowledge, retry, resolve, skip.")


@remote(commands, "list", "jivsd incidents list", "jivsd incidents list --run migration:crm-to-erp --all")
async def list_incidents(
    client: "Client",
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only of this run: its id, or WORKFLOW:ID.")] = None,
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="Only of this group.")] = None,
    everything: All = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Answer:
    """List the open incidents, the newest first."""
    from jivsd.admin import incidentwire
    from jivsd.cli.paging import collect
    from jivsd.engine.api import Incidents

    state = None if everything else "OPEN"
    items, following = await collect(
        lambda size, begin: client.incidents(state, run, limit=size, cursor=begin, fingerprint=group), limit, cursor
    )

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.listing(items)

    notes = [f"There are more: jivsd incidents list --cursor {following}, with the same options"] if following else []
    return Answer(incidentwire.IncidentPage.of(Incidents(items, following)), view, notes=notes)


@remote(commands, "groups", "jivsd incidents groups", "jivsd incidents groups --all --json")
async def groups(client: "Client", everything: All = False, limit: Limit = 100) -> Answer:
    """List incidents by what they have in common: how many there are, and since when.

    Those of one workflow, path and error belong together, whatever numbers, ids, quoted values and file names they
    have in them.
    """
    from jivsd.admin import incidentwire

    found = await client.incident_groups(None if everything else "OPEN", limit)

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.groups(found)

    return Answer(incidentwire.GroupPage.of(found), view)


@remote(commands, "show", "jivsd incidents show 0197b2c4-…")
async def show(client: "Client", incident: IncidentId) -> Answer:
    """Show an incident: what went wrong, where, who did what about it, and what can be done."""
    return _answer(await client.incident(incident))


@remote(
    commands,
    "acknowledge",
    "jivsd incidents acknowledge INCIDENT --reason 'I look after it'",
    "jivsd incidents acknowledge --group 9f2c51d0a7b3",
)
async def acknowledge(client: "Client", incident: OneOrGroup = None, group: Group = None, reason: Why = "") -> Answer:
    """Say that you look after an incident; it stays open."""
    if group is not None:
        return await _all(client, incident, group, "acknowledge", reason)
    return _answer(await client.acknowledge_incident(_named(incident), reason=reason))


@remote(
    commands,
    "retry",
    "jivsd incidents retry INCIDENT --reason 'the disk has room again'",
    "jivsd incidents retry --group 9f2c51d0a7b3 --reason 'the carrier is back'",
)
async def retry(client: "Client", incident: OneOrGroup = None, group: Group = None, reason: Why = "") -> Answer:
    """Let what the incident holds be tried again, now that its cause is mended."""
    if group is not None:
        return await _all(client, incident, group, "retry", reason)
    return _answer(await client.retry_incident(_named(incident), reason=reason))


@remote(
    commands,
    "resolve",
    "jivsd incidents resolve INCIDENT --value '{\"shipped\": true}' --reason 'shipped by hand, see ticket 4711'",
    "jivsd incidents resolve INCIDENT --reason 'a signal with a typo; seen'",
)
async def resolve(
    client: "Client",
    incident: OneOrGroup = None,
    group: Group = None,
    value: Annotated[
        str | None, typer.Option(metavar="JSON", help="What the step would have returned: JSON, @FILE, or - for stdin.")
    ] = None,
    reason: Why = "",
) -> Answer:
    """Give the value that a step could not get, and the run goes on with it; what holds no step is closed as seen."""
    import msgspec

    given = msgspec.UNSET if value is None else read_value(value, "--value")
    if group is not None:
        return await _all(client, incident, group, "resolve", reason, given)
    return _answer(await client.resolve_incident(_named(incident), given, reason=reason))


@remote(commands, "skip", "jivsd incidents skip INCIDENT --reason 'the customer was told by phone'")
async def skip(client: "Client", incident: OneOrGroup = None, group: Group = None, reason: Why = "") -> Answer:
    """Let the run go on without the step's result, which is None then; its type has to allow that."""
    if group is not None:
        return await _all(client, incident, group, "skip", reason)
    return _answer(await client.skip_incident(_named(incident), reason=reason))


def _named(incident: str | None) -> str:
    if incident is None:
        raise CommandError(Exit.USAGE, "usage", "which one? Name an INCIDENT, or a group with --group")
    return incident


async def _all(
    client: "Client", incident: str | None, group: str, action: "GroupAction", reason: str, value: object = None
) -> Answer:
    import msgspec

    if incident is not None:
        raise CommandError(Exit.USAGE, "usage", "give an INCIDENT or --group, not both")
    given = msgspec.UNSET if value is None else value
    decided = await client.decide_group(group, action, given, reason=reason)
    failed = [one for one in decided.items if one.error is not None]

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.decided(decided, action)

    notes = ["There are more of this group: say it again"] if decided.more else []
    return Answer(decided, view, Exit.FAILED if failed else Exit.OK, notes=notes)


def _answer(incident: "Incident") -> Answer:
    from jivsd.admin import incidentwire

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.incident(incident)

    return Answer(incidentwire.IncidentView.of(incident), view)
