"""A crash behind every append of workflows that use every command: the same outcome each time."""

from __future__ import annotations

import pytest
import trio

from engine import commands
from jivsd.engine.api import UpdateFailed
from jivsd.records import Status
from jivsd.store.api import RunFilter
from jivsd.testing import crash_everywhere

pytestmark = pytest.mark.slow


async def everything(env):
    commands.fresh_world()
    run = await env.start("everything", "Ann", attributes={"gone": 1, "tier": "gold"})
    found = await env.result(run)
    assert (found["child"], found["lengths"]) == ("booked for kid", [1, 2, 3])
    assert found["attributes"] == (await env.show(run)).attributes == {"tier": "gold", "stage": "rooms"}


async def talk(env):
    commands.fresh_world()
    run = await env.start("talk", 2, id="t")
    await env.signal("talk:t", "vote", "ann")
    await trio.sleep(5)
    await env.signal(run, "word", {"text": "early"})
    await env.signal(run, "vote", "bob")
    await trio.sleep(5)
    await env.signal(run, "word", {"text": "late"})
    assert await env.result(run) == ["early", "late"]


async def undone(env):
    commands.fresh_world()
    run = await env.start("trip", "child")
    assert (await env.ended(run)).status is Status.COMPENSATED
    assert {line.split(":")[0] for line in commands.world.undone} == {"hotel", "car", "flight", "child kid"}


async def cancelled(env):
    commands.fresh_world()
    parent = await env.start("everything", "Ann")
    await trio.sleep(3600 + 20)
    assert [wait.kind for wait in await env.waits(parent)] == ["child"]
    await env.cancel(parent)
    await env.ended(parent)


async def decided(env):
    commands.fresh_world()
    run = await env.start("decide", "how many?")
    await trio.sleep(10)
    await env.resolve(run, 3)
    assert await env.result(run) == 3


async def in_turn(env):
    commands.fresh_world()
    first = await env.start("patient", 60)
    second = await env.start("patient", 10)
    await env.pause(first)
    await trio.sleep(100)
    await env.resume(first)
    third = await env.start("patient", 10)
    await env.terminate(second)
    assert await env.result(third) == "booked bench"
    await env.ended(first)
    await env.ended(second)


async def retried(env):
    commands.fresh_world().broken.add("mill")
    run = await env.start("repairable", "mill", id="r")
    assert (await env.ended(run)).status is Status.FAILED
    other = await env.start("patient", 10)
    commands.world.broken.clear()
    again = await env.retry(run)
    await env.signal("repairable:r", "done", "yes")
    assert (await env.result(again))[-1] == "yes"
    await env.ended(other)


async def family(env):
    commands.fresh_world()
    run = await env.start("children", ["child:good", "child:bad", "trip:no", "nobody:x", "decide:wait"])
    await trio.sleep(60)
    found = await env.engine.runs(RunFilter(workflow="decide"))
    await env.terminate(found.items[0].run_id)
    assert await env.result(run) == ["booked for good", "COMPENSATED", "COMPENSATED", "FAILED", "TERMINATED"]


async def updated(env):
    commands.fresh_world()
    first = await env.start("basket", False)
    assert await env.update(first, "add", "lamp", message_id="a") == 1
    env.later(4, env.signal, first, "pay")
    assert await env.update(first, "reserve", "desk") == "booked desk"
    assert await env.result(first) == ["lamp"]  # as it was when the code returned
    assert await env.update(first, "add", "lamp", message_id="a") == 1
    second = await env.start("basket", True)
    with pytest.raises(UpdateFailed, match="sold out"):
        await env.update(second, "reserve", "bad")
    await env.signal(second, "pay")
    assert (await env.ended(second)).status is Status.COMPENSATED
    assert set(commands.world.undone) == {"bad: booked bad"}


SCENARIOS = [everything, updated, talk, undone, cancelled, decided, in_turn, retried, family]


@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda it: it.__name__)
def test_no_crash_changes_what_comes_of_it(scenario, passivate_after):
    async def played(env):
        await scenario(env)
        no_more_than_needed(commands.world)

    assert crash_everywhere([commands], played, passivate_after=passivate_after) > 5


@pytest.mark.slow
@pytest.mark.usefixtures("journals_in_postgres")
def test_no_crash_changes_what_comes_of_it_in_postgresql():
    assert crash_everywhere([commands], talk) > 5


@pytest.mark.soak
@pytest.mark.parametrize("passivate_after", [None, 0], ids=["resident", "passivated"])
@pytest.mark.parametrize("later", [1, 2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda it: it.__name__)
def test_nor_do_two_crashes(scenario, later, passivate_after):
    crash_everywhere([commands], scenario, again=[later], passivate_after=passivate_after)


def no_more_than_needed(world):
    """A step has one key in all its attempts; it is run again only when the process died in it."""
    assert all(len(keys) == 1 for keys in world.keys.values())
    assert sum(count - 1 for path, count in world.executed.items() if "flaky" not in path) <= 3
