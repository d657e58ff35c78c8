"""Quarantine: workflows that may not run because their code crashes, or because an operator says so."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import Reason, group, remote
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

WorkflowName = Annotated[str, typer.Argument(metavar="WORKFLOW", help="A workflow's name.", show_default=False)]

commands = group("Workflows that may not run: list, begin, lift.")


@remote(commands, "list", "jivsd quarantine list")
async def list_quarantined(client: "Client") -> Answer:
    """List the workflows that are quarantined, and why."""
    from jivsd.admin import incidentwire
    from jivsd.engine.api import Incidents

    held = [workflow.quarantined for workflow in await client.workflows() if workflow.quarantined]
    items = [await client.incident(incident_id) for incident_id in held]

    def view() -> "Page":
        from jivsd.cli import incidentpages

        return incidentpages.listing(items) if items else ["No workflow is quarantined."]

    return Answer(incidentwire.IncidentPage.of(Incidents(items, None)), view)


@remote(commands, "begin", "jivsd quarantine begin nap --reason 'it charges twice, see ticket 4711'")
async def begin(client: "Client", workflow: WorkflowName, reason: Reason = "") -> Answer:
    """Refuse new starts of a workflow, and let its open runs rest: steps that run end, nothing more begins."""
    from jivsd.admin import incidentwire

    incident = await client.quarantine_workflow(workflow, reason=reason)
    note = f"Let it run again: jivsd quarantine lift {workflow}"
    return Answer(incidentwire.IncidentView.of(incident), lambda: [f"{incident.message}."], notes=[note])


@remote(commands, "lift", "jivsd quarantine lift nap --reason 'mended in 1.2'")
async def lift(client: "Client", workflow: WorkflowName, reason: Reason = "") -> Answer:
    """Let a quarantined workflow run again; its open runs go on where they were."""
    from jivsd.admin import incidentwire

    incident = await client.lift_quarantine(workflow, reason=reason)
    return Answer(incidentwire.IncidentView.of(incident), lambda: [f"Workflow {workflow!r} runs again."])
