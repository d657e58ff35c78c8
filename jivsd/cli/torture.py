"""The proof that takes longest: torture."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import Json, group, local
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say
from jivsd.cli.proof import PANEL, staged

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.proof.torture.torturer import Glance

SAY_EVERY = 5.0
"""Seconds between two lines that say how things stand."""

commands = group()


@local(
    commands,
    "torture",
    "jivsd torture --seconds 20",
    "jivsd torture --seconds 600 --seed 7 --keep ./kept",
    "jivsd torture --store postgresql",
    "jivsd torture --store postgresql://me@localhost/test --faults kill,cut,lose",
    "jivsd torture --nodes 3",
    "jivsd torture --plant lose-ack --json | jq .violations[0]",
    panel=PANEL,
)
def torture(
    seconds: Annotated[float, typer.Option(metavar="N", min=1, help="How long it is killed.")] = 60,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="The same seed, the same workflows.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL, by URL; or postgresql: a server of its own.")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of several nodes; or none; or cluster, one of its own. Default: a server."),
    ] = None,
    nodes: Annotated[int, typer.Option(metavar="N", min=1, help="How many daemons share the work.")] = 1,
    faults: Annotated[
        str | None, typer.Option(metavar="LIST", help="Which, by commas. Default: all that can be.")
    ] = None,
    plant: Annotated[
        str | None, typer.Option(metavar="BUG", help="Build one in: step-twice, lose-ack or stale-writer.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Leave the databases there: a new folder.")] = None,
    json: Json = False,
) -> Answer:
    """Run random workflows against a model, and kill the daemon all the while.

    Each second to fifth second the daemon is killed with -9 and started again, or stopped for a while. With PostgreSQL
    the server has its faults, too: pg-restart, pg-terminate (sessions), pg-stop, cut (connections), lose (the answer to
    a commit), disk-full. Several nodes are killed, stopped for twice their lease (stop), asked to end (leave), cut off
    from PostgreSQL (node-cut); their Redis has flush, redis-kill and redis-stop. At the end every run, counter and
    ledger in the databases is compared with what a model says. Exit code 0 only if nothing differs; with a bug built in
    that is 1, or the torturer is no good.
    """
    from jivsd.proof.torture.orders import Wrong, orders
    from jivsd.proof.torture.torturer import torture

    try:
        what = orders(seconds=seconds, seed=seed, store=store, redis=redis, nodes=nodes, faults=faults, plant=plant)
    except Wrong as error:
        raise CommandError(Exit.USAGE, "usage", str(error)) from None
    with staged("torture"):
        report = torture(what, keep, (lambda _: None) if json else _Lines())

    def view() -> "Page":
        from jivsd.cli import torturepages

        return torturepages.torture(report)

    return Answer(report, view, Exit.FAILED if report.violations else Exit.OK)


class _Lines:
    """Says how things stand: on a terminal in one line that changes, elsewhere now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, glance: "Glance") -> None:
        line = (
            f"{glance.second:5.0f} s  {glance.starts} runs started, {glance.open} of them open, {glance.faults} faults"
        )
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        elif glance.second >= self._next:
            self._next += SAY_EVERY
            say(line)
