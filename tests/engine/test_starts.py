"""Starts: what is accepted, what is refused and why; bad input makes no run."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import pytest
import trio
import trio.lowlevel

from jivsd import Context, workflow
from jivsd.engine.api import Conflict, Gone, Invalid, NotFound, StartOptions, Unavailable
from jivsd.records import Kind, Status, payload_of
from jivsd.store.api import RunFilter
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]


class Item(msgspec.Struct):
    name: str
    price: Annotated[int, msgspec.Meta(ge=0)]


class Basket(msgspec.Struct):
    customer: str
    items: list[Item] = []


@workflow("shop")
async def shop(ctx: Context, basket: Basket) -> int:
    await ctx.sleep("1m")
    return sum(item.price for item in basket.items)


@workflow("nothing")
async def nothing(ctx: Context) -> None:
    pass


BASKET = {"customer": "ann", "items": [{"name": "tea", "price": 3}]}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"{'customer': 1}", "malformed"),
        (b"null", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"items": []}', "missing required field `customer`"),
        (b'{"customer": 7}', r"Expected `str`, got `int` - at `\$\.customer`"),
        (b'{"customer": "a", "items": [{"name": "b", "price": "c"}]}', r"got `str` - at `\$\.items\[0\]\.price`"),
        (b'{"customer": "a", "items": [{"name": "b", "price": -1}]}', r"`int` >= 0 - at `\$\.items\[0\]\.price`"),
        (b'{"customer": "a", "colour": "red"}', r"unknown field - at `\$\.colour`"),
        (b'{"customer": "a", "items": [{"name": "b", "price": 1, "size": 2}]}', r"at `\$\.items\[0\]\.size`"),
        (b'{"customer": "\xff"}', "utf-8|UTF-8|invalid"),
        (b"[" * 100_000, "recursion|Expected `object`"),
        (b'{"customer": ' + b"[" * 100_000, "recursion|Expected `str`"),
    ],
)
async def test_a_bad_input_is_refused_and_makes_no_run(body, problem):
    async with Env(here) as env:
        with pytest.raises(Invalid, match=problem) as caught:
            await env.engine.start("shop", body)
        assert "\n" not in str(caught.value)
        assert (await env.engine.runs(RunFilter())).items == []
        assert (await env.engine.status()).actors == 0


async def test_an_unknown_workflow():
    async with Env(here) as env:
        with pytest.raises(NotFound, match="there is no workflow 'shopp'"):
            await env.start("shopp", BASKET)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("timeout", "soon", "option timeout: 'soon' is not a duration"),
        ("timeout", "-1s", "option timeout: '-1s' is negative"),
        ("lock_wait", "x", "option lock_wait"),
        ("id", "", "option id: 1 to 512 characters"),
        ("id", "a\0b", "without NUL"),
        ("id", "x" * 600, "1 to 512 characters"),
        ("idempotency_key", "", "option idempotency_key"),
        ("correlation_id", "x" * 600, "option correlation_id"),
        ("lock_key", "\0", "option lock_key"),
    ],
)
async def test_a_bad_option_is_refused(option, value, problem):
    async with Env(here) as env:
        with pytest.raises(Invalid, match=problem) as caught:
            await env.start("shop", BASKET, **{option: value})
        assert caught.value.data["field"] == option


async def test_the_same_key_with_the_same_input_returns_the_first_run():
    async with Env(here) as env:
        body = b'{"customer": "ann", "items": []}'
        first = await env.engine.start("shop", body, StartOptions(idempotency_key="k"))
        again = await env.engine.start(
            "shop", b'{ "items" : [ ] , "customer" : "ann" }', StartOptions(idempotency_key="k")
        )
        assert (first.existing, again.existing) == (False, True)
        assert again.run.run_id == first.run.run_id
        with pytest.raises(Conflict, match="used with another input") as caught:
            await env.start("shop", BASKET, idempotency_key="k")
        assert (caught.value.code, caught.value.data["run_id"]) == ("key_reused", first.run.run_id)
        await env.result(first.run.run_id)
        ended = await env.engine.start("shop", body, StartOptions(idempotency_key="k"))
        assert (ended.existing, ended.run.status) == (True, Status.COMPLETED)
        await env.engine.prune(RunFilter())
        with pytest.raises(Gone, match="was pruned") as gone:
            await env.engine.start("shop", body, StartOptions(idempotency_key="k"))
        assert gone.value.data["run_id"] == first.run.run_id


async def test_keys_at_once_make_one_run():
    async with Env(here) as env:
        found: list[str] = []

        async def start() -> None:
            found.append(await env.start("shop", BASKET, idempotency_key="k"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert len(found) == 20
        assert len(set(found)) == 1
        assert len((await env.engine.runs(RunFilter())).items) == 1


async def test_a_workflow_id_has_one_open_run():
    async with Env(here) as env:
        first = await env.start("shop", BASKET, id="order-1")
        for key in ({}, {"idempotency_key": "other"}):
            with pytest.raises(Conflict, match="workflow id 'order-1' has an open run") as caught:
                await env.start("shop", BASKET, id="order-1", **key)
            assert (caught.value.code, caught.value.data["run_id"]) == ("open", first)
        assert await env.result(first) == 3
        second = await env.start("shop", BASKET, id="order-1")
        assert second != first
        assert await env.start("nothing", id="order-1")  # ids are each workflow's own


async def test_what_was_resolved_is_recorded_with_the_start():
    async with Env(here) as env:
        await env.engine.start(
            "shop",
            msgspec.json.encode(BASKET),
            StartOptions(id="o", timeout="2h", correlation_id="c", priority=3, attributes={"region": "eu"}),
            by="ann",
        )
        (event,) = await env.events("shop:o")
        started = payload_of(event)
        assert (event.kind, event.by) == (Kind.STARTED, "ann")
        assert started.options.timeout == 7_200_000_000
        assert (started.options.correlation_id, started.options.priority) == ("c", 3)
        row = await env.show("shop:o")
        assert row.options == msgspec.structs.replace(started.options, attributes={})
        assert row.attributes == started.options.attributes == {"region": "eu"}
        assert bytes(row.input) == msgspec.json.encode(BASKET)


async def test_a_start_whose_caller_goes_away_lives_all_the_same():
    async with Env(here) as env:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(env.engine.start, "shop", msgspec.json.encode(BASKET), StartOptions(id="o"))
                while not env.engine.committer.pending:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await trio.sleep(1)
        assert await env.result("shop:o") == 3


async def test_an_engine_that_stops_accepts_nothing():
    async with Env(here) as env:
        env.engine.drain(0)
        with pytest.raises(Unavailable, match="shutting down"):
            await env.start("shop", BASKET)
