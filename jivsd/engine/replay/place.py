"""Where in an author's code a branch stands, for people to find."""

from __future__ import annotations

import inspect
from typing import Any


def place_of(body: Any, filename: str) -> str:
    """`file:line` of the innermost frame that is in `filename`, else of the outermost; "" once the body has ended."""
    if _attribute(body, "cr_running", "gi_running"):
        return _place_on_stack(filename)
    place = ""
    while body is not None:
        frame = _attribute(body, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None and (frame.f_code.co_filename == filename or not place):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        body = _attribute(body, "cr_await", "gi_yieldfrom", "ag_await")
    return place


def _place_on_stack(filename: str) -> str:
    """For a body that is running: what it awaits cannot be seen from outside, but it is on the stack."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back
    return f"{filename}:{frame.f_lineno}" if frame is not None else ""


def _attribute(thing: Any, *names: str) -> Any:
    for name in names:
        if (found := getattr(thing, name, None)) is not None:
            return found
    return None
