"""Acting on many runs at once, over HTTP and through the client."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from admin import shop
from admin.serving import serving
from jivsd.client import Client, ClientError
from jivsd.engine import acting
from jivsd.engine.api import Act, NewStart, StartOptions
from jivsd.records import Status
from jivsd.store.api import RunFilter, StoreAway
from jivsd.testing import Env

API = "/api/v1"


@asynccontextmanager
async def api(folder):
    async with serving(folder) as served, Client.connect(folder) as client:
        yield served.unix, client, served.engine


async def approvals(client, count, **options):
    wanted = [NewStart("approval", options=StartOptions(id=f"a{n}", **options)) for n in range(count)]
    return [one.run_id for one in await client.start_many(wanted)]


async def act(http, status=200, **body):
    response = await http.post(f"{API}/runs/actions", json=body)
    assert response.status_code == status, response.text
    return response.json()


async def test_an_action_by_filter_has_a_result_for_each_run(tmp_path):
    async with api(tmp_path) as (http, client, _):
        ids = await approvals(client, 3)
        await client.start("approval", id="other", idempotency_key="x")
        await client.pause("approval:a1")
        body = {"action": "pause", "reason": "no van", "filter": {"workflow": "approval"}}
        tried = await act(http, **body, dry_run=True)
        assert [one["result"] for one in tried["items"]] == ["would"] * 3
        assert not (await client.show(ids[0])).paused
        done = await act(http, **body)
        assert [(one["workflow_id"], one["result"], one["paused"]) for one in done["items"]] == [
            ("other", "done", True), ("a2", "done", True), ("a0", "done", True),
        ]  # fmt: skip
        assert (done["left"], done["next"]) == (0, None)
        assert (await act(http, **body))["items"] == []
        listed = await client.runs(RunFilter(paused=True))
        assert len(listed.items) == 4
        assert (await client.status()).paused == 4
        reasons = [event.payload for event in (await client.timeline(ids[0])).items if event.kind == "Paused"]
        assert reasons == [b'{"reason":"no van"}']


async def test_a_page_says_how_many_are_left_and_where_to_go_on(tmp_path):
    async with api(tmp_path) as (http, client, _):
        ids = await approvals(client, 5)
        body = {"action": "cancel", "filter": {"open": True}, "limit": 2}
        seen, left, cursor = [], [], None
        while True:
            page = await act(http, **body, cursor=cursor)
            seen += [one["run_id"] for one in page["items"]]
            left.append(page["left"])
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == ids[::-1]
        assert left == [3, 1, 0]
        for run_id in ids:
            assert (await client.result(run_id, 5)).status is Status.CANCELLED


async def test_named_runs_are_answered_in_their_order_one_by_one(tmp_path):
    async with api(tmp_path) as (http, client, _):
        (run_id,) = await approvals(client, 1)
        ended = (await client.start("buy", {"item": "tea"}, wait="5s")).run.run_id
        results = (await act(http, action="terminate", runs=[ended, "approval:a0", "nobody"]))["items"]
        assert [(one["ref"], one["result"], one.get("code")) for one in results] == [
            (ended, "refused", "ended"), ("approval:a0", "done", None), ("nobody", "refused", "not_found"),
        ]  # fmt: skip
        assert results[0]["why"] == f"run {ended} has ended: COMPLETED"
        assert (results[1]["run_id"], results[1]["status"]) == (run_id, "TERMINATED")
        tried = await client.act_on(Act("resume"), [ended, run_id], dry_run=True)
        assert [one.code for one in tried] == ["ended", "ended"]


async def test_a_signal_goes_to_many_and_is_taken_once(tmp_path):
    async with api(tmp_path) as (http, client, _):
        ids = await approvals(client, 3)
        signal = {"action": "signal", "signal": "approve", "payload": "ann", "message_id": "m1"}
        assert [one["result"] for one in (await act(http, **signal, filter={}))["items"]] == ["done"] * 3
        for run_id in ids:
            assert bytes((await client.result(run_id, 5)).output) == b'"ann"'
        refused = await act(http, 422, action="signal", filter={})
        assert refused["field"] == "signal"


async def test_a_retry_by_filter_leaves_out_what_was_made_good(tmp_path):
    async with api(tmp_path) as (_, client, _):
        first = (await client.start("broke", id="b", wait="5s")).run
        other = (await client.start("broke", id="c", wait="5s")).run
        again = await client.retry(first.run_id)
        await client.result(again.run_id, 5)
        results = await client.act_on_all(Act("retry"), RunFilter(workflow="broke"))
        by_ref = {one.ref: one for one in results}
        assert by_ref[first.run_id].result == "refused"
        assert f"run {again.run_id} came after it and is FAILED" in by_ref[first.run_id].why
        assert by_ref[other.run_id].result == by_ref[again.run_id].result == "done"
        assert by_ref[other.run_id].run_id != other.run_id
        (named,) = await client.act_on(Act("retry"), [first.run_id], dry_run=True)
        assert named.result == "would"


async def test_what_cannot_be_done_is_refused_as_a_whole(tmp_path):
    async with api(tmp_path) as (http, client, _):
        both = await act(http, 422, action="pause", runs=["a"], filter={})
        neither = await act(http, 422, action="pause")
        assert both["detail"] == neither["detail"] == "give one of `runs` and `filter`"
        assert (await act(http, 422, action="jump", filter={}))["field"] == "action"
        naive = await act(http, 422, action="pause", filter={"created_after": "2026-01-01T00:00:00"})
        assert naive["field"] == "created_after"
        assert (await act(http, 422, action="pause", filter={}, cursor="x"))["field"] == "cursor"
        with pytest.raises(ClientError, match="retry does nothing to runs that are RUNNING"):
            await client.act_on_page(Act("retry"), RunFilter(statuses=[Status.RUNNING]))


async def test_all_are_paused_and_all_go_on(tmp_path):
    async with api(tmp_path) as (_, client, _):
        await approvals(client, 7)
        nap = await client.start("nap", 3600)
        assert (await client.pause_all("nap")).done == 1
        paused = await client.pause_all(reason="the night")
        assert (paused.done, paused.refusals, paused.next) == (7, 0, None)
        assert (await client.status()).paused == 8
        late = await client.start("approval", id="late")
        assert not (await client.show(late.run.run_id)).paused
        assert (await client.resume_all("approval")).done == 7
        assert (await client.show(nap.run.run_id)).paused
        assert (await client.resume_all()).done == 1
        assert (await client.status()).paused == 0


async def test_pausing_all_says_what_it_could_not_pause_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(acting, "SECONDS", 0.0)
    monkeypatch.setattr(acting, "PIECE", 2)
    async with api(tmp_path) as (http, client, engine):
        ids = await approvals(client, 5)
        switch = engine._messages.switch

        async def refuse(ref, *args, **options):
            if ref == ids[2]:
                raise StoreAway("the disk is full")
            return await switch(ref, *args, **options)

        engine._messages.switch = refuse
        first = (await http.post(f"{API}/runs/pause-all")).json()
        assert first["done"] == 2
        assert first["next"] is not None
        seen = []
        whole = await client.pause_all(on_progress=seen.append)
        assert (whole.done, whole.next) == (2, None)
        assert {one.run_id for one in whole.refused} == {ids[2]}
        assert "the disk is full" in whole.refused[0].why
        assert len(seen) > 2
        refused = await http.post(f"{API}/runs/resume-all", json={"cursor": "7-all"})
        assert refused.json()["field"] == "cursor"


async def test_time_that_is_over_leaves_named_runs_to_the_next_call(tmp_path, monkeypatch):
    monkeypatch.setattr(acting, "PIECE", 2)
    async with api(tmp_path) as (http, client, _):
        ids = await approvals(client, 5)
        monkeypatch.setattr(acting, "SECONDS", -1.0)
        answered = await act(http, action="pause", runs=ids)
        assert [one["result"] for one in answered["items"]] == ["done"] * 2 + ["left"] * 3
        assert answered["left"] == 3
        assert [one.result for one in await client.act_on(Act("resume"), ids)] == ["done"] * 2 + ["refused"] * 3


async def test_what_was_done_is_told_though_the_store_goes_away(monkeypatch):
    monkeypatch.setattr(acting, "PIECE", 2)
    async with Env(shop) as env:
        for _ in range(3):
            await env.start("approval")
        listed = env.store.runs
        asked = 0

        async def runs(*args):
            nonlocal asked
            asked += 1
            if asked > 1:
                raise StoreAway("gone")
            return await listed(*args)

        env.store.runs = runs
        acts = await env.engine.act_on_all(Act("pause"), RunFilter(), by="ann")
        assert [one.result for one in acts.items] == ["done"] * 2
        assert acts.left is None
        env.store.runs = listed
        rest = await env.engine.act_on_all(Act("pause"), RunFilter(), by="ann", cursor=acts.next)
        assert (len(rest.items), rest.next) == (1, None)


async def test_children_that_begin_while_all_are_paused_are_found(monkeypatch):
    """A run starts a child after the first look: it is newer than where that look began."""
    async with Env(shop) as env:
        old = await env.start("approval")
        switch = env.engine._messages.switch
        late = []

        async def slowly(ref, *args, **options):
            if not late:
                late.append(await env.start("approval"))
            return await switch(ref, *args, **options)

        env.engine._messages.switch = slowly
        switched = await env.engine.pause_all(by="ann")
        assert switched.done == 2
        with trio.fail_after(5):
            for run_id in (old, *late):
                assert (await env.engine.show(run_id)).paused
