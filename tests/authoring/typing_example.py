"""What a type checker must see in plugin code. Nothing here runs: `test_static_types.py` hands it to basedpyright.

Each `pyright: ignore` marks a mistake that must be reported; one that no longer is fails the check.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_type

import msgspec

from jivsd import Context, Job, Retry, Step, StepContext, Transaction, query, signal, step, update, workflow

if TYPE_CHECKING:
    from jivsd import Workflow


class Move(msgspec.Struct):
    tenant: str
    tables: list[str]


@step
async def bare(table: str) -> int:
    return len(table)


@step
def plain(table: str, times: int = 1) -> list[str]:
    return [table] * times


@step
async def with_context(ctx: StepContext, table: str) -> int:
    return ctx.attempt + len(table)


@step
def plain_with_context(ctx: StepContext, table: str) -> bytes:
    return (ctx.run_id + table).encode()


@step
async def in_transaction(tx: Transaction, amount: int) -> float:
    return await tx.execute("UPDATE account SET amount = ?", [amount]) / 2


@step(retry=Retry(attempts=5, first="2s", factor=2, limit="10s"), timeout="10m")
async def copy(ctx: StepContext, table: str) -> int:
    return len(table)


@copy.compensate
async def drop(ctx: StepContext, rows: int | None, table: str) -> None: ...


@copy.compensate(retry=Retry(attempts=9))
async def drop_again(ctx: StepContext, rows: int | None, table: str) -> None: ...


@step(name="plain-with-options", cancel="wait", on_exhausted="incident")
def optioned(a: int, *, b: str) -> tuple[int, str]:
    return a, b


@step(timeout=5)
def optioned_with_context(ctx: StepContext, a: int) -> dict[str, int]:
    return {"a": a}


@step(timeout=0.1)
async def optioned_transaction(tx: Transaction) -> None: ...


@workflow("move-tenant", lock_key="tenant:{tenant}", timeout="7d")
class MoveTenant:
    approved_by: str | None = None

    @signal
    def approve(self, by: str) -> None:
        self.approved_by = by

    @query
    def approved(self) -> bool:
        return self.approved_by is not None

    @signal("turn-down")
    def refuse(self, by: str) -> None: ...

    async def run(self, ctx: Context, move: Move) -> int:
        async with ctx.saga(), ctx.nursery("tables", limit=8) as tables:
            copies = [tables[table].start_soon(copy, table) for table in move.tables]
        assert_type(copies, list[Job[int]])
        with ctx.fail_after("24h"):
            assert_type(await ctx.wait_until(lambda: self.approved_by), str)
        return sum(job.result for job in copies)


@workflow("nap")
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


@workflow("tick")
async def tick(ctx: Context) -> None: ...


async def helper(ctx: Context, depth: int) -> set[int]:
    return {depth}


async def steps(ctx: Context) -> None:
    assert_type(await ctx.step(bare, "t"), int)
    assert_type(await ctx.step(plain, "t", times=2), list[str])
    assert_type(await ctx.step(with_context, "t"), int)
    assert_type(await ctx.step(plain_with_context, table="t"), bytes)
    assert_type(await ctx.step(in_transaction, 5), float)
    assert_type(await ctx.step(copy, "t"), int)
    assert_type(await ctx.step(copy.options(timeout="1h"), "t"), int)
    assert_type(await ctx.step(optioned, 1, b="x"), tuple[int, str])
    assert_type(await ctx.step(optioned_with_context, 1), dict[str, int])
    assert_type(await ctx.step(optioned_transaction), None)

    await ctx.step(bare, 5)  # pyright: ignore[reportArgumentType]
    await ctx.step(copy)  # pyright: ignore[reportCallIssue]
    await ctx.step(copy, "t", "u")  # pyright: ignore[reportCallIssue]
    await ctx.step(copy, tabel="t")  # pyright: ignore[reportCallIssue]
    await ctx.step(copy.options(timeout="1h"), 5)  # pyright: ignore[reportArgumentType]
    await ctx.step(in_transaction, "5")  # pyright: ignore[reportArgumentType]
    await ctx.step(helper, 1)  # pyright: ignore[reportArgumentType, reportCallIssue]
    copy.options(cancel="never")  # pyright: ignore[reportArgumentType]


async def children(ctx: Context) -> None:
    assert_type(await ctx.run(nap, 1.5), str)
    assert_type(await ctx.run(tick), None)
    assert_type(await ctx.run(MoveTenant, Move("t", [])), int)
    assert_type(await ctx.run(nap.options(id="n", timeout="1m"), 1), str)
    assert_type(await ctx.run("other-plugin", {"a": 1}), Any)
    declared: Workflow[[float], str] = nap
    assert_type(await ctx.run(declared, 1), str)

    await ctx.run(nap, "1")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.run(nap)  # pyright: ignore[reportCallIssue]
    await ctx.run(MoveTenant, "t")  # pyright: ignore[reportCallIssue, reportArgumentType]


async def jobs(ctx: Context) -> None:
    async with ctx.nursery("all") as nursery:
        assert_type(nursery.start_soon(copy, "t"), Job[int])
        assert_type(nursery["t"].start_soon(copy.options(timeout="1h"), "t"), Job[int])
        assert_type(nursery.start_soon(plain, "t", times=2), Job[list[str]])
        assert_type(nursery.start_soon(nap, 1.5), Job[str])
        assert_type(nursery[5].start_soon(MoveTenant, Move("t", [])), Job[int])
        assert_type(nursery.start_soon(helper, ctx, depth=1), Job[set[int]])

        nursery.start_soon(copy, 5)  # pyright: ignore[reportCallIssue, reportArgumentType]
        nursery.start_soon(nap, "1")  # pyright: ignore[reportCallIssue, reportArgumentType]
        nursery.start_soon(helper, ctx, "1")  # pyright: ignore[reportCallIssue, reportArgumentType]
    async with ctx.race() as race:
        first = race["first"].start_soon(nap, 1)
    assert_type(first.result, str)
    assert_type(race.winner.result, Any)


@workflow("shop")
class Shop:
    @update
    def add(self, item: str) -> int:
        return len(item)

    @add.validator
    def check(self, item: str) -> None: ...

    @update("order-it")
    async def order(self, ctx: Context, item: str) -> int:
        return await ctx.step(copy, item)

    async def run(self, ctx: Context) -> None: ...


async def doubled(number: int) -> float:
    return number * 2.0


async def maps(ctx: Context, tables: list[str]) -> None:
    assert_type(await ctx.map(copy, tables), list[int])
    assert_type(await ctx.map(copy.options(timeout="1h"), tables, limit=3, key=len), list[int])
    assert_type(await ctx.map(plain, tables), list[list[str]])
    assert_type(await ctx.map(nap, [1.5]), list[str])
    assert_type(await ctx.map(MoveTenant, (Move(table, []) for table in tables)), list[int])
    assert_type(await ctx.map(doubled, [1]), list[float])

    await ctx.map(copy, [5])  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.map(doubled, tables)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def values(ctx: Context) -> None:
    assert_type(await ctx.wait_signal("go", Move), Move)
    assert_type(await ctx.wait_signal("go"), Any)
    assert_type(await ctx.side_effect(datetime.now), datetime)
    assert_type(await ctx.version("new-tax", 1, 2), int)
    assert_type(ctx.now(), datetime)
    assert_type(ctx.attributes, dict[str, str | int | float | bool])
    await ctx.set_attributes(region="eu", tries=3, gold=None)
    await ctx.set_attributes(region=["eu"])  # pyright: ignore[reportArgumentType]
    assert_type(await ctx.wait_until(lambda: ctx.now() if ctx.run_id else None), datetime)
    with ctx.move_on_after("1m") as scope:
        await ctx.sleep("2m")
    assert_type(scope.cancelled, bool)


retried: Step[[str], int] = bare.options(retry=Retry())


@workflow("bad")  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def not_async(ctx: Context) -> None: ...


@workflow("bad")  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedClassDecorator]
class NoRun:
    pass
