"""How many files and connections a process may have open at once."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

ENOUGH: Final = 4096
"""So many a daemon should be able to have open: two doors of 512 connections, the database's, and room for plugins."""


def raise_limit() -> None:
    """Let this process have as many as the system lets it have.

    Most give 1,024 to one that does not ask, for the sake of programs that use select(2); asking is what systemd
    recommends to all others.
    """
    with suppress(OSError, ValueError):  # where the kernel's own limit is lower, or nobody may ask
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most() -> int | None:
    """How many that is; None: there is no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard
