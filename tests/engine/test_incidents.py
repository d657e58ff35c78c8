"""Incidents: what opens them, what they hold, and the ways out; all recorded with who and why."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio

from engine import commands
from jivsd import NO_RETRY, Context, Failure, StepContext, step, workflow
from jivsd.clock import SECOND, as_datetime
from jivsd.engine.api import Conflict, Invalid, NotFound
from jivsd.records import Incident, IncidentState, Kind, Status, payload_of
from jivsd.testing import Env

pytestmark = pytest.mark.jump
here = sys.modules[__name__]

broken = {"yes"}
log: list[str] = []


class Broken(Failure):
    pass


@step(retry=NO_RETRY, on_exhausted="incident")
async def fragile(ctx: StepContext, number: int) -> int:
    log.append(f"attempt {ctx.attempt}")
    if broken:
        raise Broken("still broken")
    return number * 2


@step
async def do(what: str) -> str:
    return what


@do.compensate(retry=NO_RETRY)
async def undo(did: str | None, what: str) -> None:
    log.append(f"undo {what}")
    if broken:
        raise Broken("cannot undo")


@step(retry=NO_RETRY)
async def fail() -> None:
    raise Broken("the end")


@workflow("holds")
async def holds(ctx: Context, number: int) -> int:
    doubled = await ctx.step(fragile, number)
    await ctx.step(do, "after")
    return doubled


@workflow("undoes")
async def undoes(ctx: Context) -> None:
    await ctx.step(do, "one")
    await ctx.step(do, "two")
    await ctx.step(fail)


async def held(env: Env, workflow: str = "holds", input: Any = 21) -> tuple[str, Incident]:
    broken.add("yes")
    log.clear()
    run = await env.start(workflow, input)
    await trio.testing.wait_all_tasks_blocked()
    (incident,) = (await env.engine.incidents(ref=run)).items
    return run, incident


async def test_a_step_with_that_policy_blocks_its_run():
    async with Env(here) as env:
        run, incident = await held(env)
        row = await env.show(run)
        assert row.status is Status.BLOCKED
        assert (incident.kind, incident.path, incident.workflow) == ("step", "fragile", "holds")
        assert incident.message == "fragile failed 1 times; last: Broken: still broken"
        (wait,) = await env.waits(run)
        assert (wait.kind, wait.path, wait.error) == ("incident", "fragile", "Broken: still broken")
        assert (await env.engine.status()).incidents == 1


async def test_retry_tries_again_as_often_as_it_takes_and_keeps_every_decision():
    async with Env(here) as env:
        run, first = await held(env)
        closed = await env.engine.retry_incident(first.incident_id, by="ann", why="looked fine")
        assert (closed.state, closed.resolution, closed.resolved_by) == ("RESOLVED", "retry", "ann")
        await trio.testing.wait_all_tasks_blocked()
        (second,) = (await env.engine.incidents(ref=run)).items
        assert second.incident_id != first.incident_id
        broken.clear()
        await env.engine.retry_incident(second.incident_id, by="bob", why="mended it")
        assert await env.result(run) == 42
        decided = (await env.engine.incidents(None, ref=run)).items
        assert sorted((one.resolved_by, one.resolved_why) for one in decided) == [
            ("ann", "looked fine"),
            ("bob", "mended it"),
        ]
        retried = [event for event in await env.events(run) if event.kind == Kind.ATTEMPT_FAILED and event.by]
        assert [(event.by, payload_of(event).error.message) for event in retried] == [
            ("ann", "looked fine"),
            ("bob", "mended it"),
        ]
        with pytest.raises(Conflict, match="is resolved already"):
            await env.engine.retry_incident(first.incident_id, by="cid", why="again")


async def test_a_value_given_by_a_person_becomes_the_steps_result():
    async with Env(here) as env:
        run, incident = await held(env)
        for value in (b'"no number"', b"{", b"1.5"):
            with pytest.raises(Invalid, match="does not fit the result of fragile"):
                await env.engine.resolve_incident(incident.incident_id, value, by="ann", why="a guess")
        assert (await env.engine.incident(incident.incident_id)).state is IncidentState.OPEN
        closed = await env.engine.resolve_incident(incident.incident_id, b"7", by="ann", why="by phone")
        assert (closed.resolution, closed.resolved_by, closed.resolved_why) == ("value", "ann", "by phone")
        assert await env.result(run) == 7
        (done,) = [event for event in await env.events(run) if event.path == "fragile" and event.kind == Kind.STEP_DONE]
        assert (done.by, payload_of(done).why) == ("ann", "by phone")
        assert await env.store.incident(incident.incident_id) == closed


async def test_a_held_step_stays_held_when_the_run_comes_back_and_has_one_incident():
    async with Env(here) as env:
        run, incident = await held(env)
        for _ in range(3):
            env.engine.actors[run].fail(RuntimeError("planted"))
            await trio.sleep(10)
        assert [one.incident_id for one in (await env.engine.incidents(ref=run)).items] == [incident.incident_id]
        assert log == ["attempt 1"]
        await env.resolve(run, 1)
        assert await env.result(run) == 1


async def test_a_compensation_that_fails_for_good_blocks_until_a_person_decides():
    async with Env(here) as env:
        run, incident = await held(env, "undoes", None)
        assert (await env.show(run)).status is Status.COMPENSATION_BLOCKED
        assert (incident.kind, incident.path) == ("compensation", "do#2!undo")
        with pytest.raises(Conflict, match="only a failed one is retried"):
            await env.engine.retry(run, by="ann")
        await env.cancel(run)  # no way out: it is undoing already
        broken.clear()
        await env.engine.retry_incident(incident.incident_id, by="ann", why="mended")
        row = await env.ended(run)
        assert row.status is Status.COMPENSATED
        assert log == ["undo two", "undo two", "undo one"]


async def test_a_compensation_can_be_resolved_by_hand():
    async with Env(here) as env:
        run, incident = await held(env, "undoes", None)
        broken.clear()
        await env.engine.resolve_incident(incident.incident_id, b"null", by="ann", why="did it by hand")
        assert (await env.ended(run)).status is Status.COMPENSATED
        assert log == ["undo two", "undo one"]


async def test_an_incident_that_nobody_knows():
    async with Env(here) as env:
        with pytest.raises(NotFound, match="no incident"):
            await env.engine.incident("nothing")
        with pytest.raises(NotFound):
            await env.engine.retry_incident("nothing", by="ann", why="")


async def test_incidents_are_listed_newest_first_by_state_and_run():
    async with Env(here) as env:
        _, first = await held(env)
        run, second = await held(env)
        await env.resolve(run, 3)
        assert [one.incident_id for one in (await env.engine.incidents()).items] == [first.incident_id]
        assert [one.incident_id for one in (await env.engine.incidents(None)).items] == [
            second.incident_id,
            first.incident_id,
        ]
        page = await env.engine.incidents(None, limit=1)
        assert page.next is not None
        rest = await env.engine.incidents(None, limit=1, cursor=page.next)
        assert [one.incident_id for one in rest.items] == [first.incident_id]


# ---- signals and steps beside a held step


@workflow("beside")
async def beside(ctx: Context) -> list[Any]:
    async with ctx.nursery() as nursery:
        jobs = [nursery["held"].start_soon(fragile, 1), nursery["booked"].start_soon(commands.book, "room")]
    return [job.result for job in jobs]


async def test_other_branches_go_on_beside_a_held_step():
    commands.fresh_world()
    async with Env(here) as env:
        run, _ = await held(env, "beside", None)
        await trio.sleep(10)
        assert (await env.show(run)).status is Status.BLOCKED
        assert len(commands.world.executed) == 1
        await env.resolve(run, 2)
        assert await env.result(run) == [2, "booked room"]


# ---- what people can do about them


@step(retry=NO_RETRY, on_exhausted="incident")
async def optional(ctx: StepContext, number: int) -> int | None:
    raise Broken(f"order {number} at /srv/orders/{number}.json: 'item {number}' is missing")


@workflow("optionals")
async def optionals(ctx: Context, number: int) -> int | None:
    async with ctx.nursery("orders") as nursery:
        job = nursery[f"order-{number}"].start_soon(optional, number)
    return job.result


async def test_a_step_is_skipped_only_where_its_result_may_be_absent():
    async with Env(here) as env:
        run, incident = await held(env)
        with pytest.raises(Invalid, match=r"fragile cannot be skipped.*Expected `int`, got `null`.*give a value"):
            await env.skip(run)
        assert (await env.engine.incident(incident.incident_id)).state is IncidentState.OPEN
        run, incident = await held(env, "optionals", 7)
        await env.skip(run, why="nobody misses it")
        assert await env.result(run) is None
        (done,) = [event for event in await env.events(run) if event.kind == Kind.STEP_DONE]
        assert (done.by, payload_of(done).why, payload_of(done).skipped) == ("test", "nobody misses it", True)
        closed = await env.engine.incident(incident.incident_id)
        assert (closed.resolution, closed.resolved_by) == ("skip", "test")


async def test_who_looks_after_an_incident_is_kept_through_all_that_follows():
    async with Env(here) as env:
        run, incident = await held(env)
        seen = await env.engine.acknowledge_incident(incident.incident_id, by="ann", why="mine")
        assert (seen.state, seen.acknowledged and seen.acknowledged.by) == (IncidentState.OPEN, "ann")
        env.engine.actors[run].fail(RuntimeError("planted"))
        await trio.sleep(10)
        await env.engine.acknowledge_incident(incident.incident_id, by="bob", why="no, mine")
        await env.engine.resolve_incident(incident.incident_id, b"7", by="cid", why="by phone")
        history = (await env.engine.incident(incident.incident_id)).history
        assert [(one.what, one.by, one.why) for one in history] == [
            ("acknowledge", "ann", "mine"),
            ("acknowledge", "bob", "no, mine"),
            ("value", "cid", "by phone"),
        ]
        with pytest.raises(Conflict, match="resolved already"):
            await env.engine.acknowledge_incident(incident.incident_id, by="dan", why="late")


async def test_a_step_needs_a_value_and_what_holds_none_needs_none():
    async with Env(here) as env:
        _, incident = await held(env)
        with pytest.raises(Invalid, match="holds step fragile: give a value for its result, or skip it"):
            await env.engine.resolve_incident(incident.incident_id, None, by="ann", why="")


async def test_incidents_of_one_cause_are_one_group_whatever_varies_in_them():
    async with Env(here) as env:
        broken.clear()
        first = env.now
        runs = [await env.start("optionals", number) for number in (7, 12, 4711)]
        await env.sleep("1h")
        runs.append(await env.start("optionals", 9))
        await held(env)
        await env.sleep("1s")
        other, group = sorted(await env.engine.incident_groups(), key=lambda one: one.count)
        assert (other.kind, other.path, other.count) == ("step", "fragile", 1)
        assert (group.workflow, group.count, group.runs, group.acknowledged) == ("optionals", 4, 4, 0)
        assert group.message == (
            "orders[order-9]/optional failed 1 times; last: Broken: order 9 at /srv/orders/9.json: 'item 9' is missing"
        )
        assert as_datetime(group.first_at) == first
        assert group.last_at - group.first_at == 3600 * SECOND
        page = await env.engine.incidents(fingerprint=group.fingerprint, limit=3)
        assert [one.run_id for one in page.items] == [runs[3], runs[2], runs[1]]
        assert page.next is not None


async def test_a_whole_group_is_decided_at_once_with_a_result_for_each():
    async with Env(here) as env:
        runs = [await env.start("optionals", number) for number in range(5)]
        await env.sleep("1s")
        (group,) = await env.engine.incident_groups()
        seen = await env.engine.decide_group(group.fingerprint, "acknowledge", by="ann", why="mine")
        assert [one.error for one in seen.items] == [None] * 5
        assert (await env.engine.incident_groups())[0].acknowledged == 5
        refused = await env.engine.decide_group(group.fingerprint, "resolve", b'"x"', by="ann", why="a typo")
        assert {one.code for one in refused.items} == {"invalid"}
        assert all("does not fit the result of" in (one.error or "") for one in refused.items)
        some = await env.engine.decide_group(group.fingerprint, "resolve", b"3", by="ann", why="known", limit=2)
        assert ([one.run_id for one in some.items], some.more) == ([runs[4], runs[3]], True)
        await env.engine.decide_group(group.fingerprint, "skip", by="ann", why="not needed")
        assert [await env.result(run) for run in runs] == [None, None, None, 3, 3]
        with pytest.raises(NotFound, match="no open incident with the fingerprint"):
            await env.engine.decide_group(group.fingerprint, "retry", by="ann", why="")


async def test_a_group_that_is_tried_again_and_fails_again_is_a_new_one_of_the_same_fingerprint():
    async with Env(here) as env:
        for number in range(3):
            await env.start("optionals", number)
        await env.sleep("1s")
        (group,) = await env.engine.incident_groups()
        again = await env.engine.decide_group(group.fingerprint, "retry", by="ann", why="once more")
        assert [one.error for one in again.items] == [None] * 3
        await env.sleep("1s")
        (same,) = await env.engine.incident_groups()
        assert (same.fingerprint, same.count, same.acknowledged) == (group.fingerprint, 3, 0)
        assert same.incident_id not in {one.incident_id for one in again.items}
        assert len((await env.engine.incidents(None)).items) == 6
