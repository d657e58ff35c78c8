"""Blame: whose code a thread is in, read from its stack. It costs nothing until somebody asks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.authoring.steps import StepContext
from jivsd.engine.actor import Actor
from jivsd.engine.replay import Machine
from jivsd.records import Event
from jivsd.registry.loading import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_OURS: Final = str(Path(__file__).parents[1])


class Blame(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose code it is, as far as the stack says; `where` is "file:line in function"."""

    run_id: str = ""
    path: str = ""
    where: str = ""


def blame(frame: FrameType | None) -> Blame:
    """Whose code a frame is part of: the run that is driven, or whose step runs, and the author's line in it."""
    stack = list(_outward(frame))
    run_id, path = next((found for one in stack if (found := _run_of(one)) is not None), ("", ""))
    place = next((one for one in stack if _is_plugin(one)), None) or next(
        (one for one in stack if _is_foreign(one)), None
    )
    where = "" if place is None else f"{place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_name}"
    return Blame(run_id, path, where)


def at_fault(actors: Iterable[Actor], codes: set[object]) -> Blame | None:
    """Whose plain step has its function among these code objects, if that is only one."""
    found = [
        Blame(actor.run.run_id, path)
        for actor in actors
        for path, attempt in actor.attempts.items()
        if attempt.code in codes
    ]
    return found[0] if len(found) == 1 else None


def codes(frame: FrameType | None) -> set[object]:
    """The code objects that a frame is part of."""
    return {one.f_code for one in _outward(frame)}


def frame_of(thread: int | None) -> FrameType | None:
    """The frame that a thread is in now."""
    return None if thread is None else sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage] -- documented, for debugging


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _run_of(frame: FrameType) -> tuple[str, str] | None:
    """The run and the path that a frame's variables speak of."""
    found: tuple[str, str] | None = None
    for value in list(frame.f_locals.values()):
        match value:
            case Machine():
                return value.run_id, value.driven
            case Actor():
                found = value.run.run_id, found[1] if found else ""
            case StepContext():
                return value.run_id, value.path
            case Event() if frame.f_code.co_filename.startswith(_OURS):
                found = found or (value.run_id, value.path)
            case _:
                pass
    if found is not None and (attempt := frame.f_locals.get("attempt")) is not None:
        return found[0], attempt.entry.path
    return found


def _is_plugin(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(f"{ROOT}.")


def _is_foreign(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return not file.startswith((_OURS, sys.prefix, sys.base_prefix, "<"))
