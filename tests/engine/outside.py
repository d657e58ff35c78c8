"""A gate at which threads wait until a test opens it."""

from __future__ import annotations

import threading

import trio


class Gate:
    """Counts who is inside, how many there were at most, and who has passed."""

    now: Gate

    def __init__(self) -> None:
        self.inside = self.most = self.passed = self.undone = 0
        self.noted = -1
        self._opened = threading.Event()
        self._count = threading.Lock()

    @classmethod
    def fresh(cls) -> None:
        cls.now = cls()

    def open(self) -> None:
        self._opened.set()

    def pass_through(self) -> None:
        with self._count:
            self.inside += 1
            self.most = max(self.most, self.inside)
        if not self._opened.wait(30):
            raise TimeoutError("nobody opened the gate")
        with self._count:
            self.inside -= 1
            self.passed += 1

    def note(self, number: int) -> None:
        """A step has come so far."""
        self.noted = number

    async def until_noted(self) -> None:
        with trio.fail_after(10):
            while self.noted < 0:  # noqa: ASYNC110 -- it is threads that are waited for
                await trio.sleep(0.005)

    async def until_inside(self, count: int) -> None:
        with trio.fail_after(10):
            while self.inside < count:  # noqa: ASYNC110 -- it is threads that are waited for
                await trio.sleep(0.005)


def gate() -> Gate:
    return Gate.now
