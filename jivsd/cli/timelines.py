"""How a timeline looks: as a tree of the run's branches and steps, or event by event."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
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
    Update,
    UpdateDone,
    payload_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jivsd.cli.output import Page
    from jivsd.records import ErrorRecord

FOLD_STEPS: Final = 6
"""So many repetitions of one step, all done, are drawn as one line."""
FOLD_BRANCHES: Final = 20
"""So many branches of one nursery with all that is below them, all done, are drawn as one line."""

PLAIN: Final = frozenset({Kind.STEP_DONE, Kind.TIMER_FIRED, Kind.MARKER})
"""Events that mean that something went as it should."""

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

    part: str
    events: list[Event] = field(default_factory=list[Event])
    below: dict[str, _Node] = field(default_factory=dict[str, "_Node"])

    @property
    def base(self) -> str:
        """What repetitions have in common: `copy` of `copy#2`, `tables` of `tables[orders]`."""
        return re.split(r"[\[#]", self.part, maxsplit=1)[0]

    def went_well(self) -> bool:
        """Whether it has nothing that needs a look of its own."""
        return all(event.kind in PLAIN for event in self.events) and all(
            node.went_well() for node in self.below.values()
        )

    def times(self) -> Iterator[int]:
        """When its events happened, and those below it."""
        yield from (event.at for event in self.events)
        for node in self.below.values():
            yield from node.times()


def flat(run: Run, events: Sequence[Event]) -> Page:
    """A table of the events in their order."""
    table = look.table("SEQ", "AT", "EVENT", "PATH", "WHAT", wraps=("PATH", "WHAT"), numbers=("SEQ",))
    for event in events:
        kind = Text(event.kind, style=STYLES.get(event.kind, ""))
        table.add_row(str(event.seq), look.clock_time(event.at), kind, event.path, _what(event))
    return [look.head(run), table]


def tree(run: Run, events: Sequence[Event]) -> Page:
    """A tree by path. Events of the run itself (signals, pauses, its start and end) stand where they came."""
    root = _Node("")
    for event in events:
        node = root
        for part in event.path.split("/") if event.path else (f"\0{event.seq}",):
            node = node.below.setdefault(part, _Node(part))
        node.events.append(event)
    drawn = Tree(look.head(run), guide_style="dim")
    _draw(drawn, root)
    return [drawn]


def _draw(tree: Tree, node: _Node) -> None:
    for nodes in _folded(node.below.values()):
        first = nodes[0]
        if len(nodes) > 1:
            tree.add(_summary(nodes))
            continue
        label = Text() if first.part.startswith("\0") else Text(first.part, style="bold")
        for place, event in enumerate(first.events):
            label.append("\n" if place else "  " if label else "").append_text(_line(event))
        _draw(tree.add(label), first)


def _folded(nodes: Iterable[_Node]) -> Iterator[list[_Node]]:
    """The nodes one by one, but many in sequence that repeat each other and went well together."""
    for well, sequence in groupby(nodes, key=_Node.went_well):
        if not well:
            yield from ([node] for node in sequence)
            continue
        alike: dict[str, list[_Node]] = {}
        for node in sequence:
            alike.setdefault(node.base, []).append(node)
        for group in alike.values():
            many = FOLD_BRANCHES if group[0].below else FOLD_STEPS
            yield from [group] if len(group) >= many else ([node] for node in group)


def _summary(nodes: Sequence[_Node]) -> Text:
    times = [at for node in nodes for at in node.times()]
    line = Text.assemble((nodes[0].part, "bold"), " … ", (nodes[-1].part, "bold"), f"  {len(nodes):,} times ")
    span = f"  {look.clock_time(min(times))} to {look.clock_time(max(times))}"
    return line.append("done", style="green").append(span, style="dim")


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
            return f"{_error(payload.error)}{unknown}{later}"
        case StepCancelled():
            return "never started" if payload.started == "no" else "it may have happened"
        case Marker():
            return _error(payload.error) if payload.error else _short(payload.value)
        case UpdateDone():
            return _error(payload.error) if payload.error else _short(payload.result)
        case Signal() | Update():
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
            place = f" ({payload.raised_at})" if payload.raised_at else ""
            return f"{payload.status} {_error(payload.error)}{place}" if payload.error else payload.status
        case _:
            return ""


def _short(value: msgspec.Raw) -> str:
    text = bytes(value).decode()
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"


def _error(error: ErrorRecord) -> str:
    return f"{error.type}: {_one_line(error.message)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
