"""Crashing a scenario after every append of its journal, and comparing what comes of it.

Whatever the instant at which a daemon dies, its runs end as if it had not. A crash here is as hard as kill -9 for the
journal: what was committed stays, nobody hears of it, nothing else is written. A new engine goes on from there.
"""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio
import trio.testing

from jivsd.engine.api import Conflict, Unavailable
from jivsd.records import SHARDS, derived_id
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing.env import Env, Plugin, run
from jivsd.testing.outcomes import Outcomes, outcomes_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jivsd.clock import Duration
    from jivsd.engine.engine import Engine
    from jivsd.store.api import Entry, More, Post, Verdict
    from jivsd.store.txstep import Transactions

T = TypeVar("T")

FIRST_ID: Final = "019b76da-a800-7000-8000-000000000000"
"""What the ids of a scenario's runs and messages derive from, so that they are the same each time."""


class Crash(BaseException):
    """The process is dead: no code in it may catch that."""


def crash_everywhere(
    plugins: Sequence[Plugin],
    scenario: Callable[[Env], Awaitable[object]],
    *,
    again: Sequence[int] = (),
    normal: Callable[[str], str] = str,
    passivate_after: Duration | None = None,
) -> int:
    """Run a scenario, then again with a crash at each append, and see that the outcomes are the same.

    They must also be when every run leaves memory whenever it can, which is tried once without a crash.

    Each append is crashed at twice: right before it is committed, when all that led to it has happened already (the
    step has been executed, its outcome is lost), and right behind, before anything comes of it.

    Args:
        plugins: the modules or paths of the plugins that it needs.
        scenario: what a test does with an `Env`: start runs, send signals, wait for results. What it tells the engine
            it tells again when the answer got lost in the crash, as a client would. It makes everything that its
            steps work on anew, each time that it is called; the outcomes must not depend on the order of things that
            happen at one instant.
        again: crash again so many appends after the crash before.
        normal: takes out of a recorded text (JSON) what is another each time anyway: free disk space, say.
        passivate_after: how long runs wait in memory in all plays; 0: the harshest, with many more appends.

    Returns:
        How many appends there are.

    Raises:
        AssertionError: after some crash a run ended otherwise, or something was recorded twice. A step in which the
            process died is in doubt: if it then fails for good, its compensation runs, which it would not otherwise.
    """

    def play(deaths: Sequence[tuple[int, str]], after: Duration | None) -> tuple[Outcomes, int]:
        return run(lambda: _play(plugins, scenario, deaths, ended, normal, after))

    def compare(deaths: Sequence[tuple[int, str]], after: Duration | None, when: str) -> None:
        try:
            differences = expected.differences(play(deaths, after)[0])
        except AssertionError as error:
            differences = [str(error)]
        if differences:
            listed = "\n".join(f"- {difference}" for difference in differences)
            raise AssertionError(f"{when}:\n{listed}")

    ended: list[str] = []
    expected, appends = play([], passivate_after)
    ended += (run_id for run_id, outcome in expected.runs.items() if outcome.ended)
    compare([], 0, "when every run leaves memory whenever it can")
    for append, where in product(range(1, appends + 1), ("before", "behind")):
        deaths = [(append, where), *((later, "behind") for later in again)]
        compare(deaths, passivate_after, f"after a crash right {where} append {append} of {appends}")
    return appends


async def _play(
    plugins: Sequence[Plugin],
    scenario: Callable[[Env], Awaitable[object]],
    deaths: Sequence[tuple[int, str]],
    ended: Sequence[str],
    normal: Callable[[str], str],
    passivate_after: Duration | None,
) -> tuple[Outcomes, int]:
    """Play a scenario, and wait until the runs that should end have; what came of it, and how many appends it took."""
    async with CrashEnv(plugins, deaths, passivate_after) as env:
        await scenario(env)
        for run_id in ended:
            await env.ended(run_id)
        await trio.testing.wait_all_tasks_blocked()
        return await outcomes_of(env.store, normal), env.spare()


class _MortalStore(SqliteStore):
    """A store in memory that kills who uses it at some appends, each counted from the death before.

    "before": the append is lost; "behind": it is there, but nobody is told.
    """

    def __init__(self, deaths: Sequence[tuple[int, str]]) -> None:
        super().__init__(":memory:", threaded=False)
        self.appends = 0
        self._deaths = list(deaths)

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        last, where = self._deaths[0] if self._deaths else (0, "")
        if not 0 < last <= len(batch):
            self.appends += len(batch)
            self._deaths[:1] = [(last - len(batch), where)][: len(self._deaths)]
            return await super().commit(batch)
        del self._deaths[0]
        await super().commit(batch[: last if where == "behind" else last - 1])
        steps: Transactions | None = self.transactions
        if steps is not None:
            await steps.abandon_all()
        raise Crash

    def spare(self) -> int:
        """Kill no more; return how many appends there were."""
        self._deaths.clear()
        return self.appends


class CrashEnv(Env):
    """An `Env` whose engine dies at the given appends, each counted from the death before."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        deaths: Sequence[tuple[int, str]],
        passivate_after: Duration | None = None,
    ) -> None:
        self._mortal = _MortalStore(deaths)
        super().__init__(*plugins, store=self._mortal, passivate_after=passivate_after)
        self._said: Counter[str] = Counter()
        self._asking: set[trio.CancelScope] = set()

    def spare(self) -> int:
        """Crash no more; return how many appends there were."""
        return self._mortal.spare()

    async def _serve(self, epoch: int, task_status: trio.TaskStatus[None]) -> None:
        status: Any = task_status
        while True:
            self.engine = self.make_engine(epoch)
            self.engine.ids = _call.get
            try:
                await self.engine.run(task_status=status)
            except BaseException as error:
                if not _is_crash(error):
                    raise
            else:
                return
            status = trio.TASK_STATUS_IGNORED
            epoch = max((await self._mortal.raise_epoch("test", dict.fromkeys(range(SHARDS), epoch))).values())
            for scope in self._asking:
                scope.cancel()

    async def ask(self, what: str, question: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask, and ask the next engine again if this one dies before it has answered."""
        call = self._next(what)
        while True:
            if await self.store.run(call) is not None:
                return cast("T", call)  # a start that was accepted; its answer, the run id, got lost
            with trio.CancelScope() as scope:
                return await self._during(scope, call, question)

    async def tell(self, what: str, order: Callable[[Engine], Awaitable[object]]) -> None:
        """Tell, and tell the next engine again if this one dies before it has answered."""
        call = self._next(what)
        repeated = False
        while True:
            with trio.CancelScope() as scope:
                try:
                    await self._during(scope, call, order)
                except Unavailable as error:
                    await trio.sleep(error.retry_after)
                    continue
                except Conflict:
                    if not repeated:
                        raise
                return
            repeated = True

    def _next(self, what: str) -> str:
        """The id of a run that is started or a message that is sent by what is said now: the same in every play."""
        self._said[what] += 1
        return derived_id(FIRST_ID, f"{what} {self._said[what]}")

    async def _during(self, scope: trio.CancelScope, call: str, question: Callable[[Engine], Awaitable[T]]) -> T:
        self._asking.add(scope)
        before = _call.set(call)
        try:
            return await question(self.engine)
        finally:
            _call.reset(before)
            self._asking.discard(scope)


_call: ContextVar[str] = ContextVar("call")


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return any(map(_is_crash, inner))
    return isinstance(error, Crash)
