"""Starts the programs' runs, tells them what they wait for, pauses and cancels them, until they have ended.

A daemon that does not answer, because it was killed, is asked again; what is asked twice carries the same key.
"""

from __future__ import annotations

from itertools import accumulate, count
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from jivsd.client import ClientError
from jivsd.engine.api import StartOptions
from jivsd.proof.daemons import insist
from jivsd.proof.torture.account import Case
from jivsd.proof.torture.language import ADD, WORKFLOW, Program
from jivsd.proof.torture.model import foresee
from jivsd.proof.torture.plans import CONTINUED
from jivsd.proof.torture.programs import draw
from jivsd.proof.torture.updates import Updater
from jivsd.proof.torture.workflows import world
from jivsd.records import ENDED, derived_id
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from jivsd.client import Client
    from jivsd.proof.torture.account import Account
    from jivsd.proof.torture.plans import Fate, Launched, Plan, Question, Send
    from jivsd.records import Run

T = TypeVar("T")

LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at what a run has come to."""
RESULT_WAIT: Final = 2.0
"""Seconds that one request waits for a run's end."""
MEND_EVERY: Final = 0.3
"""Seconds between two looks for incidents."""


class Driver:
    """Drives scenarios one after the other, several side by side."""

    def __init__(self, client: Client, account: Account, *, seed: int, world: str) -> None:
        self._client = client
        self._account = account
        self._seed = seed
        self._world = world
        self._numbers: Iterator[int] = count()
        self._stuck: dict[tuple[str, str], Fate] = {}
        """What will be held by an incident: by run and path."""

    async def work(self, workers: int, until: float) -> None:
        """Start runs until a moment of trio's clock; return when all have ended."""
        async with trio.open_nursery() as outer:
            outer.start_soon(self._mend)
            async with trio.open_nursery() as nursery:
                for _ in range(workers):
                    nursery.start_soon(self._one_after_another, until)
            outer.cancel_scope.cancel()

    async def _one_after_another(self, until: float) -> None:
        while trio.current_time() < until:
            await self._drive(next(self._numbers))

    async def _drive(self, number: int) -> None:
        case = await self._start(number)
        if case is None:
            return
        try:
            async with trio.open_nursery() as let_go:
                self._follow_all(case, let_go, case.plan, case.run_id)
                async with trio.open_nursery() as nursery:
                    self._act(case, nursery)
                    await self._until_ended(case)
                    nursery.cancel_scope.cancel()
        except* ClientError as errors:
            for error in errors.exceptions:
                self._account.complain("refused", case.run_id, f"the daemon refused: {error}")
        else:
            await self._ask_at_last(case)

    async def _start(self, number: int) -> Case | None:
        scenario = draw(self._seed, number)
        key = f"torture-{self._seed}-{number}"
        options = StartOptions(
            idempotency_key=key,
            lock_key=None if scenario.lock is None else f"torture-{scenario.lock}",
            timeout=None if scenario.timeout is None else f"{scenario.timeout}ms",
            delay=None if scenario.delay is None else f"{scenario.delay}ms",
            attributes={**scenario.attributes},
        )
        program = Program(self._world, scenario.nodes, scenario.rounds)
        try:
            started = await insist(lambda: self._client.start(WORKFLOW, program, options))
            case = Case(scenario, foresee(scenario), started.run.run_id)
            self._account.started(case)
            if scenario.again:
                again = await insist(lambda: self._client.start(WORKFLOW, program, options))
                if not again.existing or again.run.run_id != case.run_id:
                    message = f"started again under the same key it was answered with run {again.run.run_id}"
                    self._account.complain("twice", case.run_id, message)
        except ClientError as error:
            self._account.complain("refused", "", f"the daemon refused to start number {number}: {error}")
            return None
        return case

    def _act(self, case: Case, nursery: trio.Nursery) -> None:
        """Begin everything that is done to a run."""
        scenario = case.scenario
        self._serve(case, nursery, case.plan, case.run_id)
        if scenario.pauses:
            nursery.start_soon(self._pause, case)
        if scenario.end_after is not None:
            nursery.start_soon(self._end_anytime, case, scenario.end_after / 1000)
        if scenario.ending in ("cancel", "terminate"):
            nursery.start_soon(self._end_when_held, case)
        if scenario.ask:
            nursery.start_soon(self._ask, case)

    def _serve(self, case: Case, nursery: trio.Nursery, plan: Plan, first: str) -> None:
        """Begin to send a run and its children what they wait for."""
        rng = Random(f"{self._seed}/{case.scenario.number}/acts")
        for run_id, its in plan.family(first):
            self._stuck.update({(run_id, fate.path): fate for fate in its.fates.values() if fate.matter == "stuck"})
            if its.sends:
                nursery.start_soon(self._tell, case, run_id, its, rng)
            for question in its.asks:
                nursery.start_soon(self._update, case, run_id, question, rng.choice((0, 0.05, 0.4)))

    # ---- runs that are let go

    def _follow_all(self, case: Case, nursery: trio.Nursery, plan: Plan, *origins: str) -> None:
        for before, launched in plan.let_go(*origins):
            nursery.start_soon(self._follow, case, launched, before)

    async def _follow(self, case: Case, launched: Launched, origins: tuple[str, ...]) -> None:
        """Serve a run that lives on by itself until it has ended, if it ever is started."""
        run_id = derived_id(origins[-1], launched.path)
        while await self._row(run_id) is None:
            if await self._is_over(origins) and await self._row(run_id) is None:
                return
            await trio.sleep(LOOK_AGAIN)
        async with trio.open_nursery() as let_go:
            self._follow_all(case, let_go, launched.plan, *origins, run_id)
            async with trio.open_nursery() as nursery:
                self._serve(case, nursery, launched.plan, run_id)
                nursery.start_soon(self._stand_in, launched, origins, run_id)
                while (await insist(lambda: self._client.result(run_id, RESULT_WAIT))).status not in ENDED:
                    pass
                nursery.cancel_scope.cancel()

    async def _stand_in(self, launched: Launched, origins: tuple[str, ...], run_id: str) -> None:
        """Tell a run in its starter's place what that one has not said before its end."""
        while not await self._is_over(origins):  # noqa: ASYNC110 -- not in our process
            await trio.sleep(4 * LOOK_AGAIN)
        message_id = derived_id(origins[-1], launched.told)
        await self._try(lambda: self._client.signal(run_id, ADD, launched.message, message_id=message_id))

    async def _is_over(self, origins: tuple[str, ...]) -> bool:
        """Whether the last of these runs, each started by the one before, has ended, or never will be there."""
        *before, run_id = origins
        never = bool(before) and await self._is_over(tuple(before))
        row = await self._row(run_id)
        return never if row is None else row.status in ENDED

    async def _row(self, run_id: str) -> Run | None:
        return await self._try(lambda: self._client.show(run_id))

    # ---- what is done to a run

    async def _tell(self, case: Case, run_id: str, plan: Plan, rng: Random) -> None:
        """Send a run its signals, in any order, many before it waits for them."""
        sends = rng.sample(plan.sends, len(plan.sends))
        for send in sends:
            await trio.sleep(rng.uniform(0, 0.1))
            await self._send(case, run_id, send)

    async def _send(self, case: Case, run_id: str, send: Send) -> None:
        message_id = f"{run_id}-{send.serial}"
        for repeated in (False, True):
            while True:
                try:
                    receipt = await insist(
                        lambda: self._client.signal(run_id, send.name, send.payload, message_id=message_id)
                    )
                    break
                except ClientError as error:
                    if error.code != "not_found" or run_id == case.run_id:
                        if error.code == "ended":
                            return
                        raise
                await trio.sleep(LOOK_AGAIN)  # a child run that has not been started yet
            if not repeated:
                self._account.told(case, run_id, message_id)
            elif not receipt.duplicate:
                self._account.complain("twice", run_id, f"signal {message_id} was taken twice")
            if not case.scenario.again:
                return

    async def _update(self, case: Case, run_id: str, question: Question, after: float) -> None:
        await trio.sleep(after)
        await Updater(self._client, self._account, case).send(run_id, question)

    async def _pause(self, case: Case) -> None:
        for after, length in case.scenario.pauses:
            await trio.sleep(after / 1000)
            await self._try(lambda: self._client.pause(case.run_id, reason="torture"))
            await trio.sleep(length / 1000)
            await self._try(lambda: self._client.resume(case.run_id))

    async def _end_anytime(self, case: Case, after: float) -> None:
        await trio.sleep(after)
        await self._end(case)

    async def _end(self, case: Case) -> None:
        cancels = case.scenario.ending in ("cancel", "cancel-anytime")
        act = self._client.cancel if cancels else self._client.terminate
        await self._try(lambda: act(case.run_id, reason="torture"))

    async def _end_when_held(self, case: Case) -> None:
        while True:
            answer = await self._try(lambda: self._client.query(case.ref, "standing"))
            if answer is not None and msgspec.json.decode(answer.value) == "hold":
                break
            await trio.sleep(LOOK_AGAIN)
        await self._end(case)

    async def _ask(self, case: Case) -> None:
        while True:
            await self._try(lambda: self._client.query(case.ref, "count"))
            await self._try(lambda: self._client.why(case.ref))
            await trio.sleep(4 * LOOK_AGAIN)

    async def _ask_at_last(self, case: Case) -> None:
        """A run that has ended answers as it stood at its end."""
        plan = case.plan
        if not case.scenario.ask or (plan.otherwise is not None and case.ended is plan.otherwise):
            return
        try:
            answer = await insist(lambda: self._client.query(case.ref, "count"))
        except ClientError as error:
            self._account.complain("query", case.run_id, f"it has ended and does not answer: {error}")
            return
        expected = plan.chain[-1].counter
        if (value := msgspec.json.decode(answer.value)) != expected:
            message = f"its query answers that the counter is {value}; the model says {expected}"
            self._account.complain("query", case.run_id, message)
        if scenario_name := case.scenario.attributes.get("scenario"):
            where = RunFilter(workflow=WORKFLOW, attributes={"scenario": str(scenario_name)})
            found = [run.run_id for run in (await insist(lambda: self._client.runs(where, 10))).items]
            rounds = accumulate(plan.chain[1:], lambda run_id, _: derived_id(run_id, CONTINUED), initial=case.run_id)
            if sorted(found) != sorted(rounds):
                self._account.complain("query", case.run_id, f"by its attributes one finds {found}")

    # ---- ends and incidents

    async def _until_ended(self, case: Case) -> None:
        """Wait for a run's end. A pause that took effect after its resume is ended here."""
        looks = 0
        while True:
            run = await insist(lambda: self._client.result(case.run_id, RESULT_WAIT))
            if run.status in ENDED:
                self._account.ended(case, run.status)
                return
            looks = looks + 1 if run.paused else 0
            if looks > 1:
                await self._try(lambda: self._client.resume(case.run_id))

    async def _mend(self) -> None:
        """Decide the incidents that the programs ask for."""
        while True:
            await trio.sleep(MEND_EVERY)
            if not self._stuck:
                continue
            found = await self._try(lambda: self._client.incidents("OPEN", limit=100))
            for incident in found.items if found is not None else ():
                fate = self._stuck.get((incident.run_id or "", incident.path))
                if fate is not None:
                    await self._decide(incident.incident_id, incident.run_id or "", fate)

    async def _decide(self, incident_id: str, run_id: str, fate: Fate) -> None:
        if fate.decide == "value":
            await self._try(lambda: self._client.resolve_incident(incident_id, fate.amount, reason="torture"))
            return
        await self._mended(run_id, fate.name)
        await self._try(lambda: self._client.retry_incident(incident_id, reason="torture"))

    async def _mended(self, run_id: str, name: str) -> None:
        await trio.to_thread.run_sync(world.mend, self._world, run_id, name)

    # ---- asking

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask until there is an answer; None if it is a refusal, because things have changed meanwhile."""
        try:
            return await insist(ask)
        except ClientError as error:
            if error.status in (404, 409, 422):
                return None
            raise
