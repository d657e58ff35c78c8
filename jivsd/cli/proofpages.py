"""How the results of the proofs look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look
from jivsd.proof.benchreport import waits

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.proof.bench import BenchReport
    from jivsd.proof.demo import DemoReport


def bench(report: BenchReport) -> Page:
    """The page of `jivsd bench`."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    share = report.steps_per_s / report.raw_rows_per_s if report.raw_rows_per_s else 0
    raw = f"{report.raw_rows_per_s:,.0f} rows/s, {report.raw_commits_per_s:,.0f} commits/s"
    asked = report.one_step_socket_ms
    return [
        look.facts(
            [
                ("Durable steps", f"{report.steps_per_s:,.0f}/s ({share:.0%} of the rows that the store can write)"),
                ("Runs", f"{report.runs_per_s:,.0f}/s, of {report.steps} steps, {report.concurrency:,} at once"),
                ("The store alone", f"{raw}, {report.batch_rows:,.0f} rows a commit"),
                ("CPU", f"{report.cpu_us_per_step:,.0f} µs a step"),
                ("One step", f"{report.one_step_ms.p50:.1f} ms (p50), {report.one_step_ms.p99:.1f} ms (p99)"),
                ("Ten steps", f"{report.ten_steps_ms.p50:.1f} ms (p50), {report.ten_steps_ms.p99:.1f} ms (p99)"),
                ("One request", f"{asked.p50:.1f} ms (p50), {asked.p99:.1f} ms (p99): one step, through the socket"),
                *((name[0].upper() + name[1:], value) for name, value in waits(report)),
                ("This machine", f"{report.loop_ms:.1f} ms for a fixed Python loop; {versions}"),
            ]
        )
    ]


def demo(report: DemoReport) -> Page:
    """The page of `jivsd demo`: what ran, what was killed when, what was lost, what was recorded twice."""
    runs = look.table("WORKFLOW", "STATUS", "RUNS", numbers=("RUNS",))
    for name, count in report.runs.items():
        workflow, status = name.split(" ")
        runs.add_row(workflow, Text(status, style=look.STYLES.get(status, "")), str(count))
    columns = ("KILL", "SECOND", "MIGRATED", "OPEN RUNS", "RUNNING STEPS", "UP AGAIN AFTER")
    kills = look.table(*columns, numbers=columns)
    for kill in report.killed:
        numbers = (f"{kill.second:.1f}", f"{kill.migrated:.0%}", str(kill.open), str(kill.steps), f"{kill.ready:.1f} s")
        kills.add_row(str(kill.number), *numbers)
    counts = look.table("FOUND", "OF WHAT MUST NOT BE", "MEANS", wraps=("OF WHAT MUST NOT BE",), numbers=("FOUND",))
    for count in sorted(report.counts, key=lambda count: count.means):
        counts.add_row(Text(str(count.found), style="bold red" if count.found else "green"), count.what, count.means)
    parts = [look.section("What ran", runs), look.section("What was killed, and when", kills)]
    parts.append(look.section("What the databases say", counts))
    return [*parts, _verdict(report)]


def _verdict(report: DemoReport) -> Text:
    verdict = ("It holds", "bold green") if report.holds else ("IT DOES NOT HOLD", "bold red")
    done = f"{report.kills} kills, {report.rows:,} rows moved"
    found = f"{report.lost} lost, {report.recorded_twice} recorded twice, {report.wrong} otherwise wrong"
    text = Text("\n").append_text(Text.assemble(verdict, f": {done}; {found}; {report.seconds:.1f} s."))
    text.append(f"\n{report.again} steps were killed before they were recorded, and done once more.", style="dim")
    if report.kept:
        text.append(f"\nCount again yourself: {report.kept}/recount.sql")
    else:
        text.append(f"\nThe same again, with the databases left for you: jivsd demo --seed {report.seed} --keep DIR")
    return text
