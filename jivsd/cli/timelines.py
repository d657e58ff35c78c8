"""How a timeline looks: as a tree of the run's branches and steps, or event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.text import Text
from rich.tree import Tree

from jivsd.cli import look
from jivsd.records import (
    AttemptFailed,
    CancelRequested,
    ChildEnded,
    CodeChanged,
    Ended,
    Event,
    Kind,
    LockGranted,
    Marker,
    PauseChanged,
    Recovered,
    Reset,
    Run,
    Signal,
    Started,
    StepCancelled,
    StepDone,
    StepFailed,
    payload_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jivsd.cli.output import Page

FOLD_FROM: Final = 6
"""So many repetitions of one step in sequence, all done, are drawn as one line."""

VALUE_WIDTH: Final = 48
"""Characters of a result or payload in a line."""

STYLES: Final[dict[str, str]] = {
    Kind.STEP_DONE: "green",
    Kind.STEP_FAILED: "red",
    Kind.STEP_CANCELLED: "yellow",
    Kind.ATTEMPT_FAILED: "yellow",
    Kind.SIGNAL: "cyan",
    Kind.CANCEL_REQUESTED: "yellow",
    Kind.RECOVERED: "magenta",
}


@dataclass(slots=True)
class _Node:
    """A part of a path: the events that have exactly this path, and the parts below it, in the order of events."""

    events: list[Event] = field(default_factory=list[Event])
    below: dict[str, _Node] = field(default_factory=dict[str, "_Node"])


def flat(run: Run, events: Sequence[Event]) -> Page:
    """A table of the events in their order."""
    table = look.table("SEQ", "AT", "EVENT", "PATH", "WHAT", wraps=("PATH", "WHAT"), numbers=("SEQ",))
    for event in events:
        kind = Text(event.kind, style=STYLES.get(event.kind, ""))
        table.add_row(str(event.seq), look.clock_time(event.at), kind, event.path, _what(event))
    return [look.head(run), table]


def tree(run: Run, events: Sequence[Event]) -> Page:
    """A tree by path. Events of the run itself (signals, pauses, its start and end) stand where they came."""
    root = _Node()
    for event in events:
        node = root
        for part in event.path.split("/") if event.path else (f"\0{event.seq}",):
            node = node.below.setdefault(part, _Node())
        node.events.append(event)
    drawn = Tree(look.head(run), guide_style="dim")
    _draw(drawn, root)
    return [drawn]


def _draw(tree: Tree, node: _Node) -> None:
    for parts in _folded(node.below):
        part, first = parts[0]
        if len(parts) > 1:
            last_part, last = parts[-1]
            line = Text.assemble(
                (part, "bold"), " … ", (last_part, "bold"), f"  {len(parts)} times ", ("done", "green")
            )
            span = f"  {look.clock_time(first.events[0].at)} to {look.clock_time(last.events[-1].at)}"
            tree.add(line.append(span, style="dim"))
            continue
        label = Text() if part.startswith("\0") else Text(part, style="bold")
        for place, event in enumerate(first.events):
            label.append("\n" if place else "  " if label else "").append_text(_line(event))
        _draw(tree.add(label), first)


def _folded(below: dict[str, _Node]) -> Iterator[list[tuple[str, _Node]]]:
    """The children one by one, but those that repeat one step, and are nothing but done, together."""
    alike: list[tuple[str, _Node]] = []
    name = ""
    for part, node in below.items():
        plain = not node.below and [event.kind for event in node.events] == [Kind.STEP_DONE]
        base = part.split("#")[0] if plain else ""
        if alike and base != name:
            yield from _together(alike)
            alike = []
        name = base
        if plain:
            alike.append((part, node))
        else:
            yield [(part, node)]
    yield from _together(alike)


def _together(alike: list[tuple[str, _Node]]) -> Iterator[list[tuple[str, _Node]]]:
    if len(alike) >= FOLD_FROM:
        yield alike
    else:
        yield from ([one] for one in alike)


def _line(event: Event) -> Text:
    line = Text(event.kind, style=STYLES.get(event.kind, ""))
    if what := _what(event):
        line.append("  ").append_text(what)
    return line.append(f"  {look.clock_time(event.at)}", style="dim")


def _what(event: Event) -> Text:
    """What an event says beyond its kind, on one line."""
    try:
        text = Text(_said(payload_of(event)))
    except (KeyError, msgspec.DecodeError):  # a newer daemon's event
        text = Text(_short(msgspec.Raw(event.payload)))
    if event.by:
        text.append(f" by {event.by}" if text else f"by {event.by}")
    if event.attempt > 1:
        text.append(f" (attempt {event.attempt})")
    return text


def _said(payload: Any) -> str:
    match payload:
        case Started():
            return f"input {_short(payload.input)}"
        case StepDone():
            return _short(payload.result)
        case StepFailed() | AttemptFailed():
            unknown = "; it may have happened all the same" if payload.unknown else ""
            again = getattr(payload, "next_at", None)
            later = f"; again at {look.clock_time(again)}" if again else ""
            return f"{payload.error.type}: {_one_line(payload.error.message)}{unknown}{later}"
        case StepCancelled():
            return "never started" if payload.started == "no" else "it may have happened"
        case Marker():
            return f"{payload.error.type}: {payload.error.message}" if payload.error else _short(payload.value)
        case Signal():
            return f"{payload.name} {_short(payload.payload)}"
        case LockGranted():
            return f"fence {payload.fence}"
        case Reset():
            return f"from {payload.source}"
        case ChildEnded():
            return f"{payload.status} run {payload.run_id}"
        case CancelRequested() | PauseChanged():
            return _one_line(payload.reason)
        case Recovered():
            return f"after a restart; in flight: {', '.join(payload.paths)}"
        case CodeChanged():
            return f"now on code {payload.code_hash}"
        case Ended():
            return (
                f"{payload.status} {payload.error.type}: {payload.error.message}" if payload.error else payload.status
            )
        case _:
            return ""


def _short(value: msgspec.Raw) -> str:
    text = bytes(value).decode()
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
