"""Runs that are started at once begin a few at a time, in their order, and nothing that happens meanwhile is lost."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from itertools import chain

import msgspec
import pytest
import trio

from jivsd import Context, step, workflow
from jivsd.engine import births, bulk
from jivsd.engine.api import NewStart
from jivsd.engine.births import AT_ONCE, MANY, Births
from jivsd.records import Status
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]
begun: list[int] = []


@step
async def note(number: int) -> None:
    begun.append(number)


@workflow("noted")
async def noted(ctx: Context, number: int) -> str:
    await ctx.step(note, number)
    return await ctx.wait_signal("go", str)


@asynccontextmanager
async def some(starts=0):
    """Lives of a nursery while so many starts are being written, and which of them begin in each turn of the loop."""
    turns: list[list[int]] = [[]]

    async def live(number: int) -> None:
        turns[-1].append(number)
        lives.begun()

    async with trio.open_nursery() as nursery:
        lives = Births(nursery, live)
        for _ in range(starts):
            lives.starting()
        yield lives, turns


async def pass_turns(turns, count):
    for _ in range(count):
        await trio.lowlevel.checkpoint()
        turns.append([])


@pytest.mark.parametrize(("count", "starts"), [(10, 0), (200, 0), (200, MANY)])
async def test_only_so_many_begin_in_a_turn_and_who_came_first_is_first(count, starts):
    async with some(starts) as (lives, turns):
        for number in range(count):
            lives.add(number)
        assert len(lives) == max(0, count - AT_ONCE)
        while len(lives):
            await pass_turns(turns, 1)
    found = [turn for turn in turns if turn]
    assert max(map(len, found)) <= 2 * AT_ONCE  # the turns of the loop are not those of the task that counts
    assert len(found) >= count / (2 * AT_ONCE)
    order = list(chain.from_iterable(found))
    assert sorted(order) == list(range(count))
    for place in range(0, count, AT_ONCE):  # those of one turn of the loop come in any order
        assert set(order[place : place + AT_ONCE]) == set(range(place, min(place + AT_ONCE, count)))


async def test_none_begins_while_many_starts_are_being_written():
    async with some(MANY + 1) as (lives, turns):
        for number in range(100):
            lives.add(number)
        await pass_turns(turns, 5)
        assert (len(lives), list(chain.from_iterable(turns))) == (100, [])
        lives.started()
        lives.add(100)
        await pass_turns(turns, 5)
    assert sorted(chain.from_iterable(turns)) == list(range(101))


async def test_starts_that_keep_coming_do_not_keep_runs_from_beginning(monkeypatch):
    monkeypatch.setattr(births, "LATER", 20)
    async with some(MANY + 1) as (lives, turns):
        for number in range(100):
            lives.add(number)
        await pass_turns(turns, 5)
        assert len(lives) == 20
        lives.started()


@pytest.fixture
def one_at_a_time(monkeypatch):
    begun.clear()
    monkeypatch.setattr(births, "AT_ONCE", 1)
    monkeypatch.setattr(bulk, "AT_ONCE", 1000)


async def accepted(env: Env, count: int) -> list[str]:
    results = await env.engine.start_many([NewStart("noted", msgspec.Raw(b"%d" % number)) for number in range(count)])
    assert {one.result for one in results} == {"accepted"}
    return [one.run_id or "" for one in results]


@pytest.mark.usefixtures("one_at_a_time")
async def test_a_run_hears_what_is_said_to_it_before_it_begins():
    async with Env(here) as env:
        runs = await accepted(env, 200)
        assert len(env.engine.births) > 50
        for run_id in reversed(runs[100:]):
            await env.engine.signal(run_id, "go", b'"x"')
        await env.engine.pause(runs[99], by="ann")
        await env.engine.cancel(runs[98], by="ann")
        await env.engine.terminate(runs[97], by="ann")
        for run_id in runs[100:]:
            assert await env.result(run_id) == "x"
        assert (await env.ended(runs[98])).status is Status.CANCELLED
        assert (await env.ended(runs[97])).status is Status.TERMINATED
        assert (await env.engine.show(runs[99])).paused
        assert len(begun) == len(set(begun))
        assert begun[:90] == list(range(90))


@pytest.mark.usefixtures("one_at_a_time")
async def test_those_that_have_not_begun_when_the_host_stops_begin_at_its_next_start():
    async with Env(here) as env, trio.open_nursery() as nursery:
        runs = await accepted(env, 100)
        assert len(env.engine.births)
        await env.engine.stop(0)
        assert not env.engine.living
        assert not env.engine.actors
        await nursery.start(env.engine.run)
        for run_id in runs:
            await env.engine.signal(run_id, "go", b'"x"')
            assert await env.result(run_id) == "x"
        assert set(begun) == set(range(100))
        await env.engine.stop(0)
