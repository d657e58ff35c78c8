"""What had to be undone was, once, last things first; and nothing else was (DESIGN.md section 4, rule 11)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.proof.torture.found import Found
from jivsd.records import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.evidence import Life, Line
    from jivsd.proof.torture.plans import Fate

UNDO: Final = "!undo"
UNKNOWN: Final = "unknown"
"""How the world notes that a compensation was told that nobody knows whether its step happened."""


def check_undo(life: Life, fate: Fate, *, loose: bool) -> Iterator[Found]:
    """Whether the compensation of a fate ran, exactly when it had to, and with what it had to."""
    path = fate.path + UNDO
    outcome = life.outcome(fate.path)
    told = _told(life, fate, outcome) if fate.undo and (fate.undone or loose) else None
    undone = life.outcome(path)
    calls = [call for call in life.calls if call.path == path]
    if told is None:
        if undone is not None or calls:
            yield Found("undone", path, "it was undone; the model says that there is nothing to undo")
        return
    if undone is None and loose and life.row.status is Status.TERMINATED:
        return
    if undone is None or undone.kind != Kind.STEP_DONE:
        record = outcome.kind if outcome is not None else "nothing"
        yield Found("not undone", path, f"{record} is recorded for it, its saga was left, and it was not undone")
        return
    for call in calls:
        if call.detail != told:
            yield Found("undone", path, f"it was undone with {call.detail}; its record says {told}")
        if outcome is not None and call.at < outcome.at:
            yield Found("undone", path, "undoing it began before it had settled")
    if not calls and fate.matter != "ledger":
        yield Found("never done", path, "its success is recorded, and it was never carried out")


def _told(life: Life, fate: Fate, outcome: Line | None) -> str | None:
    """What the compensation has to be told; None if there is nothing to undo."""
    if outcome is None:
        return None
    payload = outcome.payload
    match outcome.kind:
        case Kind.STEP_DONE:
            return _json(payload["result"])
        case Kind.CHILD_ENDED:
            return _json(payload["output"]["counter"]) if payload["status"] == Status.COMPLETED else None
        case Kind.STEP_FAILED:
            unknown = payload.get("unknown", False)
        case _:
            unknown = payload["started"] != "no"
    return UNKNOWN if unknown or _tainted(life, fate.path) else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _tainted(life: Life, path: str) -> bool:
    """Whether an attempt's outcome is unknown: the process died in it, or its time was up."""
    return any(
        (line.kind == Kind.RECOVERED and path in line.payload["paths"])
        or (line.kind == Kind.ATTEMPT_FAILED and line.path == path and line.payload.get("unknown", False))
        for line in life.journal
    )


def check_order(life: Life, group: list[Fate]) -> Iterator[Found]:
    """What settled last was undone first."""
    pairs: list[tuple[int, int, str]] = []
    for fate in group:
        settled, undone = life.outcome(fate.path), life.outcome(fate.path + UNDO)
        if settled is not None and undone is not None:
            pairs.append((undone.seq, -settled.seq, fate.path))
    pairs.sort()
    for (_, earlier, _), (_, later, path) in pairwise(pairs):
        if later < earlier:
            yield Found("order", path + UNDO, "it was undone before something that had settled later")
