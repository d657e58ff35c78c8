"""Starts in bulk: a result for each, in order; what one of them is refused for is nothing to the others."""

from __future__ import annotations

import sys

import msgspec
import pytest
import trio

from jivsd import Context, step, workflow
from jivsd.engine.api import NewStart, StartOptions, Unavailable
from jivsd.engine.limits import Limits
from jivsd.records import Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env
from jivsd.testing.crash import CrashEnv

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


@step
async def work(seconds: float) -> None:
    await trio.sleep(seconds)


@workflow("sleepy")
async def sleepy(ctx: Context, seconds: float) -> float:
    await ctx.step(work, seconds)
    return seconds


def wanted(seconds: object, workflow: str = "sleepy", **options: object) -> NewStart:
    return NewStart(workflow, msgspec.Raw(msgspec.json.encode(seconds)), StartOptions(**options))


async def test_each_has_its_result_in_order():
    async with Env(here) as env:
        first = await env.start("sleepy", 100, id="open", idempotency_key="k")
        results = await env.engine.start_many(
            [
                wanted(1, id="a"),
                wanted("soon"),
                wanted(2, "nobody"),
                wanted(100, idempotency_key="k"),
                wanted(3, id="open"),
                wanted(4, id="a"),
                wanted(5, priority=1000),
                wanted(6, delay="1h"),
                wanted(7, idempotency_key="k"),
            ],
            by="ann",
        )
        assert [(one.result, one.code) for one in results] == [
            ("accepted", None),
            ("refused", "invalid"),
            ("refused", "not_found"),
            ("existing", None),
            ("refused", "open"),
            ("refused", "open"),
            ("refused", "invalid"),
            ("accepted", None),
            ("refused", "key_reused"),
        ]
        assert results[3].run_id == results[4].run_id == results[8].run_id == first
        assert results[5].run_id == results[0].run_id
        assert (results[0].workflow_id, results[0].status, results[7].status) == ("a", Status.RUNNING, Status.PENDING)
        assert await env.result(results[0].run_id) == 1
        assert (await env.events(results[0].run_id))[0].by == "ann"
        assert await env.engine.start_many([]) == []


async def test_they_are_committed_in_groups():
    async with Env(here) as env:
        batches: list[int] = []
        commit = env.store.commit

        async def counted(batch, more=None):
            batches.append(len(batch))
            return await commit(batch)

        env.store.commit = counted
        results = await env.engine.start_many([wanted(1) for _ in range(1000)])
        assert {one.result for one in results} == {"accepted"}
        assert len({one.run_id for one in results}) == 1000
        assert len(batches) < 30
        for one in results:
            await env.ended(one.run_id)


async def test_those_without_room_wait_together_and_are_refused_each():
    async with Env(here, limits=Limits(active_runs=3)) as env:
        begun = trio.current_time()
        starts = [wanted(2, id="low", priority=-1), *(wanted(2) for _ in range(4)), *(wanted(100) for _ in range(4))]
        results = await env.engine.start_many([*starts, wanted(2, id="high", priority=9)])
        assert trio.current_time() - begun == pytest.approx(5)
        assert [one.result for one in results] == ["accepted"] * 5 + ["accepted"] * 3 + ["refused", "accepted"]
        assert (results[8].code, results[8].retry_after) == ("unavailable", 5)
        assert "no room" in (results[8].why or "")
        assert env.engine.gate.starts == 0
        assert len((await env.engine.runs(RunFilter())).items) == 9


async def test_who_leaves_takes_those_in_line_along():
    async with Env(here, limits=Limits(active_runs=2)) as env:
        with trio.move_on_after(1):
            await env.engine.start_many([wanted(3) for _ in range(10)])
        await trio.sleep(60)
        assert len((await env.engine.runs(RunFilter())).items) == 2
        assert env.engine.gate.starts == 0
        assert {one.result for one in await env.engine.start_many([wanted(1), wanted(1)])} == {"accepted"}


async def test_a_host_that_stops_refuses_those_that_wait():
    async with Env(here, limits=Limits(active_runs=1)) as env:
        found = []

        async def start() -> None:
            found.extend(await env.engine.start_many([wanted(100), wanted(1)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.sleep(1)
            env.engine.drain(0)
        assert [(one.result, one.code) for one in found] == [("accepted", None), ("refused", "unavailable")]
        with pytest.raises(Unavailable):
            await env.start("sleepy", 1)


async def test_what_was_committed_before_a_crash_lives_and_is_found_again():
    """A crash in the middle of a bulk: each start is there or not, and with keys all can be sent again."""
    async with CrashEnv([here], []) as env:
        starts = [wanted(1, idempotency_key=f"k{number}") for number in range(200)]
        made = iter(range(10**6))

        def ids() -> str:
            return f"019b76da-a800-7000-8000-{next(made):012x}"

        env.engine.ids = ids
        env._mortal._deaths = [(100, "behind")]
        with trio.move_on_after(1):
            await env.engine.start_many(starts)
        env.engine.ids = ids
        results = await env.engine.start_many(starts)
        assert {one.result for one in results} == {"accepted", "existing"}
        for one in results:
            assert await env.result(one.run_id) == 1
        assert len((await env.engine.runs(RunFilter(), 500)).items) == 200
