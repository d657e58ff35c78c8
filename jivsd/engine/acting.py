"""Acting on many runs at once: those that are named, those of a filter, or all of them to be paused or resumed.

Each run is acted on as if it had been alone, wherever it lives, and has a result of its own. A call works for a few
seconds at most and says where to go on, so that nobody waits for what nobody sees.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from msgspec.structs import replace

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.engine.api import COUNTED, Act, Acted, Acts, Conflict, EngineError, Invalid, Switched, Unavailable
from jivsd.engine.mending import FAILED
from jivsd.records import ENDED, Status
from jivsd.store.api import BadCursor, RunFilter, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.engine.mending import Mending
    from jivsd.engine.messages import Messages
    from jivsd.records import Run
    from jivsd.store.api import Runs

log = logs.get(__name__)

SECONDS: Final = 2.0
"""How long one call goes on to take up runs; each of those may take a few seconds more."""
PIECE: Final = 250
"""Runs that are listed at once, and acted on side by side: what is written for them shares batches of the journal."""
SHOWN: Final = 100
"""Refusals that are told one by one when all runs are paused or resumed."""
MARGIN: Final = 2 * SECOND
"""By how much the clocks of nodes may differ, in microseconds, and more."""

_MARK: Final = re.compile(r"(\d{1,18})-(all|late)-(.*)", re.ASCII)


class Mark(NamedTuple):
    """How far pausing all runs has come: since when, in which of two passes, and behind which run.

    The second pass finds what runs have started that were paused only later.
    """

    since: int
    late: bool
    cursor: str | None

    @classmethod
    def of(cls, text: str) -> Mark:
        """Read it. Raises BadCursor when it is none."""
        found = _MARK.fullmatch(text)
        if found is None:
            raise BadCursor(f"{text!r} is not a cursor: pass on the one that came with the answer before")
        return cls(int(found[1]), found[2] == "late", found[3] or None)

    def __str__(self) -> str:
        return f"{self.since}-{'late' if self.late else 'all'}-{self.cursor or ''}"


def fitting(act: Act, where: RunFilter) -> RunFilter:
    """The runs of a filter to which an action can be done at all.

    Raises:
        Invalid: it can be done to none of the statuses that the filter names.
    """
    possible = FAILED if act.action == "retry" else frozenset(Status) - ENDED
    statuses = [status for status in where.statuses or sorted(possible) if status in possible]
    if not statuses:
        given = ", ".join(where.statuses)
        raise Invalid(f"{act.action} does nothing to runs that are {given}", field="status")
    paused = act.action == "resume" if where.paused is None and act.action in ("pause", "resume") else where.paused
    return replace(where, statuses=statuses, paused=paused)


class Acting:
    """Does things to many runs."""

    def __init__(self, host: Host, looking: Looking, messages: Messages, mending: Mending) -> None:
        self._host = host
        self._looking = looking
        self._messages = messages
        self._mending = mending

    async def on_named(self, act: Act, refs: Sequence[str], by: str, *, dry_run: bool) -> list[Acted]:
        """See `Engine.act_on`."""
        over = _deadline()
        results: list[Acted] = []
        for begin in range(0, len(refs), PIECE):
            piece = refs[begin : begin + PIECE]
            if begin and over():
                results += (Acted(ref, "left") for ref in piece)
            else:
                results += await self._each(act, piece, by, dry_run=dry_run)
        self._note(act, results, by, dry_run=dry_run)
        return results

    async def on_page(
        self, act: Act, where: RunFilter, by: str, limit: int, cursor: str | None, *, dry_run: bool
    ) -> Acts:
        """See `Engine.act_on_all`."""
        where = fitting(act, where)
        over = _deadline()
        results: list[Acted] = []
        while True:
            page = await self._page(where, min(PIECE, limit - len(results)), cursor, begun=bool(results))
            if page is None:
                break
            results += await self._each(act, page.items, by, dry_run=dry_run)
            cursor = page.next
            if cursor is None or len(results) >= limit or over():
                break
        self._note(act, results, by, dry_run=dry_run)
        return Acts(results, await self._left(where, cursor) if page is not None else None, cursor)

    async def switch_all(
        self, workflow: str | None, by: str, reason: str, cursor: str | None, *, paused: bool
    ) -> Switched:
        """See `Engine.pause_all` and `Engine.resume_all`."""
        act = Act("pause" if paused else "resume", reason)
        mark = Mark(self._host.clock.now() - MARGIN, False, None) if cursor is None else Mark.of(cursor)
        over = _deadline()
        results: list[Acted] = []
        goes_on = True
        while goes_on:
            since = mark.since if mark.late else None
            where = fitting(act, RunFilter(workflow=workflow, created_after=since))
            page = await self._page(where, PIECE, mark.cursor, begun=bool(results))
            if page is None:
                break
            results += await self._each(act, page.items, by)
            if page.next is not None:
                mark = mark._replace(cursor=page.next)
            elif paused and not mark.late:
                mark = Mark(mark.since, True, None)
            else:
                goes_on = False
            if over():
                break
        self._note(act, results, by)
        done = sum(one.result == "done" for one in results)
        refused = [one for one in results if one.result == "refused" and one.code not in ("ended", "not_found")]
        return Switched(done, len(refused), refused[:SHOWN], str(mark) if goes_on else None)

    async def _page(self, where: RunFilter, limit: int, cursor: str | None, *, begun: bool) -> Runs | None:
        """The next runs; None if the store is away after something has been done, which is not to get lost."""
        try:
            return await self._host.store.runs(where, limit, cursor)
        except BadCursor:
            raise
        except StoreError:
            if not begun:
                raise
            return None

    async def _left(self, where: RunFilter, cursor: str | None) -> int | None:
        if cursor is None:
            return 0
        try:
            return await self._host.store.count(where, COUNTED, cursor)
        except StoreError:
            return None

    async def _each(self, act: Act, runs: Sequence[Run | str], by: str, *, dry_run: bool = False) -> list[Acted]:
        """What comes of an action on each of some runs, which are known or just named."""
        results: list[Acted | None] = [None] * len(runs)

        async def one(place: int, run: Run | str) -> None:
            ref = run if isinstance(run, str) else run.run_id
            try:
                now = await self._one(act, run, by, dry_run=dry_run)
            except EngineError as error:
                results[place] = _result(ref, "refused", run, code=error.code, why=str(error))
            except StoreError as error:
                why = f"the store is away: {error}"
                results[place] = _result(ref, "refused", run, code=Unavailable.code, why=why)
            else:
                results[place] = _result(ref, "would" if dry_run else "done", now)

        async with trio.open_nursery() as nursery:
            for place, run in enumerate(runs):
                nursery.start_soon(one, place, run)
        return [result for result in results if result is not None]

    async def _one(self, act: Act, run: Run | str, by: str, *, dry_run: bool) -> Run:
        """Do it to one run, and return how that stands then.

        Raises:
            EngineError: it cannot be done.
        """
        if isinstance(run, str):
            ref = run
            if dry_run:
                run = await self._looking.show(ref)
                _check(act, run)
        else:
            ref = run.run_id
            if act.action == "retry":
                await self._check_newest(run)
        if dry_run:
            assert not isinstance(run, str)
            return run
        match act.action:
            case "pause" | "resume":
                return await self._messages.switch(ref, by, act.reason, paused=act.action == "pause")
            case "cancel":
                return await self._messages.cancel(ref, by, act.reason)
            case "terminate":
                return await self._messages.terminate(ref, by, act.reason)
            case "retry":
                return await self._mending.retry(ref, by)
            case "signal":
                found = await self._looking.show(ref)
                receipt = await self._messages.signal_to(found, ref, act.signal, bytes(act.payload), act.message_id, by)
                return found if receipt.run_id == found.run_id else await self._looking.show(receipt.run_id)

    async def _check_newest(self, run: Run) -> None:
        """Raises Conflict when another run has followed a failed one: it was tried again, or done otherwise."""
        newest = await self._host.store.current_run(run.workflow, run.workflow_id)
        if newest is not None and newest.run_id != run.run_id:
            raise Conflict(
                f"run {run.run_id} is not the newest of {run.workflow}:{run.workflow_id}: run {newest.run_id} came "
                f"after it and is {newest.status}; name the run to retry it all the same",
                run_id=newest.run_id,
            )

    def _note(self, act: Act, results: Iterable[Acted], by: str, *, dry_run: bool = False) -> None:
        if dry_run:
            return
        found = [one.result for one in results]
        done, refused = found.count("done"), found.count("refused")
        log.info("acted on many runs", action=act.action, by=by, why=act.reason, done=done, refused=refused)


def _check(act: Act, run: Run) -> None:
    """Raises Conflict when an action would certainly be refused."""
    if run.status not in fitting(act, RunFilter()).statuses:
        code = "ended" if run.status in ENDED else "state"
        raise Conflict(f"run {run.run_id} is {run.status}", code=code, run_id=run.run_id)
    if act.action in ("pause", "resume") and run.paused is (act.action == "pause"):
        raise Conflict(f"run {run.run_id} is {'paused' if run.paused else 'not paused'}", run_id=run.run_id)


def _result(ref: str, result: str, run: Run | str, *, code: str | None = None, why: str | None = None) -> Acted:
    if isinstance(run, str):
        return Acted(ref, result, code=code, why=why)
    known = run.run_id, run.workflow, run.workflow_id
    if code is not None:
        return Acted(ref, result, *known, code=code, why=why)
    return Acted(ref, result, *known, run.status, run.paused)


def _deadline() -> Callable[[], bool]:
    """Whether the call has taken up runs for long enough."""
    deadline = trio.current_time() + SECONDS
    return lambda: trio.current_time() >= deadline
