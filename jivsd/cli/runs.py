"""Looking at runs: list, show, timeline, why."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, Attributes, Cursor, Limit, RunRef, Statuses, group, remote
from jivsd.cli.output import Answer
from jivsd.cli.values import read_attributes, read_moment, read_statuses
from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

PANEL = "Look at runs"

Moment = Annotated[str | None, typer.Option(metavar="TIME", help="A date, a time, or an age such as 30d.")]

commands = group()


@remote(
    commands,
    "list",
    "jivsd list --open",
    "jivsd list --workflow migration --limit 5",
    "jivsd list --status FAILED --status BLOCKED",
    "jivsd list --attribute region=eu --attribute tier=gold",
    "jivsd list --ended-after 1h --status FAILED",
    "jivsd list --json | jq -r '.items[].run_id'",
    panel=PANEL,
)
async def list_runs(
    client: "Client",
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")] = None,
    workflow_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Only this workflow id.")] = None,
    status: Statuses = None,
    attribute: Attributes = None,
    open_only: Annotated[bool, typer.Option("--open", metavar=FLAG, help="Only runs that have not ended.")] = False,
    paused: Annotated[bool, typer.Option("--paused", metavar=FLAG, help="Only runs that are paused.")] = False,
    parent: Annotated[str | None, typer.Option(metavar="RUN", help="Only children of this run id.")] = None,
    correlation_id: Annotated[str | None, typer.Option(metavar="ID", help="Only with this correlation id.")] = None,
    created_after: Moment = None,
    created_before: Moment = None,
    ended_after: Moment = None,
    ended_before: Moment = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Answer:
    """List runs, the newest first.

    With --ended-after or --ended-before, and nothing that is rarer, those come first that ended last.
    """
    from jivsd.admin import wire
    from jivsd.cli.paging import collect
    from jivsd.store.api import RunFilter, Runs

    where = RunFilter(
        workflow=workflow,
        workflow_id=workflow_id,
        statuses=read_statuses(status),
        attributes=read_attributes(attribute),
        open_only=open_only,
        paused=paused or None,
        parent=parent,
        correlation_id=correlation_id,
        created_after=_moment(created_after, "--created-after"),
        created_before=_moment(created_before, "--created-before"),
        ended_after=_moment(ended_after, "--ended-after"),
        ended_before=_moment(ended_before, "--ended-before"),
    )
    runs, following = await collect(lambda size, begin: client.runs(where, limit=size, cursor=begin), limit, cursor)

    def view() -> "Page":
        from jivsd.cli import runpages

        return runpages.listing(runs)

    notes = [f"There are more: jivsd list --cursor {following}, with the same options"] if following else []
    return Answer(wire.RunPage.of(Runs(runs, following)), view, notes=notes)


@remote(commands, "show", "jivsd show 0197b2c4-…", "jivsd show migration:crm-to-erp", panel=PANEL)
async def show(client: "Client", run: RunRef) -> Answer:
    """Show a run: status, times, input, output, and how far its steps say that they are."""
    from jivsd.admin import wire
    from jivsd.records import ENDED

    found = await client.show(run)
    progress = [] if found.status in ENDED else await client.progress(found.run_id)

    def view() -> "Page":
        from jivsd.cli import runpages

        return runpages.run(found, progress)

    return Answer(wire.RunView.of(found, progress=progress), view)


@remote(
    commands,
    "timeline",
    "jivsd timeline migration:crm-to-erp",
    "jivsd timeline RUN --flat --after 200",
    "jivsd timeline RUN --json | jq '.items[] | select(.kind == \"AttemptFailed\")'",
    panel=PANEL,
)
async def timeline(
    client: "Client",
    run: RunRef,
    flat: Annotated[bool, typer.Option("--flat", metavar=FLAG, help="In the order of events, not as a tree.")] = False,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events after this one.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many events.")] = 1000,
) -> Answer:
    """Show what has happened in a run, as a tree.

    The tree follows the paths of its branches and steps; what repeats is drawn as one line (--flat has them all).
    """
    from jivsd.admin import wire
    from jivsd.cli.paging import collect
    from jivsd.engine.api import Timeline

    found = await client.show(run)
    items, following = await collect(
        lambda size, seq: client.timeline(found.run_id, after=seq or 0, limit=size), limit, after
    )

    def view() -> "Page":
        from jivsd.cli import timelines

        return timelines.flat(found, items) if flat else timelines.tree(found, items)

    notes = [f"There are more: jivsd timeline {run} --after {following}"] if following is not None else []
    return Answer(wire.TimelinePage.of(Timeline(items, following)), view, notes=notes)


@remote(commands, "why", "jivsd why migration:crm-to-erp", panel=PANEL)
async def why(client: "Client", run: RunRef) -> Answer:
    """Say what a run waits for, until when, behind whom."""
    from jivsd.admin import wire

    found = await client.why(run)

    def view() -> "Page":
        from jivsd.cli import runpages

        return runpages.why(found)

    held = found.run.status is Status.BLOCKED or any(wait.kind == "incident" for wait in found.waits)
    notes = [f"What can be done about it: jivsd incidents list --run {found.run.run_id}"] if held else []
    return Answer(wire.WhyView.of(found), view, notes=notes)


def _moment(given: str | None, option: str) -> int | None:
    return None if given is None else read_moment(given, option)
