"""How the result of a torture looks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.proof.torture.torturer import TortureReport


def torture(report: TortureReport) -> Page:
    """The page of `jivsd torture`: what was asked for, what was done to the daemon, and what is wrong."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    commands = ", ".join(f"{name} {count:,}" for name, count in report.commands.items())
    faults = ", ".join(f"{name} {count}" for name, count in report.faults.items()) or "none"
    facts = [
        ("Runs", f"{report.runs:,}, of which {report.starts:,} were started from outside; {report.signals:,} signals"),
        ("Commands", commands),
        ("Journal", f"{report.events:,} events"),
        ("Steps", f"{report.steps:,} times carried out, {report.again:,} of them again, for a fault came in between"),
        ("Faults", faults),
        ("Store", report.store),
        ("Went on", _went_on(report)),
        *([("Nodes", f"{report.nodes}; {_taken_over(report)}")] if report.nodes > 1 else []),
        ("Seed", f"{report.seed}: the same gives the same workflows"),
    ]
    if report.kept:
        facts.append(("Databases", report.kept))
    parts: Page = [look.facts(facts)]
    if report.violations:
        table = look.table("WRONG", "RUN", "PATH", "WHAT", wraps=("WHAT",))
        for one in report.violations:
            table.add_row(Text(one.kind, style="bold red"), one.run_id, one.path, one.message)
        parts = [*parts, look.section("What must not be", table)]
    return [*parts, _verdict(report)]


def _went_on(report: TortureReport) -> str:
    """How soon there was progress again, after each fault."""
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.progress_s.items())
    return f"at the latest after {times}" if times else "nothing was in its way"


def _taken_over(report: TortureReport) -> str:
    """How soon others had all shards of a node."""
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.taken_over_s.items())
    return f"others had all shards of one at the latest after {times}" if times else "nobody's shards were taken over"


def _verdict(report: TortureReport) -> Text:
    verdict = ("VIOLATIONS", "bold red") if report.violations else ("Nothing is wrong", "bold green")
    text = Text("\n").append_text(Text.assemble(verdict, f": {len(report.violations)} in {report.seconds:.1f} s."))
    if report.plant:
        text.append(f" A bug was built in: {report.plant}.")
    return text
