"""What a check finds."""

from __future__ import annotations

import msgspec


class Found(msgspec.Struct, frozen=True):
    """Something that is wrong with a run. `kind` is for programs: "lost", "twice", "after record" and so on."""

    kind: str
    path: str
    message: str


class Violation(msgspec.Struct, frozen=True):
    """Something that must not be; `run_id` is empty if it is no run's."""

    kind: str
    run_id: str
    path: str
    message: str
