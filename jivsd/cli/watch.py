"""watch: all that happens, as it happens."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from jivsd.cli.command import Json, group, remote
from jivsd.cli.output import Answer, harmless, say

if TYPE_CHECKING:
    from jivsd.admin.feedwire import FeedEventView
    from jivsd.cli.output import Page
    from jivsd.client import Client

commands = group()

AWAY_S = 120
"""Seconds that a daemon may be away before the watching is given up."""

Several = Annotated[list[str] | None, typer.Option("--workflow", metavar="NAME", help="Only of this workflow.")]


@remote(
    commands,
    "watch",
    "jivsd watch --workflow order",
    "jivsd watch --kind Ended --after oldest --json | jq -r .id",
    panel="Look at runs",
)
async def watch(
    client: "Client",
    workflow: Several = None,
    id: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Only of this workflow id.")] = None,
    run: Annotated[list[str] | None, typer.Option("--run", metavar="RUN_ID", help="Only of this run.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", metavar="KIND", help="Only of this kind: Ended.")] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="From an event's cursor on; or: oldest.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="End after so many.")] = None,
    json: Json = False,
) -> Answer:
    """Print what happens in all runs, or in some, as it happens: until Ctrl-C.

    Each option can be given several times. It goes on when the daemon is started again, and misses nothing. With --json
    each event is a line; its `cursor` is for --after.
    """
    from jivsd.feedclient import Wanted

    wanted = Wanted(workflow or (), id or (), run or (), kind or ())
    count = 0
    async with client.follow(after, wanted, patience=AWAY_S, away=_tell) as events:
        async for event in events:
            _print(event, json=json)
            count += 1
            if count == limit:
                break
    return Answer(msgspec.UNSET, _nothing)


def _nothing() -> "Page":
    return []


def _tell(why: str | None) -> None:
    say("The daemon is back." if why is None else f"The daemon is away, trying again: {why}")


def _print(event: "FeedEventView", *, json: bool) -> None:
    import sys

    from jivsd.cli import look
    from jivsd.clock import from_datetime

    if json:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    else:
        what = f"{event.kind} {event.status}" if event.kind == "Ended" else f"{event.kind} {event.path}".rstrip()
        line = f"{look.moment(from_datetime(event.at))}  {event.workflow}:{event.id}  {what}"
        sys.stdout.write(harmless(line) + "\n")
    sys.stdout.flush()
