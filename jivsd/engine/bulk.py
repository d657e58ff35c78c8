"""Starts in bulk: each is accepted or refused by itself, and they are committed in groups."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd.engine import starts
from jivsd.engine.admission import nothing, refusal
from jivsd.engine.api import EngineError, NewStart, Requested, StartResult, Unavailable
from jivsd.engine.gate import START_WAIT
from jivsd.store.api import Existing, NewRun, Refused, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.gate import Guest
    from jivsd.engine.host import Host
    from jivsd.engine.line import Place
    from jivsd.records import Event, Run
    from jivsd.store.api import Verdict

AT_ONCE: Final = 250
"""How many starts are prepared before others on this node have their turn."""


async def start_many(host: Host, wanted: Sequence[NewStart], by: str) -> list[StartResult]:
    """See `Engine.start_many`."""
    await host.holding.some()
    bulk = _Bulk(host, wanted, by)
    try:
        for number in range(len(wanted)):
            bulk.begin(number)
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        with trio.move_on_after(START_WAIT):
            await bulk.settled.wait()
    finally:
        bulk.give_up()
    await bulk.settled.wait()
    return [result for result in bulk.results if result is not None]


class _Bulk:
    """The starts of one call. `settled` is set when each has its result."""

    def __init__(self, host: Host, wanted: Sequence[NewStart], by: str) -> None:
        self.results: list[StartResult | None] = [None] * len(wanted)
        self.settled = trio.Event()
        self._host = host
        self._gate = host.gate
        self._wanted = wanted
        self._by = by
        self._left = len(wanted)
        self._in_line: dict[int, tuple[Place[Guest], Workflow[..., Any]]] = {}
        if not wanted:
            self.settled.set()

    def begin(self, number: int) -> None:
        """Have a start committed, if there is room for it; or else let it wait in line."""
        wanted = self._wanted[number]
        if self._host.stopping:
            self._refuse(number, Unavailable("the daemon is shutting down"))
            return
        try:
            workflow = self._host.workflow(wanted.workflow)
            self._host.quarantine.check(wanted.workflow)
            new, event = self._prepared(workflow, wanted)
            elsewhere = new.run.shard not in self._host.holding.shards
            if elsewhere and new.run.options.start_at is None:
                self._host.holding.check_room(new)
        except EngineError as error:
            self._refuse(number, error)
            return
        if new.run.options.start_at is not None or elsewhere:
            self._submit(number, new, event, nothing)
        elif self._gate.enter(workflow):
            self._submit(number, new, event, partial(self._gate.arrive, workflow.name))
        elif isinstance(wanted, Requested):
            self._submit(number, *self._prepared(workflow, wanted, start_at=self._host.clock.now()), nothing)
        else:
            told = partial(self._told, number, workflow)
            place = self._gate.queue(workflow, wanted.options.priority, self._host.clock.now(), told)
            self._in_line[number] = place, workflow
            self._gate.count_starts(+1)

    def give_up(self) -> None:
        """Refuse those who still wait for room."""
        for number, (place, workflow) in list(self._in_line.items()):
            self._gate.leave(place)
            self._leave_line(number)
            self._refuse(number, self._gate.refusal(workflow))

    def _told(self, number: int, workflow: Workflow[..., Any], let_in: bool) -> None:
        self._leave_line(number)
        if not let_in:
            self._refuse(number, self._gate.refusal(workflow))
            return
        arrive = partial(self._gate.arrive, workflow.name)
        try:
            new, event = self._prepared(workflow, self._wanted[number])  # its time begins now
        except EngineError as error:
            arrive()
            self._refuse(number, error)
        else:
            self._submit(number, new, event, arrive)

    def _leave_line(self, number: int) -> None:
        del self._in_line[number]
        self._gate.count_starts(-1)

    def _prepared(
        self, workflow: Workflow[..., Any], wanted: NewStart, start_at: int | None = None
    ) -> tuple[NewRun, Event]:
        run_id, by = (
            (wanted.run_id, wanted.by)
            if isinstance(wanted, Requested)
            else (self._host.holding.id_for(wanted.options), self._by)
        )
        now, input = self._host.clock.now(), bytes(wanted.input)
        return starts.prepare(workflow, input, wanted.options, run_id=run_id, now=now, by=by, start_at=start_at)

    def _submit(self, number: int, new: NewRun, event: Event, arrive: Callable[[], None]) -> None:
        run = new.run

        def done(verdict: Verdict) -> None:
            match verdict:
                case Written():
                    self._accept(number, run, existing=False)
                case Existing(first):
                    self._accept(number, first, existing=True)
                case Refused("exists", run.run_id) if isinstance(self._wanted[number], Requested):
                    self._accept(number, run, existing=True)
                case Refused():
                    self._refuse(number, refusal(verdict, run))
                case other:
                    raise AssertionError(f"a start cannot be answered with {other!r}")
            arrive()

        try:
            self._host.holding.submit(new, (event,), done)
        except Unavailable as error:
            arrive()
            self._refuse(number, error)

    def _accept(self, number: int, run: Run, *, existing: bool) -> None:
        result = "existing" if existing else "accepted"
        self._settle(number, StartResult(result, run.workflow, run.run_id, run.workflow_id, run.status))

    def _refuse(self, number: int, error: EngineError) -> None:
        wanted = self._wanted[number]
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        self._settle(
            number,
            StartResult(
                "refused",
                wanted.workflow,
                run_id=error.data.get("run_id"),
                workflow_id=wanted.options.id,
                code=error.code,
                why=str(error),
                retry_after=retry_after,
            ),
        )

    def _settle(self, number: int, result: StartResult) -> None:
        self.results[number] = result
        self._left -= 1
        if not self._left:
            self.settled.set()
