"""Loading: what many want to know of their runs at the same time is read together, as events are written together.

While some of it is being read, the questions that come meanwhile collect; nothing waits for others to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jivsd.store.api import StoreError

T = TypeVar("T")


class Loader(Generic[T]):
    """Reads something of runs, by their ids. Callers bound how many ask at once."""

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Sequence[T | StoreError | None]]]) -> None:
        """`read` answers in the order of the ids."""
        self._read = read
        self._asked: list[_Question[T]] = []
        self._work = trio.Event()
        self._running = False

    async def load(self, run_id: str) -> T | None:
        """What is to be known of a run; None if there is no such run.

        Raises:
            StoreAway: it cannot be read now. StoreError: something of it is damaged.
        """
        question = _Question[T](run_id)
        if self._running:
            self._asked.append(question)
            self._work.set()
            await question.settled.wait()
        if question.answer is None:
            await self._answer([question])
        assert question.answer is not None
        return question.answer.unwrap()

    async def run(self) -> None:
        """Answer until cancelled; then everybody reads for himself."""
        self._running = True
        asked: list[_Question[T]] = []
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                asked, self._asked = self._asked, []
                await self._answer(asked)
        finally:
            self._running = False
            asked, self._asked = [*asked, *self._asked], []
            for question in asked:
                question.settled.set()

    async def _answer(self, asked: Sequence[_Question[T]]) -> None:
        try:
            found = await self._read([question.run_id for question in asked])
        except Exception as error:  # each of those who asked decides what to do about it
            found = [error] * len(asked)
        for question, answer in zip(asked, found, strict=True):
            question.settle(answer)


class _Question(Generic[T]):
    __slots__ = ("answer", "run_id", "settled")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.answer: outcome.Outcome[T | None] | None = None
        self.settled = trio.Event()
        """Set when there is an answer, or nobody else will read it."""

    def settle(self, answer: T | Exception | None) -> None:
        self.answer = outcome.Error(answer) if isinstance(answer, Exception) else outcome.Value(answer)
        self.settled.set()
