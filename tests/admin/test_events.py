"""The feed over HTTP: WebSockets and pages, cursors and filters, and how it ends."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, ConnectionRejected
from wsproto.utilities import LocalProtocolError

from admin.serving import serving
from jivsd.admin.access import Role, Token

EVENTS = "/api/v1/events"


@asynccontextmanager
async def followed(served, query="", **options):
    """A WebSocket on which events come."""
    path = served.folder / "jivsd.sock"
    try:
        async with trio.open_nursery() as nursery, await trio.open_unix_socket(path) as stream:
            socket = await trio_websocket.wrap_client_stream(nursery, stream, "jivsd", EVENTS + query, **options)
            try:
                yield socket
            finally:
                with trio.move_on_after(1, shield=True):
                    await socket.aclose()
    except* LocalProtocolError:
        pass  # trio-websocket: a ping came while it closed


async def frame(socket):
    with trio.fail_after(5):
        return msgspec.json.decode(await socket.get_message())


async def until(socket, kind):
    """The events up to one of a kind."""
    found = []
    while not found or found[-1]["kind"] != kind:
        found += (await frame(socket))["events"]
    return found


async def start(served, workflow="nap", **body):
    answer = await served.unix.post("/api/v1/runs?wait=5s", json={"workflow": workflow, "input": 0, **body})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()["run"]


async def test_events_come_as_they_happen(tmp_path):
    async with serving(tmp_path) as served, followed(served) as socket:
        first = await frame(socket)
        assert first["events"] == []
        run = await start(served, id="a")
        events = await until(socket, "Ended")
        assert events[0]["kind"] == "Started"
        assert {one["run_id"] for one in events} == {run["run_id"]}
        assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
        last = events[-1]
        assert (last["workflow"], last["id"], last["status"]) == ("nap", "a", "COMPLETED")
        assert last["at"].endswith("Z")


async def test_what_is_sent_is_counted(tmp_path):
    async with serving(tmp_path) as served:
        async with followed(served) as socket:
            await frame(socket)
            await start(served)
            events = await until(socket, "Ended")
            text = (await served.unix.get("/metrics")).text
            assert "\njivsd_feed_followers 1.0\n" in text
            assert f"\njivsd_feed_events_total {len(events)}.0\n" in text
            assert "\njivsd_feed_cut_total 0.0\n" in text
        with trio.fail_after(5):
            while "\njivsd_feed_followers 0.0\n" not in (await served.unix.get("/metrics")).text:
                pass


async def test_who_comes_back_misses_nothing_and_sees_nothing_twice(tmp_path):
    async with serving(tmp_path) as served:
        async with followed(served) as socket:
            await start(served)
            events = await until(socket, "Ended")
        for number in range(3):
            await start(served, id=f"r{number}")
        whole = await served.unix.get(EVENTS, params={"after": "oldest", "limit": 1000})
        keys = [(one["run_id"], one["seq"]) for one in whole.json()["events"]]
        for event in events:
            place = keys.index((event["run_id"], event["seq"])) + 1
            async with followed(served, f"?after={event['cursor']}") as socket:
                found = []
                while len(found) < len(keys) - place:
                    found += (await frame(socket))["events"]
                assert [(one["run_id"], one["seq"]) for one in found] == keys[place:]


async def test_the_same_by_polling(tmp_path):
    async with serving(tmp_path) as served:
        runs = [await start(served, id=f"r{number}") for number in range(3)]
        seen, cursor = [], "oldest"
        while True:
            page = (await served.unix.get(EVENTS, params={"after": cursor, "limit": 2})).json()
            cursor = page["cursor"]
            assert len(page["events"]) <= 2
            seen += page["events"]
            if not page["events"]:
                break
        assert list(dict.fromkeys(one["run_id"] for one in seen)) == [run["run_id"] for run in runs]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, served)
            page = (await served.unix.get(EVENTS, params={"after": cursor, "wait": "5s"})).json()
            assert page["events"][0]["kind"] == "Started"
        empty = (await served.unix.get(EVENTS, params={"wait": "20ms"})).json()
        assert empty["events"] == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, served)
            query = {"after": empty["cursor"], "wait": "5s", "kind": "Ended"}
            assert [one["kind"] for one in (await served.unix.get(EVENTS, params=query)).json()["events"]] == ["Ended"]


async def test_the_place_before_the_oldest_event_is_a_cursor_too(tmp_path):
    async with serving(tmp_path) as served, followed(served, "?after=oldest") as socket:
        assert await frame(socket) == {"events": [], "cursor": "oldest"}


async def test_filters(tmp_path):
    async with serving(tmp_path) as served:
        kept = await start(served, id="kept")
        await start(served, id="other")
        for query in ("id=kept", f"run={kept['run_id']}", "id=kept&id=nobody", "workflow=nap&id=kept&workflow=x"):
            page = (await served.unix.get(f"{EVENTS}?after=oldest&{query}")).json()
            assert {one["id"] for one in page["events"]} == {"kept"}
        page = (await served.unix.get(f"{EVENTS}?after=oldest&kind=Started,Ended")).json()
        assert [one["kind"] for one in page["events"]] == ["Started", "Ended"] * 2
        async with followed(served, "?after=oldest&kind=Ended&id=other") as socket:
            (ended,) = await until(socket, "Ended")
            assert ended["id"] == "other"


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("?after=nonsense", 422, "no cursor"),
        ("?kind=Nothing", 422, "kind"),
        ("?flavour=1", 422, "unknown"),
        ("?after=WzAsOTk5OTldfQ.0", 422, "no cursor"),
        ("?after=WzAsOTk5OTld.0", 422, "another feed"),
    ],
)
async def test_what_does_not_fit_is_refused(tmp_path, query, status, says):
    async with serving(tmp_path) as served:
        answer = await served.unix.get(EVENTS + query)
        assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
        refused = []
        try:
            async with followed(served, query):
                pass
        except* ConnectionRejected as group:
            refused += group.exceptions
        (refusal,) = refused
        assert refusal.status_code == status
        assert says in msgspec.json.decode(refusal.body)["detail"]


async def test_a_cursor_whose_next_events_were_removed(tmp_path):
    async with serving(tmp_path) as served:
        await start(served)
        cursor = (await served.unix.get(f"{EVENTS}?after=oldest&limit=1")).json()["cursor"]
        assert await served.engine.store.feed.trim(1 << 60, 100)
        answer = await served.unix.get(f"{EVENTS}?after={cursor}")
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
        assert (await served.unix.get(f"{EVENTS}?after=oldest")).json()["events"] == []


async def test_when_the_server_stops_clients_are_told(tmp_path):
    async with serving(tmp_path) as served, followed(served) as socket:
        await frame(socket)
        served.server.drain()
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(5):
            await socket.get_message()
        assert (closed.value.reason.code, "cursor" in closed.value.reason.reason) == (1012, True)


async def test_a_client_that_says_something_is_not_listened_to(tmp_path):
    async with serving(tmp_path) as served, followed(served) as socket:
        for _ in range(50):
            await socket.send_message("hello")
        await frame(socket)
        await start(served)
        assert await until(socket, "Ended")


async def test_tokens_and_origins(tmp_path):
    tokens = [Token("reader", "s3cret/+", Role.READ)]
    async with serving(tmp_path, tokens=tokens) as served:
        host = served.url.removeprefix("http://")

        async def visit(**options):
            async with trio_websocket.open_websocket_url(f"ws://{host}{EVENTS}", **options) as socket:
                return (await frame(socket))["events"]

        bearer = "jivsd.bearer." + urlsafe_b64encode(b"s3cret/+").decode().rstrip("=")
        assert await visit(subprotocols=["jivsd.v1", bearer]) == []
        assert await visit(extra_headers=[(b"authorization", b"Bearer s3cret/+")]) == []
        for options, status in (
            ({}, 401),
            ({"subprotocols": ["jivsd.bearer.***"]}, 401),
            ({"subprotocols": ["jivsd.v1", "jivsd.bearer.eA"]}, 401),
            ({"extra_headers": [(b"origin", b"http://elsewhere")]}, 403),
        ):
            with pytest.raises(ConnectionRejected) as refused:
                await visit(**options)
            assert refused.value.status_code == status
