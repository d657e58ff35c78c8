"""Sagas: which steps were reached, how they settled, and in which order they are undone (rule 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.authoring.commands import StepCall
from jivsd.records import NULL

if TYPE_CHECKING:
    from jivsd.authoring.steps import Step


UNDO: Final = "!undo"
"""What the path of a compensation has after the path of what it undoes."""


class Entry:
    """A compensable step or child that was reached. `settled` is the seq of its settlement, 0 while it is open."""

    __slots__ = ("args", "path", "reach", "result", "saga", "settled", "step", "unknown")

    def __init__(self, saga: Saga, path: str, step: Step[..., Any], args: bytes, reach: int) -> None:
        self.saga = saga
        self.path = path
        self.step = step
        self.args = args
        self.reach = reach
        self.settled = 0
        self.unknown = False
        self.result = NULL
        saga.entries[path] = self

    def done(self, seq: int, result: msgspec.Raw) -> None:
        self.settled = seq
        self.unknown = False
        self.result = result

    def failed(self, seq: int, *, unknown: bool) -> None:
        """It failed for good, or was cancelled: if it certainly did nothing, there is nothing to undo."""
        self.settled = seq
        self.unknown = unknown
        if not unknown:
            self.saga.entries.pop(self.path, None)

    def undo(self) -> StepCall:
        """The command that undoes it, with the result or None before the step's own arguments.

        When its retries are used up an incident holds the run: what is half undone is never given up.
        """
        step = self.step if self.step.on_exhausted == "incident" else self.step.options(on_exhausted="incident")
        result = NULL if self.unknown else self.result
        args: list[Any] = msgspec.json.decode(self.args, type=list[msgspec.Raw])
        call = StepCall(step, msgspec.json.encode([result, *args]), unknown=self.unknown)
        call.path = f"{self.path}{UNDO}"
        return call


class Saga:
    """A set of steps that are undone together."""

    __slots__ = ("entries", "parent")

    def __init__(self, parent: Saga | None) -> None:
        self.parent = parent
        self.entries: dict[str, Entry] = {}

    def open(self) -> bool:
        """Whether some step of it has not settled yet."""
        return any(not entry.settled for entry in self.entries.values())

    def pass_outward(self) -> None:
        """It was left normally: its steps belong to the saga around it."""
        assert self.parent is not None
        for path, entry in self.entries.items():
            entry.saga = self.parent
            self.parent.entries[path] = entry
        self.entries = {}

    def last_first(self) -> list[Entry]:
        """What there is to undo: the step that settled last comes first."""
        return sorted(self.entries.values(), key=lambda entry: (entry.settled, entry.reach), reverse=True)
