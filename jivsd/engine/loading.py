"""Loading: what many want to know of their runs at the same time is read together, as events are written together.

While some of it is being read, the questions that come meanwhile collect; nothing waits for others to come.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from jivsd.trap import Trap, park, wake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from jivsd.store.api import StoreError

T = TypeVar("T")

MOST: Final = 1000
"""How many questions are read together unless the engine says otherwise."""


class Loader(Generic[T]):
    """Reads something of runs, by their ids, in the order in which it is asked."""

    def __init__(
        self, read: Callable[[Sequence[str]], Awaitable[Sequence[T | StoreError | None]]], most: int = MOST
    ) -> None:
        """`read` answers in the order of the ids, of which it gets so many at once."""
        self._read = read
        self._most = most
        self._asked: deque[Question[T]] = deque()
        self._reading: list[Question[T]] = []
        self._work = trio.Event()
        self._taken = trio.Event()
        self._running = False

    def ask(self, run_id: str) -> Question[T]:
        """Ask, without waiting for the answer yet."""
        question = Question(self, run_id)
        if self._running:
            self._asked.append(question)
            self._work.set()
        else:
            question.leave()
        return question

    async def load(self, run_id: str) -> T | None:
        """What is to be known of a run; None if there is no such run.

        Raises:
            StoreAway: it cannot be read now. StoreError: something of it is damaged.
        """
        return await self.ask(run_id).answer()

    async def room(self) -> None:
        """Return when fewer wait to be read than are read at once: who asks for many more waits for this."""
        await trio.lowlevel.checkpoint()
        while self._running and len(self._asked) >= self._most:
            await self._taken.wait()

    async def run(self) -> None:
        """Answer until cancelled; then everybody reads for himself."""
        self._running = True
        try:
            while True:
                await self._work.wait()
                while self._asked:
                    self._reading = [self._asked.popleft() for _ in range(min(self._most, len(self._asked)))]
                    self._taken.set()
                    self._taken = trio.Event()
                    await self.read(self._reading)
                self._work = trio.Event()
        finally:
            self._running = False
            self._taken.set()
            left, self._reading = [*self._reading, *self._asked], []
            self._asked.clear()
            for question in left:
                question.leave()

    async def read(self, asked: Iterable[Question[T]]) -> None:
        """Answer questions now."""
        asked = list(asked)
        try:
            found = await self._read([question.run_id for question in asked])
        except Exception as error:  # each of those who asked decides what to do about it
            found = [error] * len(asked)
        for question, answer in zip(asked, found, strict=True):
            question.settle(answer)


class Question(Generic[T]):
    """What one task wants to know of a run."""

    __slots__ = ("_answer", "_loader", "_settled", "_task", "_waits", "run_id")

    def __init__(self, loader: Loader[T], run_id: str) -> None:
        self.run_id = run_id
        self._loader = loader
        self._answer: T | Exception | None = None
        self._settled = False
        self._waits = True
        """Whether the loader has it and will answer."""
        self._task: trio.lowlevel.Task | None = None

    async def answer(self) -> T | None:
        """See `Loader.load`. For one task."""
        if self._waits:
            self._task = trio.lowlevel.current_task()
            await park(Trap(self._abort))
        if not self._settled:
            await self._loader.read([self])
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def settle(self, answer: T | Exception | None) -> None:
        """This is the answer."""
        self._answer = answer
        self._settled = True
        self.leave()

    def leave(self) -> None:
        """Nobody else will look for an answer any more."""
        self._waits = False
        if self._task is not None:
            wake(self._task)
            self._task = None

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
