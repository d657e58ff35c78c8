"""Proofs that anyone can run: demo, bench."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import Json, group, local
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say

if TYPE_CHECKING:
    from collections.abc import Generator

    from jivsd.cli.output import Page

PANEL = "See for yourself"

commands = group()


@contextmanager
def staged(name: str) -> "Generator[None]":
    """Say in one sentence why a proof, which has its daemons in a folder of its own, cannot go on.

    Raises:
        CommandError: the folder is not empty, or a daemon failed.
    """
    from jivsd.proof.daemons import DaemonFailed
    from jivsd.proof.stage import FolderNotEmpty

    try:
        yield
    except FolderNotEmpty as error:
        raise CommandError(Exit.INVALID, "folder_not_empty", str(error)) from None
    except (DaemonFailed, OSError) as error:
        raise CommandError(Exit.FAILED, f"{name}_failed", f"the {name} cannot go on: {error}") from None


@local(commands, "demo", "jivsd demo", "jivsd demo --keep ./kept", "jivsd demo --json | jq .lost", panel=PANEL)
def demo(
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Leave the databases there: a new folder.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="For what is random in it.")] = None,
    json: Json = False,
) -> Answer:
    """See it work, and be killed, in less than a minute.

    Starts a daemon in a temporary folder, lets it move a database of 100,000 rows, sell things and send letters, kills
    it with -9 while it works, starts it again, and counts in the databases what was lost or recorded twice. Exit code 0
    only if that is nothing.
    """
    from jivsd.cli.demoshow import shown
    from jivsd.proof.demo import demo

    with staged("demo"), shown(quiet=json) as watcher:
        report = demo(keep, seed=seed, watcher=watcher)

    def view() -> "Page":
        from jivsd.cli import proofpages

        return proofpages.demo(report)

    return Answer(report, view, Exit.OK if report.holds else Exit.FAILED)


@local(
    commands,
    "bench",
    "jivsd bench",
    "jivsd bench --runs 2000 --json | jq .steps_per_s",
    "jivsd bench --parked 100000 --in-flight 10000",
    "jivsd bench --report ./bench",
    "jivsd bench --store postgresql://me@localhost/test --workers 2",
    panel=PANEL,
)
def bench(
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A PostgreSQL database to measure in. Default: the embedded store."),
    ] = None,
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="How many runs in all.")] = 10_000,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="How many steps each has.")] = 10,
    concurrency: Annotated[int, typer.Option(metavar="N", min=1, help="How many are open at once.")] = 1000,
    parked: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many are parked, to see what that costs; and get a signal.")
    ] = 2_000,
    in_flight: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many are in a step when a daemon is killed, and started again.")
    ] = 1_000,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Measure, too, what so many workers do together. PostgreSQL only.")
    ] = 1,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a report there, with curves from 1 to 10,000 runs open at once."),
    ] = None,
) -> Answer:
    """Measure how many durable steps this machine does in a second.

    On a database of its own (in PostgreSQL: in a schema of its own), which is removed afterwards; in turns with what
    the database can write at best. Then what parked runs cost, how fast signals bring them back, and how soon all is
    under way again after kill -9.
    """
    from jivsd.masking import masked
    from jivsd.proof import benchreport
    from jivsd.proof.bench import TURNS, bench
    from jivsd.proof.daemons import DaemonFailed
    from jivsd.proof.recovering import NotRecovered
    from jivsd.proof.sweep import Point, sweep
    from jivsd.store.api import StoreError
    from jivsd.store.choice import is_postgres

    if report is not None:
        try:
            benchreport.pygal()
        except benchreport.NoPygal as error:
            raise CommandError(Exit.INVALID, "no_pygal", str(error)) from None

    def tell(turn: int) -> None:
        if sys.stderr.isatty():
            say(f"turn {turn} of {TURNS}")

    def tell_point(point: Point) -> None:
        if sys.stderr.isatty():
            say(f"{point.concurrency:,} at once: {point.steps_per_s:,.0f} steps/s")

    if store is not None and not is_postgres(store):
        shown = masked(store)
        raise CommandError(Exit.INVALID, "store", f"{shown} is not postgresql://…: leave --store out for SQLite")
    if workers > 1 and store is None:
        why = "--workers needs --store postgresql://…: an embedded database is one process's"
        raise CommandError(Exit.USAGE, "usage", why)
    notes: list[str] = []
    try:
        measured = bench(
            store=store,
            runs=runs,
            steps=steps,
            concurrency=concurrency,
            parked_runs=parked,
            in_flight=in_flight,
            workers=workers,
            on_turn=tell,
        )
        points = sweep(store=store, steps=steps, on_point=tell_point) if report is not None else []
    except StoreError as error:
        raise CommandError(Exit.FAILED, "store", str(error)) from None
    except (DaemonFailed, NotRecovered) as error:
        raise CommandError(Exit.FAILED, "bench_failed", f"the bench cannot go on: {error}") from None
    if report is not None:
        try:
            page = benchreport.write(report, measured, points)
        except OSError as error:
            raise CommandError(Exit.FAILED, "not_written", f"{report} cannot be written: {error.strerror}") from None
        notes.append(f"The report: {page}")

    def view() -> "Page":
        from jivsd.cli import proofpages

        return proofpages.bench(measured)

    return Answer(measured, view, notes=notes)
