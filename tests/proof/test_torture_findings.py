"""What the torturer has found in the engine, each as small as it could be made."""

from __future__ import annotations

import sys
from collections import Counter

import trio

import jivsd.testing
from jivsd import Context, Transaction, step, update, workflow
from jivsd.engine.api import UpdateFailed
from jivsd.records import Kind

OUTCOMES = {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED}


@step
async def quick() -> None: ...


@step
async def enter(tx: Transaction) -> None: ...


@workflow("photo-finish")
async def photo_finish(ctx: Context) -> None:
    async with ctx.race() as race:
        for number in range(3):
            race[number].start_soon(quick)
            race[f"{number}, transaction"].start_soon(enter)


@workflow("last-word")
class LastWord:
    def __init__(self) -> None:
        self.said: list[str] = []

    @update
    def say(self, what: str) -> str:
        self.said.append(what)
        return what

    async def run(self, ctx: Context) -> list[str]:
        return await ctx.wait_until(lambda: self.said)


def test_a_race_that_is_won_beside_a_committed_transaction_records_it_once():
    """Step and transaction are committed in one batch; when the step has won, the transaction is done already."""

    async def scenario() -> None:
        async with jivsd.testing.Env(sys.modules[__name__]) as env:
            for _ in range(20):
                run = await env.start("photo-finish")
                await env.result(run)
                outcomes = Counter(event.path for event in await env.events(run) if event.kind in OUTCOMES)
                assert max(outcomes.values()) == 1, outcomes

    jivsd.testing.run(scenario)


def test_an_update_that_is_recorded_just_when_another_ends_the_run_is_answered_too():
    """Both are committed in one batch; the run has come to its end before the second is applied."""

    async def say(env: jivsd.testing.Env, run: str, what: str, answers: list[str]) -> None:
        try:
            answers.append(await env.update(run, "say", what))
        except UpdateFailed as error:
            answers.append(str(error))

    async def scenario() -> None:
        async with jivsd.testing.Env(sys.modules[__name__]) as env:
            run = await env.start("last-word")
            answers: list[str] = []
            async with trio.open_nursery() as nursery:
                for what in ("one", "two"):
                    nursery.start_soon(say, env, run, what, answers)
            said = (await env.result(run))[0]
            refused = "update 'say' failed: Failure: the run has come to its end"
            assert sorted(answers) == sorted([said, refused])
            kinds = [event.kind for event in await env.events(run)]
            assert kinds.count(Kind.UPDATE) == kinds.count(Kind.UPDATE_DONE) == 2

    jivsd.testing.run(scenario)
