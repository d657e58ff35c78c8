"""Which runs a command means that acts on many: the options, and asking whether it is meant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jivsd.cli.command import FLAG
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.values import read_attributes, read_moment, read_statuses

if TYPE_CHECKING:
    from jivsd.client import Client
    from jivsd.engine.api import Act
    from jivsd.store.api import RunFilter

PANEL: Final = "Many runs at once"

MaybeRun = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run id, WORKFLOW:ID, or WORKFLOW:@newest.", show_default=False),
]
Everything = Annotated[
    bool, typer.Option("--all", metavar=FLAG, help="Every run to which it can be done.", rich_help_panel=PANEL)
]
OfWorkflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Those of this workflow.", rich_help_panel=PANEL)
]
OfStatus = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Those in this status; can be given several times.",
        rich_help_panel=PANEL,
    ),
]
OfAttribute = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="NAME=VALUE",
        help="Those with this attribute; can be given several times.",
        rich_help_panel=PANEL,
    ),
]
OfParent = Annotated[
    str | None, typer.Option("--parent", metavar="RUN", help="Children of this run id.", rich_help_panel=PANEL)
]
CreatedAfter = Annotated[
    str | None,
    typer.Option("--created-after", metavar="TIME", help="A date, a time, or an age: 30d.", rich_help_panel=PANEL),
]
CreatedBefore = Annotated[
    str | None, typer.Option("--created-before", metavar="TIME", help="The same.", rich_help_panel=PANEL)
]
EndedAfter = Annotated[
    str | None, typer.Option("--ended-after", metavar="TIME", help="The same.", rich_help_panel=PANEL)
]
EndedBefore = Annotated[
    str | None, typer.Option("--ended-before", metavar="TIME", help="The same.", rich_help_panel=PANEL)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar=FLAG, help="Only say to which it would be done.", rich_help_panel=PANEL),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask whether it is meant.", rich_help_panel=PANEL)
]


def read_filter(
    everything: bool,
    workflow: str | None,
    status: list[str] | None,
    attribute: list[str] | None,
    parent: str | None,
    times: tuple[str | None, str | None, str | None, str | None],
) -> RunFilter | None:
    """Return which runs are meant; None: none of the options was given.

    Raises:
        CommandError: an option is not of its form, or there is another one beside --all.
    """
    from jivsd.store.api import RunFilter

    names = ("--created-after", "--created-before", "--ended-after", "--ended-before")
    moments = [None if one is None else read_moment(one, name) for one, name in zip(times, names, strict=True)]
    created_after, created_before, ended_after, ended_before = moments
    where = RunFilter(
        workflow=workflow,
        statuses=read_statuses(status),
        attributes=read_attributes(attribute),
        parent=parent,
        created_after=created_after,
        created_before=created_before,
        ended_after=ended_after,
        ended_before=ended_before,
    )
    if everything and where != RunFilter():
        raise CommandError(Exit.USAGE, "usage", "--all means every run: leave it out, or the other filters")
    return where if everything or where != RunFilter() else None


async def confirm(client: Client, act: Act, where: RunFilter) -> None:
    """Ask a person at a terminal whether it is meant, and say how many runs it is; a program is not asked.

    Raises:
        CommandError: it is not meant.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from jivsd.engine.api import COUNTED

    page = await client.act_on_page(act, where, limit=1, dry_run=True)
    count = len(page.items) + (page.left or 0)
    more = "more than " if count > COUNTED else ""
    sys.stderr.write(f"{act.action} {more}{count:,} {'run' if count == 1 else 'runs'}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(Exit.INTERRUPTED, "not_meant", "nothing was done")
