"""How statistics look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from jivsd.cli import look

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.store.statistics import Statistics, WorkflowStatistics

NUMBERS = ("STARTED", "ENDED", "PER MINUTE", "FAILED", "OPEN", "AVERAGE", "P50", "P95", "P99", "INCIDENTS")


def statistics(found: Statistics) -> Page:
    """The table of `jivsd stats`, and how the runs of each workflow ended."""
    yield f"Since {look.moment(found.since)}:"
    if not found.items:
        yield "No runs."
        return
    table = look.table("WORKFLOW", *NUMBERS, numbers=NUMBERS, cut="WORKFLOW")
    for one in found.items:
        table.add_row(one.workflow, *_row(one))
    yield table
    for one in found.items:
        ways = [f"{count:,} {status}" for status, count in one.ended.items()]
        kept = [f"{count:,} {status}" for status, count in one.open.items()]
        said = [f"ended: {', '.join(ways)}"] if ways else []
        said += [f"open: {', '.join(kept)}"] if kept else []
        if one.attempts is not None and one.attempts.failed:
            said.append(f"{one.attempts.failed:,} failed attempts in the last {one.attempts.runs:,} runs that ended")
        yield Text(f"{one.workflow}: {'; '.join(said) or 'nothing'}", style="dim")


def _row(one: WorkflowStatistics) -> list[str | Text]:
    rate = one.failure_rate
    incidents = f"{one.incidents:,}" + (f" ({one.open_incidents:,} open)" if one.open_incidents else "")
    times = one.durations
    return [
        f"{one.started:,}",
        f"{sum(one.ended.values()):,}",
        f"{one.ended_per_minute:,.1f}",
        "" if rate is None else Text(f"{rate:.1%}", style="red" if rate else ""),
        f"{sum(one.open.values()):,}",
        *([""] * 4 if times is None else map(look.length, (times.average, times.p50, times.p95, times.p99))),
        Text(incidents, style="bold red" if one.open_incidents else ""),
    ]
