"""Removing what is old: prune."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, Attributes, Statuses, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say
from jivsd.cli.values import read_attributes, read_moment, read_statuses
from jivsd.records import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.store.api import Plugin, RunFilter
    from jivsd.store.removal import Journals
    from jivsd.testing.archive import Archive

PANEL = "Act on runs"

commands = group()


@remote(
    commands,
    "prune",
    "jivsd prune --before 90d --dry-run",
    "jivsd prune --before 90d --archive runs.jsonl.gz",
    "jivsd prune --before 2026-01-01 --status COMPLETED --workflow nap",
    "python -m jivsd.testing replay runs.jsonl.gz --run RUN_ID",
    panel=PANEL,
)
async def prune(
    client: "Client",
    before: Annotated[
        str, typer.Option(metavar="TIME", help="Runs that ended before: a date, a time, or an age such as 30d.")
    ],
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")] = None,
    status: Statuses = None,
    attribute: Attributes = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write each run there first; a file that is there is added to."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar=FLAG, help="Only count what would be removed.")] = False,
    share: Annotated[
        float,
        typer.Option(metavar="PERCENT", min=1, max=100, help="Of the time, while the daemon has other work."),
    ] = 10,
    keys_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Also forget the idempotency keys of removed runs from before then."),
    ] = None,
    shrink: Annotated[bool, typer.Option("--shrink", metavar=FLAG, help="Give the room back to the disk.")] = False,
) -> Answer:
    """Remove ended runs and their journals for good, beside the work.

    Runs whose parent or whose child is open stay. With --archive each run is on the disk before it is removed, so that
    the command can be ended at any time and given again. A start under the idempotency key of a removed run is refused,
    until --keys-before forgets it.
    """
    where = _filter(before, workflow, status, attribute)
    if dry_run:
        return await _count(client, where)
    forget = None if keys_before is None else read_moment(keys_before, "--keys-before")
    part = share / 100
    archived, damaged = 0, list[str]()
    if archive is None:
        pruned = await client.prune(where, share=part, on_progress=_progress("removed {:,} runs"))
    else:
        pruned, archived, damaged = await _archive(client, where, archive, part)
    forgotten = 0 if forget is None else await client.forget_keys(forget, share=part)
    freed = await client.shrink(share=part, on_progress=_progress("{:,} bytes given back")) if shrink else 0

    def view() -> "Page":
        yield f"Removed {pruned:,} {_runs(pruned)}."
        if archive is not None:
            yield f"Archived {archived:,} {_runs(archived)} in {archive}."
        if keys_before is not None:
            yield f"Forgot {forgotten:,} idempotency keys."
        if shrink:
            yield f"Gave {freed:,} bytes back to the disk."

    document = {"pruned": pruned, "archived": archived, "damaged": damaged, "forgotten": forgotten, "freed": freed}
    notes = [f"Left where it is: {what}" for what in damaged]
    return Answer(document, view, Exit.FAILED if damaged else Exit.OK, notes=notes)


def _filter(before: str, workflow: str | None, status: list[str] | None, attribute: list[str] | None) -> "RunFilter":
    from jivsd.store.api import RunFilter

    statuses = read_statuses(status)
    if still_open := [one for one in statuses if one not in ENDED]:
        raise CommandError(
            Exit.USAGE, "usage", f"--status: {still_open[0]} is not the status of an ended run: only those are pruned"
        )
    return RunFilter(
        workflow=workflow,
        statuses=statuses,
        attributes=read_attributes(attribute),
        ended_before=read_moment(before, "--before"),
    )


async def _count(client: "Client", where: "RunFilter") -> Answer:
    counts = await client.count_prunable(where)
    total = sum(count.runs for count in counts)

    def view() -> "Page":
        from jivsd.cli import look

        table = look.table("WORKFLOW", "STATUS", "RUNS", numbers=("RUNS",))
        for count in sorted(counts, key=lambda count: (count.workflow, count.status)):
            table.add_row(count.workflow, count.status, f"{count.runs:,}")
        return [table, f"{total:,} {_runs(total)} would be removed."]

    return Answer({"runs": total, "items": counts, "next": None}, view)


async def _archive(client: "Client", where: "RunFilter", path: Path, share: float) -> tuple[int, int, list[str]]:
    """Archive and remove, page by page; return how many were removed and archived, and what cannot be read.

    Raises:
        CommandError: the archive cannot be written; what is not in it has not been removed.
    """
    from jivsd.testing.archive import Archive, NotAnArchive

    plugins: dict[str, Plugin] = {}
    damaged: list[str] = []
    pruned = archived = 0
    cursor: str | None = None
    progress = _progress("archived and removed {:,} runs")
    try:
        with Archive(path) as archive:
            if archive.cut:
                say(f"{path}: cut off {archive.cut:,} bytes that were not written to the end; their runs come again")
            while True:
                page = await client.prunable_journals(where, cursor, share=share)
                archived += await _add(client, archive, page, plugins)
                damaged += page.damaged
                if page.items:
                    pruned += await client.remove([one.run.run_id for one in page.items], share=share)
                progress(pruned)
                if (cursor := page.next) is None:
                    return pruned, archived, damaged
    except NotAnArchive as error:
        raise CommandError(Exit.INVALID, "not_an_archive", str(error)) from None
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise CommandError(Exit.FAILED, "not_written", message) from None


async def _add(client: "Client", archive: "Archive", page: "Journals", plugins: "dict[str, Plugin]") -> int:
    """Add to the archive what is not in it yet; return how many runs that are."""
    from jivsd.client import ClientError
    from jivsd.testing.history import History

    new = [one for one in page.items if one.run.run_id not in archive.last]
    for code_hash, run_id in {one.run.code_hash: one.run.run_id for one in new}.items():
        if code_hash not in plugins:
            try:
                plugins[code_hash] = await client.code(run_id)
            except ClientError as error:
                if error.code != "not_found":
                    raise
    archive.add([History.of(one.run, one.events) for one in new], plugins)
    return len(new)


def _progress(text: str) -> "Callable[[int], None]":
    def tell(number: int) -> None:
        if sys.stderr.isatty():
            say(text.format(number))

    return tell


def _runs(number: int) -> str:
    return "run" if number == 1 else "runs"
