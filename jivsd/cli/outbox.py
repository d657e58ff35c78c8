"""The outbox, what runs have published: look at it, and remove what is old."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import Limit, group, remote
from jivsd.cli.output import Answer
from jivsd.cli.values import read_moment

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

commands = group("What runs have published with ctx.emit: list, prune.")


@remote(commands, "list", "jivsd outbox list --topic order.shipped", "jivsd outbox list --after 4711 --json")
async def list_outbox(
    client: "Client",
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Only of this topic.")] = None,
    after: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Those that came after this one.")] = 0,
    limit: Limit = 50,
) -> Answer:
    """List what was published, in the order in which it was recorded."""
    from jivsd.admin import publications
    from jivsd.cli.paging import collect
    from jivsd.engine.api import Outbox

    items, following = await collect(lambda size, begin: client.outbox(begin or 0, size, topic), limit, after)

    def view() -> "Page":
        from jivsd.cli import look

        if not items:
            return ["Nothing was published."]
        table = look.table("NUMBER", "AT", "TOPIC", "FROM", "PAYLOAD", wraps=("PAYLOAD",), numbers=("NUMBER",))
        for one in items:
            source = f"{one.workflow}:{one.workflow_id}"
            table.add_row(str(one.number), look.moment(one.at), one.topic, source, look.value_text(one.payload))
        return [table]

    notes = [f"There are more: jivsd outbox list --after {following}, with the same options"] if following else []
    return Answer(publications.OutboxPage.of(Outbox(items, following)), view, notes=notes)


@remote(commands, "prune", "jivsd outbox prune --before 30d", "jivsd outbox prune --before 2026-01-01")
async def prune(
    client: "Client",
    before: Annotated[
        str, typer.Option(metavar="TIME", help="What was published before: a date, a time, or an age such as 30d.")
    ],
) -> Answer:
    """Remove what was published long ago. The journals of the runs stay."""
    removed = await client.clear_outbox(read_moment(before, "--before"))

    def view() -> "Page":
        return [f"Removed {removed:,} {'event' if removed == 1 else 'events'}."]

    return Answer({"removed": removed}, view)
