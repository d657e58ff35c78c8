"""Taking a run along: export."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import RunRef, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.records import Event

PANEL = "Look at runs"
PAGE = 500
"""How many events are asked for at once."""

commands = group()


@remote(
    commands,
    "export",
    "jivsd export migration:crm-to-erp --output crm.json",
    "python -m jivsd.testing replay crm.json --break 'load[orders]/copy_chunk#3'",
    panel=PANEL,
)
async def export(
    client: "Client",
    run: RunRef,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where to. Default: RUN_ID.json, in this folder.")
    ] = None,
) -> Answer:
    """Write a run's journal and its code into one file, which replays under a debugger without any database.

    The file holds the run's input and all results, also what is secret of them (this takes the role admin): only its
    owner can read it. Steps are not run in a replay.
    """
    import msgspec

    from jivsd.testing.history import History

    found = await client.show(run)
    code = await client.code(found.run_id)
    events: list[Event] = []
    following: int | None = 0
    while following is not None:
        page = await client.timeline(found.run_id, after=following, limit=PAGE, reveal=True)
        events += page.items
        following = page.next
    history = History.of(found, events, code)
    file = output or Path(f"{found.run_id}.json")
    _write(file, history.encode())

    def view() -> "Page":
        yield f"{file}: {len(events):,} events, {len(code.files):,} files of code"

    secret = bool(events) and msgspec.json.decode(events[0].payload).get("input") != msgspec.json.decode(found.input)
    warning = [f"Note: {file} holds what is secret of this run, because a replay needs it; keep it accordingly."]
    notes = [*(warning if secret else []), f"Replay it: python -m jivsd.testing replay {file} [--break PATH]"]
    return Answer({"file": str(file), "run_id": found.run_id, "events": len(events)}, view, notes=notes)


def _write(file: Path, data: bytes) -> None:
    """Write a file that only its owner can read; one that is there keeps its mode.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(data)
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror or error}"
        raise CommandError(Exit.FAILED, "not_written", message) from None
