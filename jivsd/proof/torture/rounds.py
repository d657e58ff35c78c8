"""A run and those in which it goes on as new: nothing falls between them, and nothing is done twice."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jivsd.proof.torture import updates
from jivsd.proof.torture.found import Found
from jivsd.proof.torture.language import Result
from jivsd.records import ENDED, Kind, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jivsd.proof.torture.evidence import Evidence, Life
    from jivsd.proof.torture.plans import Plan


class Told(NamedTuple):
    """What was acknowledged, by the run with which a chain begins: the ids of signals, the answers of updates."""

    signals: Mapping[str, Collection[str]]
    answers: Mapping[str, Mapping[str, str]]


def check(evidence: Evidence, lives: Sequence[Life], plan: Plan, told: Told, *, loose: bool) -> Iterator[Found]:
    """What holds for the runs of a chain together; `loose`: the last of them was cut short."""
    run_id = lives[0].row.run_id
    last = lives[-1].row
    known = [life.row.run_id for life in lives[1:]]
    there = [row.run_id for row in evidence.rounds(run_id)]
    if known != there:
        yield Found("unknown", "", f"it goes on in runs {there}; the journals say {known}")
    if len(lives) > len(plan.chain):
        yield Found("unknown", "", f"it goes on {len(lives) - 1} times; the model says {len(plan.chain) - 1}")
    for earlier, later in pairwise(lives):
        yield from _check_taken_along(earlier, later)
    if last.status in ENDED:
        yield from _check_signals(lives, plan, told.signals.get(run_id, ()), loose=loose)
        yield from updates.check(lives, plan, told.answers.get(run_id, {}), loose=loose)
    if last.status is Status.CONTINUED:
        yield Found("lost", "", f"run {last.run_id} goes on, and there is no such run")
    elif last.status is Status.COMPLETED:
        result = msgspec.json.decode(last.output or "null", type=Result)
        for life, its in zip(lives, plan.chain, strict=False):
            yield from _check_drawn(life, its, result)


def _check_taken_along(earlier: Life, later: Life) -> Iterator[Found]:
    """The signals that nobody had read come first, in their order."""
    unread = earlier.journal[-1].payload.get("unread", [])
    lines = later.journal[1 : len(unread) + 1]
    first = [line.payload.get("message_id") for line in lines if line.kind == Kind.SIGNAL]
    if first != unread:
        yield Found("lost", "", f"run {later.row.run_id} begins with the signals {first}; unread were {unread}")


def _check_signals(lives: Sequence[Life], plan: Plan, acknowledged: Collection[str], *, loose: bool) -> Iterator[Found]:
    """Each signal that was acknowledged was applied exactly once, or left unread by a run that was cut short."""
    applied: Counter[str] = Counter()
    for life in lives:
        applied.update(str(line.payload["message_id"]) for line in life.journal if line.kind == Kind.SIGNAL)
        if life is not lives[-1]:
            applied.subtract(life.journal[-1].payload.get("unread", []))
    for message_id, count in applied.items():
        if count > 1:
            yield Found("twice", "", f"signal {message_id} was applied {count} times")
    for message_id in acknowledged:
        if applied[message_id] < 1 and message_id not in lives[-1].left:
            yield Found("lost", "", f"signal {message_id} was acknowledged, and never applied")
    expected = len(plan.sends) + plan.heard
    if not loose and sum(applied.values()) != expected:
        yield Found("model", "", f"{sum(applied.values())} signals were applied; the model says {expected}")


def _check_drawn(life: Life, plan: Plan, result: Result) -> Iterator[Found]:
    """What was drawn is what the step was told, and of a version the newest."""
    told = {call.path: call.detail for call in life.calls}
    for fate in plan.drawn:
        value = result.drawn.get(fate.name)
        if value != told.get(fate.path):
            yield Found("replay", fate.path, f"the run drew {value!r}, and its step was told {told.get(fate.path)!r}")
        if fate.what == "version" and value != "2":
            yield Found("replay", fate.path, f"a new run got version {value!r}")
