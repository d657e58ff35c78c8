"""What a run has said to the outside is there exactly once: events, attributes, runs let go, signals to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jivsd import attributes
from jivsd.authoring.commands import ATTRIBUTES
from jivsd.proof.torture.found import Found
from jivsd.proof.torture.language import WORKFLOW
from jivsd.records import Kind, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.evidence import Life
    from jivsd.proof.torture.plans import Plan


def check_always(life: Life) -> Iterator[Found]:
    """What must hold at every moment: the database has what the journal says."""
    has: dict[str, Any] = {}
    for line in life.journal:
        if line.kind == Kind.STARTED:
            has = line.payload["options"].get("attributes", {})
        elif line.kind == Kind.MARKER and _last(line.path).startswith(ATTRIBUTES):
            has = attributes.merged(has, line.payload["value"])
    if life.row.attributes != has:
        yield Found("attributes", "", f"its attributes are {life.row.attributes}; its journal says {has}")
    listed = {name: attributes.text(value) for name, value in has.items()}
    if life.listed != listed:
        yield Found("attributes", "", f"it is listed by {life.listed}; its journal says {listed}")
    recorded = [line.path for line in life.journal if line.kind == Kind.MARKER and _name(line.path) == "emit"]
    outbox = [event.path for event in life.published]
    if outbox != recorded:
        yield Found("outbox", "", f"the outbox has, in this order, {outbox}; its journal says {recorded}")


def check_ended(life: Life, plan: Plan, *, loose: bool) -> Iterator[Found]:
    """What must hold at the end: what the model says is there, and nothing else."""
    recorded = {line.path: line for line in life.journal if line.kind == Kind.MARKER}
    said = {event.path: [event.topic, event.payload] for event in life.published}
    for path, line in recorded.items():
        outward = _name(path) in ("emit", "signal", WORKFLOW) or _last(path).startswith(ATTRIBUTES)
        if outward and path not in plan.marks:
            yield Found("unknown", path, f"{line.kind} is recorded; the model says that it is never reached")
    for mark in plan.marks.values():
        line = recorded.get(mark.path)
        if line is None:
            if mark.sure and not loose:
                yield Found("lost", mark.path, "it is not recorded; the model says that it is reached")
            continue
        value = said.get(mark.path) if mark.what == "publish" else line.payload.get("value")
        expected = derived_id(life.row.run_id, mark.path) if mark.what == "launch" else mark.value
        if value != expected:
            yield Found("model", mark.path, f"{value} stands there; the model says {expected}")
        if mark.what == "signal" and "error" not in line.payload:
            yield from _check_sent(life, mark.path)
        elif "error" in line.payload and mark.what == "launch":
            yield Found("model", mark.path, f"{line.payload['error']} stands there; the model says that it is started")


def _check_sent(life: Life, path: str) -> Iterator[Found]:
    """A signal that has gone out is there."""
    message_id = derived_id(life.row.run_id, path)
    if message_id not in life.sent:
        yield Found("lost", path, f"it was sent, and no run has got signal {message_id}")


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _name(path: str) -> str:
    """The last part of a path without its count."""
    return _last(path).partition("#")[0]
