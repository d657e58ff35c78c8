"""The client says to programs what the engine says, in the same records, and explains why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest
import trio
from admin.serving import Refusing, serving
from hypothesis import given
from hypothesis import strategies as st

from jivsd.admin import publications, wire
from jivsd.admin import server as doors
from jivsd.admin.app import create_app
from jivsd.client import Client, ClientError, ConnectionLost, DaemonNotRunning
from jivsd.clock import microseconds
from jivsd.engine.api import NotFound, StartOptions, Unavailable, Which
from jivsd.jsonguard import MAX_BYTES
from jivsd.listening import close, listen_unix
from jivsd.places import ConfigError
from jivsd.records import NULL, Status
from jivsd.store.api import RunFilter


async def test_statistics_are_the_engine_s(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        for _ in range(3):
            await client.start("buy", {"item": "tea"}, wait="5s")
        await client.start("broke", wait="5s")
        since = served.engine.clock.now() - 60_000_000
        found = await client.statistics(since)
        (broke, buy) = found.items
        assert (buy.workflow, buy.started, buy.ended, buy.failure_rate) == ("buy", 3, {"COMPLETED": 3}, 0.0)
        assert (broke.ended, broke.failure_rate) == ({"FAILED": 1}, 1.0)
        assert (await client.statistics(since, "buy")).items[0].durations == buy.durations
        assert buy.durations == (await served.engine.statistics(since)).items[1].durations
        assert (await client.statistics(since, "nap")).items == []
        with pytest.raises(ClientError, match="no workflow 'nothing'"):
            await client.statistics(since, "nothing")


async def test_it_speaks_for_the_engine(tmp_path):
    """The same records come from both, whatever was asked."""
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        engine = served.engine
        started = await client.start("approval", options=StartOptions(id="a/b", priority=3, attributes={"x": 1}))
        run = started.run.run_id
        ref = "approval:a/b"
        assert await client.show(ref) == await engine.show(run)
        assert await client.why(ref) == await engine.why(ref)
        assert await client.timeline(ref) == await engine.timeline(ref)
        assert (await client.query(ref, "approver")).value == (await engine.query(ref, "approver")).value
        assert (await client.pause(ref, reason="lunch")).paused
        assert not (await client.resume(ref)).paused
        assert not (await client.update(ref, "ask", "who", message_id="u", wait="10ms")).answered
        assert (await client.signal(ref, "approve", "ann", message_id="m")).message_id == "m"
        updated = await client.update(ref, "ask", "who", message_id="u")
        assert updated == await engine.update(run, "ask", b"null", message_id="u")
        assert updated.value == msgspec.Raw(b'"who? ann"')
        ended = await client.result(ref, 5)
        assert ended == await engine.show(run)
        assert ended.output == msgspec.Raw(b'"ann"')
        assert ended.attributes == {"x": 1, "approved_by": "ann"}
        where = RunFilter(workflow="approval", statuses=[Status.COMPLETED], attributes={"x": "1", "approved_by": "ann"})
        listed = await client.runs(where, limit=1)
        assert listed.items == [msgspec.structs.replace(ended, input=NULL, output=None)]
        assert await client.workflows() == engine.workflows()
        assert await client.plugins() == (await engine.status()).plugins
        assert await client.status() == await engine.status()
        assert await client.reload_plugins() == await engine.reload_plugins(by="test")
        (shop,) = [plugin.name for plugin in engine.code.plugins]
        everything = {"dry_run": True, "additions": True, "limit": 7}
        moves = await client.adopt_code(shop, Which(workflow="approval"), **everything)
        assert moves == await engine.adopt_code(shop, Which(workflow="approval"), by="test", **everything)
        with pytest.raises(ClientError, match="there is no plugin 'nope' that new runs use"):
            await client.adopt_code("nope")


async def test_how_far_steps_are(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        run = (await client.start("pack", 4)).run.run_id
        with trio.fail_after(10):
            while not (seen := await client.progress(run)):  # noqa: ASYNC110 -- the step says it in its own time
                await trio.sleep(0.01)
        (engine_says,) = await served.engine.progress(run)
        assert seen == [msgspec.structs.replace(engine_says, at=seen[0].at)]
        assert (seen[0].path, seen[0].done, seen[0].percent) == ("pack", 1, 25)
        view = await client._get(f"/runs/{run}", wire.RunView)
        assert view.progress[0].percent == 25
        assert (await client.why(run)).waits[0].what == 'step pack: 1 of 4 (25 %), {"shelf": 7}'
        await client.terminate(run)
        assert await client.progress(run) == []


async def test_who_holds_a_lock(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        for id in ("first", "second", "third"):
            await client.start("nap", 60, StartOptions(id=id, lock_key="crane"))
        await client.start("nap", 60, StartOptions(lock_key="dock"))
        page = await client.lock_queues(limit=1, waiters=1)
        assert page == await served.engine.lock_queues(None, 1, waiters=1)
        (crane,) = page.items
        assert ([place.workflow_id for place in crane.places], crane.waiting) == (["first", "second"], 2)
        assert [queue.key for queue in (await client.lock_queues(cursor=page.next)).items] == ["dock"]
        assert (await client.lock_queues("nothing")).items == []


async def test_what_was_published(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        await client.start("announce", ["a", "b"], wait="5s")
        first = await client.outbox(limit=2)
        assert first == await served.engine.outbox(0, 2)
        assert [msgspec.json.decode(one.payload) for one in first.items] == [{"item": "a"}, {"item": "b"}]
        assert first.next == 2
        assert [one.topic for one in (await client.outbox(first.next)).items] == ["done"]
        assert [one.number for one in (await client.outbox(topic="done")).items] == [3]
        with pytest.raises(ClientError, match="give one of `older_than` and `before`"):
            await client._post("/outbox/prune", publications.Cleared, publications.ClearBody())
        assert await client.clear_outbox(first.items[0].at) == 0
        assert await client.clear_outbox(served.engine.clock.now() + 1) == 3
        assert (await client.outbox()).items == []


async def test_failures_retries_and_incidents(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        failed = (await client.start("broke", wait="5s")).run
        assert failed == await served.engine.show(failed.run_id)
        assert failed.error is not None
        again = await client.retry(failed.run_id, reason="try again")
        assert again.workflow_id == failed.workflow_id
        held = (await client.start("held", id="h", wait="50ms")).run
        page = await client.incidents(ref="held:h")
        assert page == await served.engine.incidents(ref="held:h")
        incident = page.items[0]
        assert await client.incident(incident.incident_id) == incident
        resolved = await client.resolve_incident(incident.incident_id, b'"by bike"', reason="urgent")
        assert resolved.resolved_why == "urgent"
        assert (await client.result(held.run_id, 5)).status is Status.COMPLETED
        assert (await client.incidents()).items == []
        assert len((await client.incidents(None)).items) == 1
        with pytest.raises(ClientError) as caught:
            await client.retry_incident(incident.incident_id)
        assert caught.value.status == 409


async def test_groups_of_incidents_and_quarantine(tmp_path):
    async with serving(tmp_path) as served, Client.connect(tmp_path) as client:
        runs = [(await client.start("held", wait="50ms")).run for _ in range(2)]
        (group,) = await client.incident_groups()
        assert [group] == await served.engine.incident_groups()
        page = await client.incidents(fingerprint=group.fingerprint)
        assert len(page.items) == 2
        seen = await client.acknowledge_incident(page.items[0].incident_id, reason="mine")
        assert seen == await served.engine.incident(seen.incident_id)
        with pytest.raises(ClientError, match="cannot be skipped"):
            await client.skip_incident(seen.incident_id)
        with pytest.raises(ClientError, match="give a value for its result, or skip it"):
            await client.resolve_incident(seen.incident_id)
        decided = await client.decide_group(group.fingerprint, "resolve", "by bike", reason="urgent")
        assert ({one.run_id for one in decided.items}, decided.more) == ({run.run_id for run in runs}, False)
        held = await client.quarantine_workflow("held", reason="it charges twice")
        assert {one.name for one in await client.workflows() if one.quarantined == held.incident_id} == {"held"}
        with pytest.raises(ClientError, match="jivsd quarantine lift held") as caught:
            await client.start("held")
        assert (caught.value.status, caught.value.code) == (409, "quarantined")
        assert (await client.lift_quarantine("held", reason="mended")).resolved_why == "mended"


async def test_cancel_terminate_and_prune(tmp_path):
    async with serving(tmp_path), Client.connect(tmp_path) as client:
        for act, status in [(client.cancel, Status.CANCELLED), (client.terminate, Status.TERMINATED)]:
            run = (await client.start("approval")).run
            await act(run.run_id, reason="no longer wanted")
            assert (await client.result(run.run_id, 5)).status is status
        with pytest.raises(ClientError, match="give one of"):
            await client.prune(RunFilter())
        assert await client.prune(RunFilter(ended_before=1)) == 0
        assert await client.prune(RunFilter(attributes={"no": "one"}, ended_before=2**52)) == 0
        assert await client.prune(RunFilter(workflow="approval", ended_before=2**52, statuses=[Status.CANCELLED])) == 1


async def test_inputs_are_values_or_json(tmp_path):
    async with serving(tmp_path), Client.connect(tmp_path) as client:
        for given, output in [
            ({"a": [1, None]}, b'{"a":[1,null]}'),
            (b'{"a":1}', b'{"a":1}'),
            (None, b"null"),
            ("b'", b'"b\'"'),
        ]:
            start = await client.start("same", given, wait="5s")
            assert start.run.output == msgspec.Raw(output)
        first = await client.start("same", 1, idempotency_key="k")
        again = await client.start("same", 1, idempotency_key="k")
        assert (again.existing, again.run.run_id) == (True, first.run.run_id)


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (b'1,"id":"x"', 400, "not JSON: extra data, in line 1, column 2"),
        (b"[" * 100, 400, "100 levels"),
        (b"9" * 4000, 400, "(4,000 characters)"),
        (rb'"\u0000"', 400, "NUL"),
        (b'"' + b"x" * MAX_BYTES + b'"', 413, "too large"),
        (b'"' + b"x" * (MAX_BYTES - 10) + b'"', 413, "too large"),
    ],
    ids=["injection", "deep", "digits", "NUL", "large", "large with its envelope"],
)
async def test_bad_json_is_refused_before_it_is_sent(tmp_path, given, status, text):
    async with Client.connect(tmp_path) as client:
        with pytest.raises(ClientError) as caught:
            await client.start("same", given)
    assert caught.value.status == status
    assert text in caught.value.message


async def test_refusals_carry_their_facts(tmp_path):
    async with serving(tmp_path), Client.connect(tmp_path) as client:
        run = (await client.start("approval", id="x")).run
        with pytest.raises(ClientError) as caught:
            await client.start("approval", id="x")
        error = caught.value
        assert (error.status, error.code, error.data) == (409, "open", {"run_id": run.run_id})
        assert str(error) == error.message
        with pytest.raises(ClientError, match="there is no workflow 'nope'") as caught:
            await client.start("nope")
        assert caught.value.status == 404
        for ref in ("x", "..", ".", "a" * 3000, "\ud800", "\0", ""):
            with pytest.raises(ClientError) as caught:
                await client.show(ref)
            assert caught.value.status == 404, ref
        with pytest.raises(ClientError, match="is not one that can be sent"):
            await client.show("x" * 70_000)


async def test_without_a_daemon_it_says_how_to_start_one(tmp_path):
    async with Client.connect(tmp_path) as client:
        for ask in (client.status, lambda: client.start("nap")):
            with pytest.raises(DaemonNotRunning) as caught:
                await ask()
            assert str(caught.value) == (
                f"no daemon answers at socket {tmp_path}/jivsd.sock; start one with: jivsd run --data-dir {tmp_path}"
            )
    async with Client.connect(url="http://127.0.0.1:9") as client:
        with pytest.raises(DaemonNotRunning, match=r"no daemon answers at http://127\.0\.0\.1:9; check the address"):
            await client.status()
    with pytest.raises(ConfigError, match="too long"):
        async with Client.connect(tmp_path / ("x" * 200)):
            pass


@pytest.mark.jump
async def test_a_look_up_is_tried_again_when_nobody_takes_it(tmp_path):
    listen_unix(tmp_path / "jivsd.sock").close()
    async with Client.connect(tmp_path) as client, trio.open_nursery() as nursery:

        async def come_back():
            await trio.sleep(0.1)
            with listen_unix(tmp_path / "jivsd.sock") as listener:
                await doors.Server(create_app(Refusing(NotFound("nobody")), feed=None), [listener]).run()

        nursery.start_soon(come_back)
        with pytest.raises(ClientError, match="nobody"):
            await client.show("x")
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_goes_away_is_told_from_one_that_never_was(tmp_path):
    listener = trio.socket.from_stdlib_socket(listen_unix(tmp_path / "jivsd.sock"))

    async def hang_up():
        for _ in range(2):
            stream, _ = await listener.accept()
            await stream.recv(100_000)
            stream.close()

    async with Client.connect(tmp_path) as client, trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        for ask in (client.status, lambda: client.start("nap")):
            with pytest.raises(ConnectionLost, match="went away before it answered"):
                await ask()
    listener.close()


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "protocol"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<html", 502, "http"),
        (b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n", 500, "http"),
        (b"HTTP/1.1 599 \r\nContent-Length: 2\r\n\r\n[]", 599, "http"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_too(tmp_path, said, status, code):
    listener = trio.socket.from_stdlib_socket(listen_unix(tmp_path / "jivsd.sock"))

    async def answer():
        stream, _ = await listener.accept()
        await stream.recv(100_000)
        await stream.send(said)
        stream.close()

    async with Client.connect(tmp_path) as client, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(ClientError) as caught:
            await client.status()
    assert (caught.value.status, caught.value.code) == (status, code)
    assert str(status) in caught.value.message or code == "protocol"
    listener.close()


@pytest.mark.jump
async def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path):
    listener = listen_unix(tmp_path / "jivsd.sock")
    async with Client.connect(tmp_path) as client:
        with pytest.raises(ClientError, match="did not answer in time") as caught:
            await client.status()
    assert caught.value.status == 503
    close(listener)


async def test_a_socket_of_others_is_no_missing_daemon(tmp_path):
    listener = listen_unix(tmp_path / "jivsd.sock")
    (tmp_path / "jivsd.sock").chmod(0)
    me = os.geteuid()
    async with Client.connect(tmp_path) as client:
        try:
            if me == 0:
                os.seteuid(65534)  # root may use every socket
            with pytest.raises(ClientError, match="you may not use the socket") as caught:
                await client.status()
        finally:
            os.seteuid(me)
    assert caught.value.status == 403
    close(listener)


async def test_tcp_and_tokens(tmp_path):
    async with serving(tmp_path, Refusing(NotFound("nobody")), token="s3cret") as served:
        async with Client.connect(url=served.url) as client:
            with pytest.raises(ClientError) as caught:
                await client.status()
            assert caught.value.status == 401
        async with Client.connect(url=served.url + "/", token="s3cret", by="ann") as client:
            with pytest.raises(ClientError, match="nobody"):
                await client.status()


async def test_proxies_of_the_environment_are_left_out(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(tmp_path, Refusing(Unavailable("full"))) as served:
        for client in (Client.connect(url=served.url), Client.connect(tmp_path)):
            async with client as connected:
                with pytest.raises(ClientError, match="full"):
                    await connected.status()


@pytest.mark.jump
async def test_long_waits_are_several_requests(tmp_path, monkeypatch):
    monkeypatch.setitem(doors._users, os.getuid(), "me")
    asked = []

    class Never:
        code = SimpleNamespace(secrets=lambda *_: ())

        async def result(self, ref, timeout):
            asked.append(timeout)
            await trio.sleep(timeout)
            return wire.RunView(
                run_id="r", workflow="w", workflow_id="i", status=Status.RUNNING, created_at=wire.as_datetime(0)
            ).record()

    async with serving(tmp_path, Never()), Client.connect(tmp_path) as client:
        start = trio.current_time()
        run = await client.result("r", 100)
        assert run.status is Status.RUNNING
        assert trio.current_time() - start == pytest.approx(100, abs=0.1)
    assert asked[:3] == [30, 30, 30]
    assert asked[3] == pytest.approx(10, abs=0.1)


@given(st.integers(0, 100 * 365 * 86_400_000_000))
def test_durations_come_back(length):
    assert microseconds(wire.duration_text(length)) == length


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_come_back(at):
    assert wire.instant(wire.moment(at)) == at


def test_importing_it_imports_no_server():
    code = (
        "import sys, jivsd.client; print([m for m in ('quart', 'hypercorn', 'apsw', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
