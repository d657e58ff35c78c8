"""Loading: what is recorded of the runs that come back is read together, as their events are written together.

While some are being read, those that come meanwhile collect; nothing waits for others to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import outcome
import trio

if TYPE_CHECKING:
    from jivsd.store.api import Recorded, Store


class Loader:
    """Reads journals. Callers bound how many ask at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[_Question] = []
        self._work = trio.Event()

    async def load(self, run_id: str) -> Recorded | None:
        """What is recorded of a run; None if there is no such run.

        Raises:
            StoreAway: it cannot be read now. StoreError: something of it is damaged.
        """
        question = _Question(run_id)
        self._asked.append(question)
        self._work.set()
        await question.answered.wait()
        assert question.answer is not None
        return question.answer.unwrap()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            asked, self._asked = self._asked, []
            try:
                found = await self._store.recorded([question.run_id for question in asked])
            except Exception as error:  # each of those who asked decides what to do about it
                found = [error] * len(asked)
            for question, answer in zip(asked, found, strict=True):
                question.settle(answer)


class _Question:
    __slots__ = ("answer", "answered", "run_id")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.answer: outcome.Outcome[Recorded | None] | None = None
        self.answered = trio.Event()

    def settle(self, answer: Recorded | Exception | None) -> None:
        self.answer = outcome.Error(answer) if isinstance(answer, Exception) else outcome.Value(answer)
        self.answered.set()
