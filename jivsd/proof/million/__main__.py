"""`python -m jivsd.proof.million`: see `jivsd.proof.million`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jivsd.proof.million import __doc__ as description
from jivsd.proof.million.campaign import GOAL_MS, Outcome, Plan, campaign
from jivsd.proof.million.scenes import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jivsd.proof.million.asking import Look


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 if no answer took longer than it should."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.million", description=description)
    parser.add_argument("--runs", type=int, default=1_000_000, metavar="N", help="ended runs; 1,000,000")
    parser.add_argument("--prune", type=int, metavar="N", help="ended runs that are removed; 100,000, or a tenth")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="jivsd-million-") as folder,
        scene(Path(folder), postgres=given.store == "postgresql") as place,
    ):
        outcome = campaign(Path(folder), place, Plan(given.runs, given.prune or min(given.runs // 10, 100_000)), _tell)
    text = msgspec.json.format(msgspec.json.encode(outcome), indent=2).decode()
    sys.stdout.write(f"{text}\n" if given.json else "".join(f"{line}\n" for line in _words(outcome)))
    return 1 if outcome.slow else 0


def _tell(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def _words(outcome: Outcome) -> Iterator[str]:
    yield f"{outcome.store}: {outcome.runs:,} runs, {outcome.events:,} events, {outcome.bytes / 1e6:,.0f} MB"
    ready = outcome.start
    yield f"ready after {ready.ready_s:.2f} s (CPU {ready.cpu_s:.2f} s), with {ready.rss_mb:.0f} MB"
    yield from _looks("", outcome.looks)
    if outcome.settled:
        yield from _looks(" (analysed)", outcome.settled)
    speed, pruning = outcome.speed, outcome.pruning
    yield (
        f"new runs: {speed.steps_per_s:,.0f} steps/s, {speed.share:.0%} of those on an empty database;"
        f" CPU {speed.cpu_us:.0f} µs a step, {speed.cpu_share:.2f} times as much"
    )
    yield (
        f"removed {outcome.pruned:,} runs, {outcome.pruned_per_s:,.0f} a second; longest stall of a step meanwhile"
        f" {pruning.longest_ms:.0f} ms (p99 {pruning.p99_ms:.1f}), without {outcome.quiet.longest_ms:.0f} ms"
        f" (p99 {outcome.quiet.p99_ms:.1f})"
    )
    yield f"WRONG: {len(outcome.slow)} answers took longer than {GOAL_MS:g} ms" if outcome.slow else "good"


def _looks(when: str, looks: Sequence[Look]) -> Iterator[str]:
    """Pages as a whole, then each answer; the slowest of each kind first."""
    yield f"{'ms':>9} {'worst':>9} {'CPU':>9}   pages{when}: all requests of each, one after the other"
    of_pages = [look for look in looks if look.page]
    for page, requests in groupby(of_pages, key=lambda look: look.page):
        its = list(requests)
        sums = sum(one.ms for one in its), sum(one.worst_ms for one in its), sum(one.cpu_ms for one in its)
        yield "{:9.1f} {:9.1f} {:9.1f}".format(*sums) + f"   {page}"
    yield f"{'ms':>9} {'worst':>9} {'CPU':>9}   answers{when}"
    for look in sorted(looks, key=lambda look: look.ms, reverse=True):
        yield f"{look.ms:9.1f} {look.worst_ms:9.1f} {look.cpu_ms:9.1f}   {look.what}"


if __name__ == "__main__":
    sys.exit(main())
