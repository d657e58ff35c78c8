"""A bell wakes the one task that waits for it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from jivsd.bell import Bell

pytestmark = pytest.mark.jump


async def test_it_wakes_who_waits_and_lets_pass_who_comes_later():
    bell, heard = Bell(), []

    async def listen():
        await bell.wait()
        heard.append("rung")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert not heard
        assert not bell.is_set()
        bell.set()
        bell.set()
    assert heard == ["rung"]
    assert bell.is_set()
    with trio.testing.assert_checkpoints():
        await bell.wait()


async def test_who_was_cancelled_may_wait_again_and_another_one_may_not_meanwhile():
    bell = Bell()
    for _ in range(2):
        with trio.move_on_after(1) as scope:
            await bell.wait()
        assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another one waits"):
            await bell.wait()
        bell.set()
