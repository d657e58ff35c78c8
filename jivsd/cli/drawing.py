"""Draws on a terminal how far a run is: a line that says what it does, a bar, rates."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from jivsd.cli import look
from jivsd.cli.demoshow import kill_line
from jivsd.cli.output import console
from jivsd.cli.watching import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jivsd.cli.watching import Sight
    from jivsd.proof.demo import Kill, Scene

SHOWN_WAITS: Final = 5
REFRESH_HZ: Final = 8


class Drawing:
    """A picture that is drawn again on the same lines, and gone when the run has ended."""

    def __init__(self) -> None:
        self._spinner = Spinner("dots")
        self._live = Live(console=console(sys.stderr), transient=True, refresh_per_second=REFRESH_HZ)
        self._live.start()

    def show(self, sight: Sight) -> None:
        self._live.update(Group(*self._lines(sight)))

    def close(self) -> None:
        self._live.stop()

    def _lines(self, sight: Sight) -> list[RenderableType]:
        run, progress = sight.run, sight.progress
        head = Text.assemble((run.workflow, "bold"), f":{run.workflow_id}  ", look.status_text(run))
        head.append(f"  {look.length(look.duration_of(run))}", style="dim")
        if sight.away:
            head.append("\nthe daemon is away; waiting for it to come back", style="yellow")
        elif progress is not None:
            head.append(f"  {progress.phase}", style="bold")
        head.no_wrap, head.overflow = True, "ellipsis"
        top = Table.grid(padding=(0, 1))
        top.add_row(self._spinner, head)
        if progress is not None:
            return [top, *_bar(progress)]
        return [top, *(_wait_line(wait.what, wait.until, wait.error) for wait in sight.waits[:SHOWN_WAITS])]


class DemoDrawing:
    """What a demo's daemon is doing; the kills stay above it."""

    def __init__(self) -> None:
        self._console = console(sys.stderr)
        self._live = Live(console=self._console, transient=True, refresh_per_second=REFRESH_HZ)
        self._live.start()

    def scene(self, scene: Scene) -> None:
        up = ("the daemon is up", "green") if scene.up else ("the daemon is down", "bold red")
        runs = ", ".join(f"{count} {status}" for status, count in scene.runs.items() if count)
        head = Text.assemble(f"{scene.seconds:5.1f} s  ", up, f"  {runs}", no_wrap=True, overflow="ellipsis")
        loaded = Progress(scene.phase, scene.loaded, scene.rows, "rows", detail=f"migration: {scene.phase.lower()}")
        self._live.update(Group(head, *_bar(loaded)))

    def killed(self, kill: Kill) -> None:
        self._console.print(Text(kill_line(kill), style="red"))

    def close(self) -> None:
        self._live.stop()


def _bar(progress: Progress) -> list[RenderableType]:
    """The bar with its numbers, and the detail under it."""
    facts = [f"{progress.percent:.0f}%"] if progress.percent is not None else []
    if progress.done is not None:
        total = f"/{progress.total:,.0f}" if progress.total is not None else ""
        facts.append(f"{progress.done:,.0f}{total} {progress.unit}".strip())
    if progress.rate is not None:
        facts.append(f"{progress.rate:,.0f} {progress.unit}/s")
    if progress.remaining_s is not None:
        facts.append(f"{look.length(int(progress.remaining_s * look.SECOND))} left")
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    bar = ProgressBar(total=100, completed=progress.percent or 0, pulse=progress.percent is None)
    row.add_row(bar, "  ".join(facts))
    detail = Text(f"  {progress.detail}", style="dim", no_wrap=True, overflow="ellipsis")
    return [row, detail] if progress.detail else [row]


def _wait_line(what: str, until: int | None, error: str | None) -> Text:
    line = Text(f"  {what}", no_wrap=True, overflow="ellipsis")
    if until is not None:
        line.append(f", {look.ago(until)}", style="dim")
    if error:
        line.append(f": {error}", style="red")
    return line
