"""How soon work goes on, once what was broken has been mended."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Generator


class Recovery:
    """Measures from the moment at which nothing is broken any more to the next thing that is acknowledged.

    What comes in between breaks it off: then it counts from when that is mended, and for both.
    """

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        """The longest time that it took, in seconds, by what was broken."""
        self._broken: Counter[str] = Counter()
        self._kinds: set[str] = set()
        self._since: float | None = None
        self._calm = trio.Event()
        self._calm.set()

    def broke(self, kind: str) -> None:
        """Something is broken, until it is said to be mended."""
        self._broken[kind] += 1
        self._kinds.add(kind)
        self._since = None
        if self._calm.is_set():
            self._calm = trio.Event()

    def mended(self, kind: str) -> None:
        """It is whole again."""
        self._broken[kind] -= 1
        if not self._broken.total():
            self._since = trio.current_time()

    @contextmanager
    def breaking(self, kind: str) -> Generator[None]:
        """Something is broken inside."""
        self.broke(kind)
        try:
            yield
        finally:
            self.mended(kind)

    def progress(self) -> None:
        """Something was acknowledged."""
        if self._since is None:
            return
        seconds = round(trio.current_time() - self._since, 3)
        for kind in self._kinds:
            self.worst[kind] = max(seconds, self.worst.get(kind, 0.0))
        self._kinds.clear()
        self._since = None
        self._calm.set()

    async def calm(self) -> None:
        """Return when something was acknowledged since everything is whole."""
        await self._calm.wait()
