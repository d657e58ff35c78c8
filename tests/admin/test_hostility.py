"""What hostile clients send is refused, what they leave behind is gone, and runs go on meanwhile."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
import trio
import trio.testing

from admin.serving import Refusing, connected, serving
from jivsd.admin import conversation, looks, tidying
from jivsd.admin.problems import forget_frames
from jivsd.engine.api import NotFound
from jivsd.proof.hostile.campaign import Plan, campaign

NOBODY = NotFound("nobody")
MATCHED = 10
"""Objects that werkzeug leaves in a circle each time it has matched an address."""
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOOK = b"GET /api/v1/runs/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Slow:
    """An engine in which every look takes until it is let go."""

    neighbours = None

    def __init__(self):
        self.asked = 0
        self.released = trio.Event()

    async def show(self, ref):
        self.asked += 1
        await self.released.wait()
        raise NOBODY

    async def result(self, ref, seconds):
        self.asked += 1
        await self.released.wait()
        raise NOBODY


@pytest.mark.slow
def test_a_daemon_goes_on_with_its_work_while_everything_is_tried_at_once():
    kinds = ("HTTP/2", "deep JSON", "smuggling", "paths", "holes of peers", "WebSockets", "idle connections")
    found = campaign(Plan(seconds=5, connections=600, runs=50, seed=7, only=kinds, one_by_one=False, calm=1.0, warm=0))
    assert found.wrong == []
    (together,) = found.attacks
    assert {"400", "401"} <= set(together.answers)
    assert together.steps.steps > 50


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01 this is TLS\r\n\r\n", 400),
    ],
    ids=["http2", "length and chunks", "other encoding", "absolute", "bad address", "long header", "tls"],
)
async def test_what_can_be_read_in_two_ways_is_refused_with_a_problem(tmp_path, said, status):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served) as wire:
        await wire.send(said)
        got, headers, body = await wire.answer()
        assert (got, headers["content-type"]) == (status, "application/problem+json")
        assert b'"code":"bad_request"' in body


async def test_a_wish_for_http2_is_not_heard(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served) as wire:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
        await wire.send(LIVE[:-2] + upgrade + b"\r\n")
        status, headers, _ = await wire.answer()
        assert status == 200
        assert "upgrade" not in headers


async def test_who_has_gone_has_nothing_more_answered(tmp_path):
    engine = Slow()
    async with serving(tmp_path, engine) as served:
        async with connected(served) as wire:
            await wire.send(LOOK * 50)
            while not engine.asked:
                await trio.testing.wait_all_tasks_blocked()
        engine.released.set()
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > 30:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert engine.asked < 10


POST = b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        LIVE,
        LOOK,
        LOOK.replace(b"/api/v1/runs/x", b"/nowhere"),
        POST + b"abc",
        POST + b"a",
        b"GARBAGE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        LOOK * 5,
    ],
    ids=["nothing", "live", "not found", "nowhere", "bad JSON", "half a body", "garbage", "http2", "many"],
)
async def test_a_client_leaves_nothing_to_the_collector(tmp_path, said):
    """Circles of objects stay until a full collection, which keeps all runs waiting: the longer, the more there are."""

    async def once():
        async with connected(served) as wire:
            await wire.send(said)
            await trio.testing.wait_all_tasks_blocked(0.005)
        await trio.testing.wait_all_tasks_blocked(0.005)

    async with serving(tmp_path, Refusing(NOBODY)) as served:
        await once()
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await once()
            left = gc.collect()
        finally:
            gc.enable()
        requests = max(1, said.count(b"HTTP/1.1"))
        assert left <= 10 * requests * MATCHED + 20


@pytest.mark.jump
async def test_only_so_many_look_at_once_but_who_waits_is_in_nobodys_way(tmp_path):
    engine = Slow()
    async with serving(tmp_path, engine) as served, trio.open_nursery() as nursery:
        answers = []

        async def ask(said):
            async with connected(served) as wire:
                await wire.send(said)
                answers.append(await wire.answer())

        for _ in range(20):
            nursery.start_soon(ask, LOOK.replace(b"/x ", b"/x/result?wait=60s "))
        while engine.asked < 20:
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(looks.LOOKS + 1):
            nursery.start_soon(ask, LOOK)
        with trio.fail_after(60):
            while not answers:  # noqa: ASYNC110 -- time jumps
                await trio.sleep(1)
        assert engine.asked == 20 + looks.LOOKS
        engine.released.set()
        status, headers, body = answers[0]
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"too many requests look things up at once" in body


async def test_one_looks_after_the_other(tmp_path):
    engine = Slow()
    async with serving(tmp_path, engine) as served, connected(served) as one, connected(served) as two:
        await one.send(LOOK)
        await two.send(LOOK)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert engine.asked == 1
        engine.released.set()
        assert [(await one.answer())[0], (await two.answer())[0]] == [404, 404]


async def test_bodies_share_the_memory_that_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(conversation, "ROOM", 300_000)
    async with serving(tmp_path, Refusing(NOBODY)) as served, connected(served) as one:
        half = b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000\r\n\r\n" + b" " * 200_000
        await one.send(half)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with connected(served) as two:
            await two.send(half)
            status, headers, body = await two.answer()
            assert (status, headers["retry-after"]) == (503, "1")
            assert b"too much is being sent at once" in body
            assert await two.is_closed()
        await one.send(b" " * 50_000)
        async with connected(served) as three:
            await three.send(LIVE)
            assert (await three.answer())[0] == 200


async def test_answers_that_nobody_takes_are_given_up_where_others_need_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(conversation, "ROOM", 15_000_000)
    async with serving(tmp_path, Refusing(NotFound("x" * 10_000_000))) as served, connected(served) as deaf:
        await deaf.send(LOOK)
        await trio.testing.wait_all_tasks_blocked(0.1)
        async with connected(served) as wire:
            await wire.send(LOOK)
            status, _, body = await wire.answer()
            assert (status, len(body) > 10_000_000) == (404, True)
        with pytest.raises(EOFError):
            await deaf.answer()


@pytest.mark.jump
async def test_after_a_wave_of_connections_memory_is_given_back(tmp_path, monkeypatch):
    trimmed = []
    monkeypatch.setattr(tidying, "CONNECTIONS", 6)
    monkeypatch.setattr(tidying.memory, "trim", lambda: trimmed.append(trio.current_time()))
    async with serving(tmp_path, Refusing(NOBODY)) as served:
        for _ in range(3):
            async with connected(served) as wire:
                await wire.send(LIVE)
                await wire.answer()
        assert not trimmed
        await trio.sleep(3)
    assert len(trimmed) == 1


@pytest.mark.jump
async def test_memory_is_given_back_only_when_the_wave_has_passed(tmp_path, monkeypatch):
    trimmed = []
    monkeypatch.setattr(tidying, "CONNECTIONS", 2)
    monkeypatch.setattr(tidying.memory, "trim", lambda: trimmed.append(trio.current_time()))
    async with serving(tmp_path, Refusing(NotFound("x" * 10_000_000))) as served:
        async with connected(served) as deaf:
            await deaf.send(LOOK)
            await trio.testing.wait_all_tasks_blocked(0.1)
            async with connected(served) as wire:
                await wire.send(LIVE)
                await wire.answer()
            await trio.sleep(5)
            assert not trimmed
        await trio.sleep(5)
    assert trimmed


def test_the_frames_of_errors_are_forgotten_also_of_one_that_is_its_own_cause():
    error, cause = KeyError("k"), ValueError("v")
    for one in (cause, error):
        with suppress(type(one)):
            raise one
    assert cause.__traceback__ is not None
    error.__cause__, cause.__cause__ = cause, error
    forget_frames(error)
    assert (error.__traceback__, cause.__traceback__) == (None, None)
