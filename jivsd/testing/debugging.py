"""A debugger in a replay: stops where the code asks for something, or at the end, with the code's own frames."""

from __future__ import annotations

import pdb
import sys
from typing import TYPE_CHECKING, Any, Final

from jivsd.testing.history import Observer

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from jivsd.authoring.commands import Command
    from jivsd.engine.replay import Machine

MACHINERY: Final = ("jivsd.*", "trio.*", "contextlib")
"""Modules that stepping goes over: only the plugin's code is of interest."""


class Debugger(Observer):
    """Opens pdb where the command at `path` is issued; at the end of the replay when `path` is None or not reached.

    The end is where the code has returned or raised, or where it waits.
    """

    def __init__(self, path: str | None, *, pdb_class: type[pdb.Pdb] = pdb.Pdb) -> None:
        self._path = path
        self._pdb = pdb_class(skip=MACHINERY)
        self._stopped = False
        self._main: FrameType | None = None
        """The frame of the workflow's own function, kept: its variables outlive its end."""

    @property
    def quit(self) -> bool:
        """Whether the person has had enough: what comes of the replay then means nothing."""
        return self._pdb.quitting

    def issuing(self, machine: Machine, command: Command) -> None:
        here = sys._getframe()  # pyright: ignore[reportPrivateUsage] -- there is no public way to the stack's frames
        self._main = self._main or _of(here, machine.workflow.function.__code__)
        if command.path != self._path or self._stopped:
            return
        self._stopped = True
        frame = _authors(here, machine)
        self._say(f"{command.kind} {command.path} is issued, at event {machine.seq}")
        if frame is not None:
            self._stop(frame)
        elif self._main is not None:  # a step that a nursery runs has no code of the author's around it
            self._show(self._main)

    def at_the_end(self, machine: Machine) -> None:
        if self._stopped:
            return
        if self._path is not None:
            self._say(f"{self._path} is never reached; this is the end")
        frame = _waiting(machine) or self._main
        if frame is None:
            self._say("the code has issued nothing: there is nowhere to stop")
            return
        self._say(f"the end of the replay, after event {machine.seq}")
        self._show(frame)

    def _show(self, frame: FrameType) -> None:
        """Open the prompt in a frame that does not run just now."""
        self._pdb.reset()
        self._pdb.interaction(frame, None)

    def _stop(self, frame: FrameType) -> None:
        """Open the prompt in a frame that is running, so that stepping goes on from there."""
        self._pdb.reset()
        outer: FrameType | None = frame
        while outer is not None:
            outer.f_trace = self._pdb.trace_dispatch
            self._pdb.botframe = outer
            outer = outer.f_back
        self._pdb.interaction(frame, None)
        goes_on = self._pdb.stoplineno == -1 and not self._pdb.breaks
        if not (goes_on or self._pdb.quitting):
            sys.settrace(self._pdb.trace_dispatch)

    def _say(self, line: str) -> None:
        self._pdb.stdout.write(f"{line}\n")


def _of(frame: FrameType | None, code: CodeType) -> FrameType | None:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def _authors(frame: FrameType | None, machine: Machine) -> FrameType | None:
    """The innermost running frame of the plugin's own code."""
    while frame is not None and not _is_authors(frame, machine):
        frame = frame.f_back
    return frame


def _waiting(machine: Machine) -> FrameType | None:
    """The innermost frame of the plugin's own code at which the run's first branch waits."""
    found: FrameType | None = None
    entries = [*machine.open.values(), *(entry for waiting in machine.listeners.values() for entry in waiting)]
    branches = [*(entry.branch for entry in entries if entry.branch is not None), *machine.predicates]
    body: Any = min(branches, key=lambda branch: branch.serial).body if branches else None
    while body is not None:
        frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None)
        if frame is not None and _is_authors(frame, machine):
            found = frame
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
    return found


def _is_authors(frame: FrameType, machine: Machine) -> bool:
    own = str(machine.workflow.namespace["__name__"]).split(".")
    module = str(frame.f_globals.get("__name__", "")).split(".")
    return module[:2] == own[:2]
