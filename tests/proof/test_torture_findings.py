"""What the torturer has found in the engine, each as small as it could be made."""

from __future__ import annotations

import sys
from collections import Counter

import jivsd.testing
from jivsd import Context, Transaction, step, workflow
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
