"""Attributes: given with a start, changed by the code, found again."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import Context, Retry, TimedOut, step, workflow
from jivsd.engine.api import Invalid, StartOptions
from jivsd.records import Kind, Status
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]
ready = True


@workflow("tagged")
async def tagged(ctx: Context, changes: list[dict[str, Any]]) -> dict[str, Any]:
    for change in changes:
        await ctx.set_attributes(**change)
        await ctx.sleep("1m")
    return dict(ctx.attributes)


@workflow("side-by-side")
async def side_by_side(ctx: Context) -> dict[str, Any]:
    async with ctx.nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ctx.set_attributes, **{"last": number, f"at{number}": True})
    return dict(ctx.attributes)


@workflow("too-late")
async def too_late(ctx: Context) -> dict[str, Any]:
    with ctx.move_on_after(0):
        await ctx.set_attributes(region="eu")
    try:
        with ctx.fail_after("1s"):
            await ctx.set_attributes(region="us")
            await ctx.sleep("1h")
    except TimedOut:
        pass
    return dict(ctx.attributes)


@step(retry=Retry(attempts=1))
async def prepare() -> None:
    if not ready:
        raise ValueError("not ready")


@workflow("retried")
async def retried(ctx: Context) -> dict[str, Any]:
    await ctx.set_attributes(stage="early")
    try:
        await ctx.step(prepare)
        await ctx.sleep("1h")
    finally:
        await ctx.set_attributes(stage="late")
    return dict(ctx.attributes)


async def found(env: Env, **where: Any) -> list[str]:
    return [one.run_id for one in (await env.engine.runs(RunFilter(**where))).items]


async def test_the_code_changes_them_and_a_list_finds_them():
    async with Env(here) as env:
        first = await env.start("tagged", [{"region": "us"}, {"region": "de", "tries": 2}], attributes={"region": "eu"})
        second = await env.start("tagged", [{"tries": 2.5, "gold": True}, {"tries": None}])
        await trio.sleep(30)
        assert await found(env, attributes={"region": "us"}) == [first]
        assert await found(env, attributes={"tries": "2.5"}) == [second]
        await trio.sleep(60)
        assert await found(env, attributes={"region": "us"}) == await found(env, attributes={"tries": "2.5"}) == []
        assert await found(env, attributes={"region": "de", "tries": "2"}) == [first]
        assert await found(env, attributes={"gold": "true"}, statuses=(Status.RUNNING,)) == [second]
        assert await env.result(first) == (await env.show(first)).attributes == {"region": "de", "tries": 2}
        assert await env.result(second) == {"gold": True}


async def test_changes_at_one_instant_are_merged_in_order():
    async with Env(here) as env:
        run = await env.start("side-by-side")
        assert await env.result(run) == {"last": 4, **{f"at{number}": True for number in range(5)}}
        assert (await env.show(run)).attributes["last"] == 4


async def test_a_change_is_cancelled_before_it_is_written_or_it_is_there():
    async with Env(here) as env:
        run = await env.start("too-late")
        assert await env.result(run) == (await env.show(run)).attributes == {"region": "us"}
        assert sum(event.kind == Kind.MARKER for event in await env.events(run)) == 1


async def test_a_reset_takes_back_what_came_behind_the_cut(monkeypatch):
    monkeypatch.setattr(here, "ready", False)
    async with Env(here) as env:
        run = await env.start("retried", attributes={"tier": 1})
        assert (await env.ended(run)).attributes == {"tier": 1, "stage": "late"}
        monkeypatch.setattr(here, "ready", True)
        again = await env.retry(run)
        await trio.sleep(60)
        assert (await env.show(again)).attributes == {"tier": 1, "stage": "early"}
        assert await env.result(again) == (await env.show(again)).attributes == {"tier": 1, "stage": "late"}


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"": 1}, "a name is 1 to 100 letters"),
        ({"a b": 1}, "attribute 'a b'"),
        ({"list": [1]}, "attribute 'list': a value is a text"),
        ({"long": "x" * 513}, "up to 512 characters"),
        ({"nul": "a\0"}, "attribute 'nul'"),
        ({"big": 2**63}, "attribute 'big'"),
        ({"nan": float("nan")}, "attribute 'nan'"),
        ({f"a{number}": 1 for number in range(33)}, "at most 32 attributes, not 33"),
    ],
)
async def test_what_is_no_attribute_is_refused(attributes, problem):
    async with Env(here) as env:
        with pytest.raises(Invalid, match=problem) as refused:
            await env.engine.start("tagged", b"[]", StartOptions(attributes=attributes))
        assert refused.value.data["field"] == "attributes"
        if "nan" not in attributes:  # which has no JSON form, so that no input has it
            failed = await env.ended(await env.start("same", attributes))
            assert (failed.error.type, failed.error.message) == ("ValueError", str(refused.value))


@workflow("same")
async def same(ctx: Context, attributes: dict[str, Any]) -> None:
    await ctx.set_attributes(**attributes)


async def test_a_map_returns_results_in_the_order_of_the_items():
    commands.fresh_world()

    async with Env(here) as env:
        run = await env.start("sorted", [3, 1, 2])
        assert await env.result(run) == [["3", "1", "2"], ["waited 3", "waited 1", "waited 2"]]
        paths = sorted(event.path for event in await env.events(run) if event.path)
        assert paths == [*(f"map[{n}]/sleep" for n in range(3)), *(f"second[b{n}]/name" for n in (1, 2, 3))]


@step
async def name(number: int) -> str:
    return f"waited {number}"


@workflow("sorted")
async def in_order(ctx: Context, numbers: list[int]) -> list[list[str]]:
    async def wait(number: int) -> str:
        await ctx.sleep(number)
        return str(number)

    first = await ctx.map(wait, numbers)
    return [first, await ctx.map(name, numbers, name="second", key=lambda number: f"b{number}", limit=2)]
