"""A plugin with routes of all kinds, for tests."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import trio

from jivsd import Context, Daemon, RouteError, RunState, query, route, signal, workflow


class Order(msgspec.Struct, forbid_unknown_fields=True):
    item: str
    amount: Annotated[int, msgspec.Meta(ge=1)] = 1


class Page(msgspec.Struct):
    items: list[Order]


@workflow("wish")
class Wish:
    granted = False

    @signal
    def grant(self) -> None:
        self.granted = True

    @query
    def is_granted(self) -> bool:
        return self.granted

    async def run(self, ctx: Context, order: Order) -> str:
        await ctx.wait_until(lambda: self.granted)
        return order.item


@route("GET", "/orders/{item}/of/{number}")
async def show_order(daemon: Daemon, item: str, number: int, times: float = 1.0, tag: list[str] = []) -> dict[str, str]:  # noqa: B006 -- of a type
    """Show an order.

    With all that was said.
    """
    return {"item": item, "number": str(number), "times": str(times), "tag": ",".join(tag)}


@route("GET", "/orders/newest/of/all")
async def newest(daemon: Daemon) -> Page:
    return Page([Order("tea")])


@route("POST", "/orders")
async def order(daemon: Daemon, body: Order) -> RunState:
    return await daemon.start("wish", body, id=f"order-{body.item}", attributes={"by": daemon.caller})


@route("POST", "/orders/{run}/grant", role="admin")
async def grant(daemon: Daemon, run: str) -> bool:
    before = await daemon.query(run, "is_granted")
    await daemon.signal(run, "grant", message_id="g")
    return before


@route("GET", "/runs")
async def runs(daemon: Daemon, status: str = "RUNNING") -> list[str]:
    found = await daemon.runs(workflow="wish", status=[status], open=True, limit=5)
    return [(await daemon.show(run.run_id)).input["item"] for run in found]


@route("DELETE", "/trouble/{kind}", timeout="50ms")
async def trouble(daemon: Daemon, kind: str) -> Any:
    match kind:
        case "refuse":
            raise RouteError(409, "not today", code="closed", day="sunday")
        case "exit":
            sys.exit(3)
        case "late":
            await trio.sleep_forever()
        case "odd":
            return object()
        case "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble, daemon, "secret")
        case "group-exit":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble, daemon, "exit")
        case "own":
            await daemon.show("nobody")
    raise ValueError("the password is xyzzy")
