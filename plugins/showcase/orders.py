"""Orders: goods are reserved and packed, the payment is taken, a child run delivers. A payment that fails undoes all.

`card` decides: "good" pays; "flaky" pays at the third attempt; "declined" never does, so that the order ends
COMPENSATED.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
import trio

from jivsd import Context, Retry, StepContext, Transaction, step, workflow

from . import ledger, world


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input. `amount` is in cents, `pace` the seconds that each ordinary step takes."""

    order: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    amount: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] = 1000
    card: Literal["good", "flaky", "declined"] = "good"
    pace: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    world: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The output."""

    order: str
    paid: int
    payment: str


class PaymentDeclined(Exception):
    """The bank will not pay, however often it is asked."""


class BankBusy(Exception):
    """The bank asks to come again."""


PATIENT = Retry(attempts=5, first="50ms", factor=2, limit="1s", give_up_on=(PaymentDeclined,))


@step
async def reserve(tx: Transaction, run_id: str, order: Order) -> None:
    """Take the goods off the shelf: exactly once."""
    await ledger.enter(tx, run_id, "reserve", order.order, order.amount)


@reserve.compensate
async def release(tx: Transaction, reserved: None, run_id: str, order: Order) -> None:
    await ledger.enter(tx, run_id, "release", order.order, -order.amount)


@step(retry=PATIENT)
def pack(ctx: StepContext, order: Order) -> str:
    """Pack the goods, and return the parcel's name."""
    world.call(order.world, ctx)
    time.sleep(order.pace)
    return f"parcel-{order.order}"


@pack.compensate
def unpack(ctx: StepContext, parcel: str | None, order: Order) -> None:
    world.call(order.world, ctx)
    time.sleep(order.pace)


@step(retry=PATIENT)
async def check_card(ctx: StepContext, order: Order) -> None:
    """Ask the bank whether it will pay."""
    await trio.sleep(order.pace)
    if order.card == "declined":
        raise PaymentDeclined(f"the card for order {order.order} is declined")
    if order.card == "flaky" and ctx.attempt < 3:
        raise BankBusy("the bank is busy")


@step(retry=PATIENT)
def charge(ctx: StepContext, order: Order) -> str:
    """Take the money, and return the payment's name."""
    world.call(order.world, ctx)
    time.sleep(order.pace)
    return f"payment-{ctx.idempotency_key[:12]}"


@charge.compensate
def refund(ctx: StepContext, payment: str | None, order: Order) -> None:
    world.call(order.world, ctx)
    time.sleep(order.pace)


@step
async def settle(tx: Transaction, run_id: str, order: Order) -> None:
    """Enter the payment: exactly once."""
    await ledger.enter(tx, run_id, "settle", order.order, order.amount)


@settle.compensate
async def unsettle(tx: Transaction, settled: None, run_id: str, order: Order) -> None:
    await ledger.enter(tx, run_id, "unsettle", order.order, -order.amount)


@step(retry=PATIENT)
def hand_over(ctx: StepContext, order: Order) -> None:
    world.call(order.world, ctx)
    time.sleep(order.pace)


@workflow("delivery")
async def delivery(ctx: Context, order: Order) -> None:
    """Bring a parcel: after a while."""
    await ctx.sleep(order.pace * 2)
    await ctx.step(hand_over, order)


@workflow("order", lock_key="order:{order}", timeout="1h")
async def order(ctx: Context, order: Order) -> Receipt:
    """Sell something. When the payment fails, the parcel is unpacked and the goods go back, last things first."""
    await ctx.step(reserve, ctx.run_id, order)
    await ctx.step(pack, order)
    await ctx.step(check_card, order)
    payment = await ctx.step(charge, order)
    await ctx.step(settle, ctx.run_id, order)
    await ctx.run(delivery, order)
    return Receipt(order.order, order.amount, payment)
