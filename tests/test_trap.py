"""A task is parked and woken as trio would do it, with one trap again and again."""

from __future__ import annotations

import trio
import trio.testing

from jivsd.trap import Trap, park, wake

ABORTED = trio.lowlevel.Abort.SUCCEEDED


async def test_one_trap_serves_again_and_again():
    turns = []

    async def parked():
        trap = Trap(lambda _: ABORTED)
        for number in range(3):
            await park(trap)
            turns.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked)
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        for woken in range(3):
            assert turns == list(range(woken))
            wake(task)
            await trio.testing.wait_all_tasks_blocked()
    assert turns == [0, 1, 2]


async def test_who_is_cancelled_is_told_so_and_may_park_again():
    aborted = []
    trap = Trap(lambda _: aborted.append(True) or ABORTED)
    for _ in range(2):
        with trio.move_on_after(0) as scope:
            await park(trap)
        assert scope.cancelled_caught
    assert aborted == [True, True]


async def test_who_may_not_be_cancelled_waits_until_he_is_woken():
    trap = Trap(lambda _: trio.lowlevel.Abort.FAILED)
    trio.lowlevel.current_trio_token().run_sync_soon(wake, trio.lowlevel.current_task())
    with trio.CancelScope() as scope:
        scope.cancel()
        await park(trap)
    assert not scope.cancelled_caught
