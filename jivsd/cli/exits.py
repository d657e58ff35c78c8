"""What the exit codes mean, and which error ends a command with which of them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    CONFLICT = 5
    INVALID = 6
    UNAVAILABLE = 7
    FORBIDDEN = 8
    BUG = 70
    INTERRUPTED = 130


MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "done",
    Exit.FAILED: "the run did not complete, a check found faults, the daemon cannot run",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_RUNNING: "no daemon answers in that data folder",
    Exit.NOT_FOUND: "no such run, workflow, query, incident or file",
    Exit.CONFLICT: "it does not fit the state that things are in",
    Exit.INVALID: "an input or the configuration is not valid",
    Exit.UNAVAILABLE: "not now: the store is away, or the daemon is full or stopping",
    Exit.FORBIDDEN: "not allowed",
    Exit.BUG: "a bug in jivsd",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}
"""The table that `jivsd --help` shows."""

_BY_HTTP_STATUS: Final = {
    400: Exit.INVALID,
    401: Exit.FORBIDDEN,
    403: Exit.FORBIDDEN,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    410: Exit.CONFLICT,
    413: Exit.INVALID,
    422: Exit.INVALID,
    429: Exit.UNAVAILABLE,
    503: Exit.UNAVAILABLE,
}


def exit_for(http_status: int) -> Exit:
    """The exit code for a daemon's refusal."""
    return _BY_HTTP_STATUS.get(http_status, Exit.BUG)


class CommandError(Exception):
    """A command cannot do what was asked: one sentence for people, a code for programs, a way out if there is one."""

    def __init__(
        self, exit_code: Exit, code: str, message: str, *, hint: str | None = None, data: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.message = message
        self.hint = hint
        self.data = data or {}

    def document(self) -> dict[str, Any]:
        """The error as programs get it, on stderr."""
        hint = {"hint": self.hint} if self.hint else {}
        return {"error": {**self.data, "code": self.code, "message": self.message, **hint}}
