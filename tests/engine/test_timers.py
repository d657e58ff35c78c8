"""The timers of a node: in order, never early, and none that is forgotten takes room for long."""

from __future__ import annotations

import pytest
import trio

from jivsd.clock import SECOND, TrioClock
from jivsd.engine.timers import FEW, Timers

pytestmark = pytest.mark.jump


async def test_they_fire_in_the_order_of_their_deadlines_and_never_early():
    clock = TrioClock(0)
    timers = Timers(clock, look_again=1e9)
    fired: list[tuple[int, int]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(run, timers)
        for deadline in (5, 3, 9, 3, 0, -4):
            timers.add(deadline * SECOND, lambda deadline=deadline: fired.append((deadline, clock.now())))
        timers.add(4 * SECOND, lambda: fired.append((-1, 0))).cancel()
        await trio.sleep(20)
        assert [deadline for deadline, _ in fired] == [-4, 0, 3, 3, 5, 9]
        assert all(at >= deadline * SECOND for deadline, at in fired)
        assert all(at < (deadline + 0.01) * SECOND for deadline, at in fired if deadline > 0)
        assert len(timers) == 0
        nursery.cancel_scope.cancel()


async def run(timers: Timers, task_status: trio.TaskStatus[None]) -> None:
    await timers.run(task_status=task_status)


async def test_one_that_is_added_by_another_fires_too():
    clock = TrioClock(0)
    timers = Timers(clock, look_again=1e9)
    fired: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(run, timers)
        timers.add(SECOND, lambda: timers.add(0, lambda: fired.append("second")) and fired.append("first"))
        await trio.sleep(2)
        assert fired == ["first", "second"]
        nursery.cancel_scope.cancel()


async def test_forgotten_ones_are_let_go_long_before_their_deadline():
    timers = Timers(TrioClock(0))
    kept = [timers.add(SECOND * number, lambda: None) for number in range(10)]
    for _ in range(20 * FEW):
        timers.add(10**15, lambda: None).cancel()
        assert len(timers) <= 10 + FEW + 2
    for timer in kept:
        timer.cancel()
        timer.cancel()


async def test_a_clock_that_is_set_forward_is_noticed():
    now = [0]

    class Clock:
        def now(self) -> int:
            return now[0]

    timers = Timers(Clock(), look_again=30)
    fired: list[float] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(run, timers)
        timers.add(3600 * SECOND, lambda: fired.append(trio.current_time()))
        began = trio.current_time()
        await trio.sleep(1)
        now[0] = 3600 * SECOND
        await trio.sleep(60)
        assert fired
        assert fired[0] - began <= 31
        nursery.cancel_scope.cancel()
