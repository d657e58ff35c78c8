"""What has become of each workflow's runs since a time: stats."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import group, remote
from jivsd.cli.output import Answer
from jivsd.cli.values import read_moment

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

commands = group()


@remote(
    commands,
    "stats",
    "jivsd stats",
    "jivsd stats order --since 1d",
    "jivsd stats --since 2026-11-01 --json | jq '.items[] | {workflow, failure_rate}'",
    panel="Look at runs",
)
async def stats(
    client: "Client",
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", help="Only this one.", show_default=False)
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="A date, a time, or an age such as 30d.")] = "1h",
) -> Answer:
    """Say what has become of each workflow's runs since a time: how many, how they ended, how long they took.

    Durations and retries are those of the runs that ended last, where there are more than can be looked at in a moment.
    """
    from jivsd.admin import statwire

    found = await client.statistics(read_moment(since, "--since"), workflow)

    def view() -> "Page":
        from jivsd.cli import statpages

        return statpages.statistics(found)

    return Answer(statwire.StatisticsPage.of(found), view)
