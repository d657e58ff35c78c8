"""Requests that wait for something, and the end of their waiting when the server is to stop."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Generator


class Patience:
    """Holds the waits of one server; after `end` they are over, and so are later ones at once."""

    def __init__(self) -> None:
        self._waits: set[trio.CancelScope] = set()
        self._over = False

    @contextmanager
    def wait(self) -> Generator[None]:
        """Let the block wait; when the server is to stop, it is left in the middle, as by `trio.move_on_after`."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            if self._over:
                scope.cancel()
            try:
                yield
            finally:
                self._waits.discard(scope)

    def end(self) -> None:
        """End all waits."""
        self._over = True
        for scope in self._waits:
            scope.cancel()
