from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from jivsd.records import Status
from jivsd.resources import bundled
from jivsd.testing import Env

pytestmark = pytest.mark.jump


async def entries(env, run):
    rows = []

    def read(db):
        rows.extend(
            db.execute("SELECT what, item, amount FROM showcase_ledger WHERE run_id = ? ORDER BY entry", (run,))
        )

    await env.store._read(read)
    return rows


def calls(world):
    with closing(sqlite3.connect(world)) as db:
        return db.execute("SELECT path, count(*) FROM call GROUP BY path ORDER BY min(at)").fetchall()


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "world.sqlite"
    path.touch()
    return str(path)


def env():
    return Env(bundled("plugins") / "showcase")


@pytest.mark.parametrize("card", ["good", "flaky"])
async def test_an_order_is_paid_and_delivered(world, card):
    async with env() as engine:
        run = await engine.start("order", {"order": "A-1", "amount": 70, "card": card, "world": world})
        receipt = await engine.result(run)
        assert receipt["order"] == "A-1"
        assert receipt["paid"] == 70
        assert await entries(engine, run) == [("reserve", "A-1", 70), ("settle", "A-1", 70)]
    assert calls(world) == [("pack", 1), ("charge", 1), ("hand_over", 1)]


async def test_an_order_whose_payment_fails_is_undone_in_reverse(world):
    async with env() as engine:
        run = await engine.start("order", {"order": "A-1", "amount": 70, "card": "declined", "world": world})
        row = await engine.ended(run)
        assert row.status is Status.COMPENSATED
        assert row.error is None or "declined" in row.error.message
        assert await entries(engine, run) == [("reserve", "A-1", 70), ("release", "A-1", -70)]
    assert calls(world) == [("pack", 1), ("pack!undo", 1)]


async def test_a_campaign_sends_every_letter_once_and_closes_when_it_is_approved(world):
    async with env() as engine:
        run = await engine.start("campaign", {"letters": 12, "at_once": 5, "spread": 60, "world": world})
        while (await engine.query(run, "progress"))["phase"] != "APPROVAL":
            await engine.engine.result(run, 10)
        assert (await engine.query(run, "progress"))["done"] == 12
        assert {wait.kind for wait in await engine.waits(run)} == {"timer", "until"}  # the timer is the run's deadline
        await engine.signal(run, "approve", "ann")
        assert await engine.result(run) == "ann"
        ledger = await entries(engine, run)
    assert ledger[-1] == ("close", "ann", 1)
    assert sorted(int(item) for what, item, _ in ledger if what == "letter") == list(range(12))
    assert len(calls(world)) == 12


async def test_a_world_that_is_not_there_is_not_made(tmp_path):
    async with env() as engine:
        run = await engine.start("order", {"order": "A-1", "world": str(tmp_path / "none.sqlite")})
        row = await engine.ended(run)
        assert row.status is Status.COMPENSATED
        assert not (tmp_path / "none.sqlite").exists()


async def test_cancelling_a_paid_order_gives_the_money_back(world):
    async with env() as engine:
        run = await engine.start("order", {"order": "A-1", "pace": 0.001, "world": world})
        while not any(wait.kind == "child" for wait in await engine.waits(run)):
            await engine.engine.result(run, 0.0001)
        await engine.engine.cancel(run, by="test")
        assert (await engine.ended(run)).status is Status.CANCELLED
        ledger = await entries(engine, run)
    assert sum(amount for _, _, amount in ledger if amount) == 0
    assert ("charge!undo", 1) in calls(world)
