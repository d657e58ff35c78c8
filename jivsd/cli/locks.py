"""Locks: who holds them, and who waits for whom."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, Cursor, Limit, group, remote
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.cluster.circles import Circle

PANEL = "Look at runs"

commands = group()


@remote(
    commands, "locks", "jivsd locks", "jivsd locks --key 'tenant:acme' --waiters 500 --json", "jivsd locks --graph",
    panel=PANEL,
)  # fmt: skip
async def locks(
    client: "Client",
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only this one.")] = None,
    graph: Annotated[
        bool, typer.Option("--graph", metavar=FLAG, help="Show as trees who keeps whom waiting, and circles.")
    ] = False,
    waiters: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="How many of those who wait to show for each key.")
    ] = 20,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Answer:
    """List the lock keys that somebody holds, and who waits for them, in order."""
    from jivsd.admin import lockwire
    from jivsd.cli.paging import collect
    from jivsd.engine.api import Locks

    circles: list[Circle] = []

    async def page(size: int, begin: str | None) -> Locks:
        found = await client.lock_queues(key, size, begin, waiters=waiters)
        circles[:] = found.circles
        return found

    items, following = await collect(page, limit, cursor)

    def view() -> "Page":
        from jivsd.cli import lockpages

        return lockpages.graph(items, circles) if graph else lockpages.listing(items, circles)

    notes = [f"There are more: jivsd locks --cursor '{following}', with the same options"] if following else []
    return Answer(lockwire.LockPage.of(Locks(items, following, circles)), view, notes=notes)
