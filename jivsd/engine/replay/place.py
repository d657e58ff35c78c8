"""Where in an author's code a branch stands, for people to find."""

from __future__ import annotations

import inspect
from typing import Any, cast


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


def raised_at(error: BaseException, filename: str) -> str:
    """`file:line` in the plugin of `filename` that an exception came from, the innermost; "" if it did not pass there.

    Of a group: where the first of its members that says something came from.
    """
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if place := raised_at(member, filename):
                return place
    plugin, place = filename.partition("/")[0], ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == filename or (plugin and file.startswith(f"{plugin}/")):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
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
