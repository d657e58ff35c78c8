"""A campaign: many letters side by side, each after a time of its own; closed once somebody has approved."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from jivsd import Context, Daemon, Retry, StepContext, Transaction, query, route, signal, step, workflow

from . import ledger, world


class Mailing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input: `letters` are sent, `at_once` at a time, each at most `spread` seconds after its turn has come.

    `pace`: the seconds that sending one takes.
    """

    letters: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    at_once: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 10
    spread: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    pace: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    world: str | None = None


class Progress(msgspec.Struct, frozen=True):
    """The answer of the query `progress`, in the form that `jivsd start --wait` draws."""

    phase: str
    done: int
    total: int
    unit: str
    detail: str


@step(retry=Retry(attempts=5, first="50ms", factor=2, limit="1s"))
def send(ctx: StepContext, mailing: Mailing, number: int) -> None:
    """Send a letter: at least once."""
    world.call(mailing.world, ctx)
    time.sleep(mailing.pace)


@step
async def note(tx: Transaction, run_id: str, what: str, item: str) -> None:
    """Note in the ledger, exactly once, that something was done."""
    await ledger.enter(tx, run_id, what, item, 1)


@workflow("campaign", timeout="1d")
class Campaign:
    """Send letters, wait for the signal `approve`, close the books. Returns who approved."""

    def __init__(self) -> None:
        self.mailing = Mailing()
        self.sent = 0
        self.approved_by: str | None = None

    @signal
    def approve(self, by: str) -> None:
        self.approved_by = by

    @query
    def progress(self) -> Progress:
        done = self.sent == self.mailing.letters
        detail = (
            f"approved by {self.approved_by}" if self.approved_by else "waits for the signal approve" if done else ""
        )
        return Progress("APPROVAL" if done else "LETTERS", self.sent, self.mailing.letters, "letters", detail)

    async def run(self, ctx: Context, mailing: Mailing) -> str:
        self.mailing = mailing
        async with ctx.nursery("letters", limit=mailing.at_once) as letters:
            for number in range(mailing.letters):
                letters[number].start_soon(self._letter, ctx, number)
        approved_by = await ctx.wait_until(lambda: self.approved_by)
        await ctx.step(note, ctx.run_id, "close", approved_by)
        return approved_by

    async def _letter(self, ctx: Context, number: int) -> None:
        await ctx.sleep(ctx.random.random() * self.mailing.spread)
        await ctx.step(send, self.mailing, number)
        await ctx.step(note, ctx.run_id, "letter", str(number))
        self.sent += 1


class Standing(msgspec.Struct, frozen=True):
    """A campaign and how far it is."""

    id: str
    status: str
    sent: int
    letters: int


@route("GET", "/campaigns")
async def campaigns(daemon: Daemon, limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10) -> list[Standing]:
    """The newest campaigns, and how many letters each has sent."""
    found: list[Standing] = []
    for run in await daemon.runs(workflow="campaign", limit=limit):
        progress = msgspec.convert(await daemon.query(run.run_id, "progress"), Progress)
        found.append(Standing(run.workflow_id, run.status, progress.done, progress.total))
    return found
