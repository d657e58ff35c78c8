"""Where in an author's code a suspended branch stands, for people to find."""

from __future__ import annotations

from typing import Any


def place_of(body: Any, filename: str) -> str:
    """`file:line` of the innermost frame that is in `filename`, else of the outermost; "" once the body has ended."""
    place = ""
    while body is not None:
        frame = _attribute(body, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None and (frame.f_code.co_filename == filename or not place):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        body = _attribute(body, "cr_await", "gi_yieldfrom", "ag_await")
    return place


def _attribute(thing: Any, *names: str) -> Any:
    for name in names:
        if (found := getattr(thing, name, None)) is not None:
            return found
    return None
