"""Proofs that anyone can run: bench."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import group, local
from jivsd.cli.output import Answer, say

if TYPE_CHECKING:
    from jivsd.cli.output import Page

PANEL = "See for yourself"

commands = group()


@local(commands, "bench", "jivsd bench", "jivsd bench --runs 2000 --json | jq .steps_per_s", panel=PANEL)
def bench(
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="How many runs in all.")] = 10_000,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="How many steps each has.")] = 10,
    concurrency: Annotated[int, typer.Option(metavar="N", min=1, help="How many are open at once.")] = 1000,
) -> Answer:
    """Measure how many durable steps this machine does in a second.

    On a database of its own, which is removed afterwards; in turns with what the database can write at best.
    """
    from jivsd.proof.bench import TURNS, bench

    def tell(turn: int) -> None:
        if sys.stderr.isatty():
            say(f"turn {turn} of {TURNS}")

    report = bench(runs=runs, steps=steps, concurrency=concurrency, on_turn=tell)

    def view() -> "Page":
        from jivsd.cli import proofpages

        return proofpages.bench(report)

    return Answer(report, view)
