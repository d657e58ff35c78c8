"""How things look to people: times, lengths, statuses, values, tables. Imported only when something is shown."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jivsd.records import ENDED, Run, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rich.console import RenderableType

    from jivsd.records import ErrorRecord

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

STYLES: Final[dict[str, str]] = {
    Status.RUNNING: "cyan",
    Status.WAITING: "blue",
    Status.PAUSED: "yellow",
    Status.BLOCKED: "bold red",
    Status.COMPENSATING: "magenta",
    Status.COMPENSATION_BLOCKED: "bold red",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.COMPENSATED: "magenta",
    Status.CANCELLED: "yellow",
    Status.TERMINATED: "yellow",
    Status.TIMED_OUT: "red",
}
"""The colour of each status that has one."""

SHOWN_LIMIT: Final = 4_000
"""Characters of a value that a page shows; `--json` has all of it."""


def now() -> int:
    """This moment, in microseconds since the epoch."""
    return time.time_ns() // 1000


def moment(at: int) -> str:
    """A time as people here write it, with its offset: `2026-11-21 14:03:07 +01:00`."""
    local = datetime.fromtimestamp(at / SECOND, UTC).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S ") + local.strftime("%z")[:3] + ":" + local.strftime("%z")[3:]


def clock_time(at: int) -> str:
    """The time of day, to the millisecond: `14:03:07.250`."""
    return datetime.fromtimestamp(at / SECOND, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def length(microseconds: int) -> str:
    """A length of time, to about two digits that matter: `12ms`, `3.4s`, `5m 12s`, `2d 4h`."""
    if microseconds < SECOND:
        return f"{max(microseconds, 0) / 1000:.0f}ms"
    if microseconds < MINUTE:
        return f"{microseconds / SECOND:.1f}s"
    if microseconds < HOUR:
        return f"{microseconds // MINUTE}m {microseconds % MINUTE // SECOND}s"
    if microseconds < DAY:
        return f"{microseconds // HOUR}h {microseconds % HOUR // MINUTE}m"
    return f"{microseconds // DAY}d {microseconds % DAY // HOUR}h"


def brief(microseconds: int) -> str:
    """A length of time in its largest unit, for narrow columns: `3s`, `12m`, `5h`, `16d`."""
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if microseconds >= size:
            return f"{microseconds // size}{unit}"
    return f"{max(microseconds, 0) // 1000}ms"


def ago(at: int) -> str:
    """How far from now: `5m 12s ago`, `in 3.0s`."""
    distance = now() - at
    return f"{length(distance)} ago" if distance >= 0 else f"in {length(-distance)}"


def moment_and_ago(at: int) -> str:
    return f"{moment(at)} ({ago(at)})"


def duration_of(run: Run) -> int:
    """How long a run took, or has been going on for, in microseconds."""
    return (run.ended_at or now()) - (run.started_at or run.created_at)


def head(run: Run) -> Text:
    """A run in two lines: what it is and how it stands; its id and when it was created."""
    line = Text.assemble((f"{run.workflow}:{run.workflow_id}", "bold"), "  ", status_text(run))
    return line.append("\n").append(f"{run.run_id}  {moment(run.created_at)}", style="dim")


def status_text(run: Run) -> Text:
    """A run's status, in its colour; a paused run says so beside it."""
    text = Text(run.status, style=STYLES.get(run.status, ""))
    if run.paused and run.status is not Status.PAUSED and run.status not in ENDED:
        text.append(" paused", style="yellow")
    return text


def value_text(value: msgspec.Raw, limit: int | None = SHOWN_LIMIT) -> Text:
    """A JSON value as people read it: on one line if it is short, else indented; cut after `limit` characters."""
    data = bytes(value)
    text = msgspec.json.format(data, indent=0 if len(data) < 60 else 2).decode()
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}… ({len(data):,} bytes; --json shows all)"
    return Text(text)


def error_text(error: ErrorRecord, indent: str = "") -> Text:
    """An error, its data, and the members of an exception group below it."""
    text = Text(f"{indent}{error.type}: ", style="red").append(error.message, style="default")
    if error.data:
        text.append(f" {json_line(error.data)}", style="dim")
    for cause in error.causes:
        text.append("\n").append_text(error_text(cause, indent + "  "))
    return text


def json_line(value: Any) -> str:
    """A value as JSON on one line, with spaces."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def facts(pairs: Iterable[tuple[str, RenderableType | None]]) -> Table:
    """Names and values, a line each; those without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            grid.add_row(name, value)
    return grid


def table(*columns: str, wraps: Collection[str] = (), cut: str = "", numbers: Collection[str] = ()) -> Table:
    """A table with a head. Where it is too wide, the columns in `wraps` wrap, and that in `cut` is cut short."""
    lines, gap = (box.SIMPLE_HEAD, 1) if sys.stdout.isatty() else (None, 2)
    result = Table(box=lines, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column in columns:
        result.add_column(
            column,
            no_wrap=column not in wraps and column != cut,
            overflow="ellipsis" if column == cut else "fold",
            justify="right" if column in numbers else "left",
        )
    return result


def section(title: str, body: RenderableType) -> Group:
    """A part of a page under its title."""
    return Group(Text(f"\n{title}", style="bold"), Padding(body, (0, 0, 0, 2)))
