"""Ctrl-C, and code of authors that raises KeyboardInterrupt by itself."""

from __future__ import annotations

import signal


def from_terminal(error: BaseException) -> bool:
    """Whether an exception is a Ctrl-C that has to end everything, and not an author's own KeyboardInterrupt.

    A daemon has a handler of its own for SIGINT, which never raises: there it is always the author's.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or getattr(handler, "__module__", "").startswith("trio.")
