"""How the results of the proofs look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.cli import look

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.proof.bench import BenchReport


def bench(report: BenchReport) -> Page:
    """The page of `jivsd bench`."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    share = report.steps_per_s / report.raw_rows_per_s if report.raw_rows_per_s else 0
    raw = f"{report.raw_rows_per_s:,.0f} rows/s, {report.raw_commits_per_s:,.0f} commits/s"
    return [
        look.facts(
            [
                ("Durable steps", f"{report.steps_per_s:,.0f}/s ({share:.0%} of the rows that the store can write)"),
                ("Runs", f"{report.runs_per_s:,.0f}/s, of {report.steps} steps, {report.concurrency:,} at once"),
                ("The store alone", f"{raw}, {report.batch_rows:,.0f} rows a commit"),
                ("CPU", f"{report.cpu_us_per_step:,.0f} µs a step"),
                ("One step", f"{report.one_step_ms.p50:.1f} ms (p50), {report.one_step_ms.p99:.1f} ms (p99)"),
                ("Ten steps", f"{report.ten_steps_ms.p50:.1f} ms (p50), {report.ten_steps_ms.p99:.1f} ms (p99)"),
                ("This machine", f"{report.loop_ms:.1f} ms for a fixed Python loop; {versions}"),
            ]
        )
    ]
