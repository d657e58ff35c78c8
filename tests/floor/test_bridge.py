"""The thread for asyncio's drivers: results and errors cross, cancelled callers leak nothing, all is bounded."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from random import Random

import pytest
import trio
import trio.testing

from jivsd.bridge import Bridge, BridgeClosed, Pool

PATIENCE = 30.0


class Line:
    """Stands for a driver's connection: it may be used by one at a time, and breaks when it is cut off."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.busy = False
        self.open = True
        exchange.lines.append(self)

    async def ask(self, answer, pauses=1):
        assert self.open
        assert not self.busy
        self.busy = True
        for _ in range(pauses):
            await asyncio.sleep(0)
        self.busy = False
        return answer

    def is_good(self):
        return self.open and not self.busy

    def drop(self):
        assert self.open
        self.open = False


class Exchange:
    """Where lines come from; `down` says why there are none just now."""

    def __init__(self):
        self.lines = []
        self.down = None
        self.attempts = 0

    async def connect(self):
        self.attempts += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise ConnectionRefusedError(self.down)
        return Line(self)

    def pool(self, bridge, size, **more):
        return Pool(bridge, self.connect, size=size, good=Line.is_good, drop=Line.drop, **more)

    @property
    def open(self):
        return sum(line.open for line in self.lines)


async def test_results_and_errors_cross():
    async def work():
        assert threading.current_thread().name == "jivsd-bridge"
        await asyncio.sleep(0)
        return 5

    async def fails():
        raise KeyError("k")

    async with Bridge() as bridge:
        assert await bridge.call(work, timeout=PATIENCE) == 5
        with pytest.raises(KeyError, match="k"):
            await bridge.call(fails, timeout=PATIENCE)
        assert bridge.under_way == 0


@pytest.mark.jump
async def test_while_a_bridge_blocks_time_does_not_jump():
    async def work():
        await asyncio.sleep(0.01)
        return 1

    async with Bridge(blocking=True) as bridge:
        before = trio.current_time()
        with trio.move_on_after(5) as scope:
            await bridge.call(work, timeout=PATIENCE)
        assert not scope.cancelled_caught
        assert trio.current_time() == before
        with pytest.raises(TimeoutError):
            await bridge.call(lambda: asyncio.sleep(PATIENCE), timeout=0.01)


async def test_work_is_cut_short_when_its_time_is_up():
    ended = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with Bridge() as bridge:
        with pytest.raises(TimeoutError):
            await bridge.call(endless, timeout=0.01)
        assert ended == [True]


async def test_a_cancelled_caller_leaves_at_once_and_the_work_goes_on():
    began, go_on, ended = threading.Event(), asyncio.Event(), threading.Event()

    async def work():
        began.set()
        await go_on.wait()
        ended.set()

    async with Bridge() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: bridge.call(work, timeout=PATIENCE))
            await trio.to_thread.run_sync(began.wait, PATIENCE)
            nursery.cancel_scope.cancel()
        assert bridge.under_way == 1
        assert not ended.is_set()
        await bridge.call(lambda: _done(go_on.set()), timeout=PATIENCE)
        assert await trio.to_thread.run_sync(ended.wait, PATIENCE)
        await until(lambda: bridge.under_way == 0)


async def test_no_more_calls_are_under_way_than_allowed():
    most = now = 0

    async def work():
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    async with Bridge(calls=3) as bridge:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lambda: bridge.call(work, timeout=PATIENCE))
        assert most == 3


async def test_closing_lets_calls_end_and_cuts_the_stubborn_short(monkeypatch):
    monkeypatch.setattr("jivsd.bridge.CUT", 0.05)
    go_on = asyncio.Event()
    heard = {}

    async def ends():
        await go_on.wait()
        return "done"

    async def never():
        await asyncio.Event().wait()

    async def stubborn():
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def ask(name, work):
        try:
            heard[name] = await bridge.call(work, timeout=PATIENCE)
        except BridgeClosed as error:
            heard[name] = error

    bridge = Bridge()
    bridge.start()
    async with trio.open_nursery() as nursery:
        for name, work in (("ends", ends), ("never", never), ("stubborn", stubborn)):
            nursery.start_soon(ask, name, work)
        await until(lambda: bridge.under_way == 3)
        await bridge.call(lambda: _done(asyncio.get_running_loop().call_soon(go_on.set)), timeout=PATIENCE)
        await bridge.close(grace=0.05)
    assert heard.pop("ends") == "done"
    assert {name: type(error) for name, error in heard.items()} == {"never": BridgeClosed, "stubborn": BridgeClosed}
    with pytest.raises(BridgeClosed):
        await bridge.call(ends, timeout=PATIENCE)
    await bridge.close()


async def test_what_is_done_soon_is_done_in_order_and_may_begin_work_that_closing_waits_for():
    done = []

    async def work():
        done.append("work")
        await asyncio.sleep(0)
        bridge.look_after(more())

    async def more():
        await asyncio.sleep(0)
        done.append("more")

    async def call():
        done.append("call")

    async with Bridge() as bridge:
        bridge.soon(lambda: done.append("first"))
        await bridge.call(call, timeout=PATIENCE)
        bridge.soon(lambda: done.append("second"))
        bridge.soon(lambda: bridge.look_after(work()))
    assert done == ["first", "call", "second", "work", "more"]
    bridge.soon(lambda: done.append("too late"))
    assert done[-1] == "more"


async def test_callers_who_wait_for_a_place_hear_of_the_end():
    heard = []

    async def never():
        await asyncio.Event().wait()

    async def ask():
        with pytest.raises(BridgeClosed):
            await bridge.call(never, timeout=PATIENCE)
        heard.append(True)

    bridge = Bridge(calls=1)
    bridge.start()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await bridge.close(grace=0)
    assert heard == [True] * 3


def test_a_trio_run_that_is_gone_harms_nobody():
    go_on, ended = threading.Event(), threading.Event()

    async def work():
        await asyncio.to_thread(go_on.wait, PATIENCE)
        ended.set()

    async def leave_it():
        bridge = Bridge()
        bridge.start()
        with trio.move_on_after(0.01):
            await bridge.call(work, timeout=PATIENCE)
        return bridge

    bridge = trio.run(leave_it)
    go_on.set()
    assert ended.wait(PATIENCE)
    trio.run(bridge.close)


async def test_a_pool_lends_each_connection_to_one_at_a_time():
    exchange = Exchange()
    async with Bridge() as bridge:
        pool = exchange.pool(bridge, 3)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(lambda: pool.use(lambda line: line.ask(1, pauses=3), timeout=PATIENCE))
        assert 1 <= len(exchange.lines) <= 3
        assert pool.size == exchange.open
        await pool.close()
        assert pool.size == exchange.open == 0


async def test_a_connection_that_died_is_replaced():
    exchange = Exchange()
    async with Bridge() as bridge:
        pool = exchange.pool(bridge, 1)
        await pool.use(lambda line: line.ask(1), timeout=PATIENCE)
        exchange.lines[0].busy = True
        await pool.use(lambda line: line.ask(2), timeout=PATIENCE)
        assert [line.open for line in exchange.lines] == [False, True]

        async def breaks(line):
            line.busy = True
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await pool.use(breaks, timeout=PATIENCE)
        assert (pool.size, exchange.open) == (0, 0)


async def test_a_connection_is_not_lent_again_after_an_error_that_spoils_it():
    exchange = Exchange()
    async with Bridge() as bridge:
        pool = exchange.pool(bridge, 1, spoils=lambda error: isinstance(error, ValueError))

        async def fails(line, error):
            raise error

        for error, left in ((KeyError(), 1), (ValueError(), 0)):
            with pytest.raises(type(error)):
                await pool.use(lambda line, error=error: fails(line, error), timeout=PATIENCE)
            assert pool.size == exchange.open == left


async def test_a_connection_whose_work_was_cut_short_is_not_lent_again():
    exchange = Exchange()
    async with Bridge() as bridge:
        pool = exchange.pool(bridge, 1)
        with pytest.raises(TimeoutError):
            await pool.use(lambda _: asyncio.Event().wait(), timeout=0.01)
        await pool.use(lambda line: line.ask(2), timeout=PATIENCE)
        assert [line.open for line in exchange.lines] == [False, True]


@pytest.mark.parametrize(
    ("options", "pauses"),
    [({}, (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)), ({"last_pause": 0.15}, (0.05, 0.1, 0.15, 0.15))],
)
async def test_while_nothing_can_be_connected_attempts_become_rare(monkeypatch, options, pauses):
    now = 100.0
    monkeypatch.setattr("jivsd.bridge.monotonic", lambda: now)
    monkeypatch.setattr("jivsd.bridge.random.uniform", lambda low, high: high)
    exchange = Exchange()
    exchange.down = "nobody listens"
    async with Bridge() as bridge:
        pool = exchange.pool(bridge, 4, **options)

        async def attempts():
            """How many attempts one call makes."""
            before = exchange.attempts
            with pytest.raises(ConnectionRefusedError, match="nobody listens"):
                await pool.use(lambda line: line.ask(1), timeout=PATIENCE)
            return exchange.attempts - before

        for pause in pauses:
            assert await attempts() == 1
            now += pause - 0.01
            assert await attempts() == 0
            now += 0.01
        exchange.down = None
        assert await pool.use(lambda line: line.ask(1), timeout=PATIENCE) == 1
        assert pool.size == exchange.open == 1


async def test_what_a_pool_has_to_do_is_counted():
    exchange = Exchange()
    async with Bridge() as bridge:
        pool, ended = exchange.pool(bridge, 2), asyncio.Event()

        async def stay(line):
            await ended.wait()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: pool.use(stay, timeout=PATIENCE))
            await until(lambda: pool.usage == (2, 2, 3, 2, 0, 2))
            await bridge.call(lambda: _done(ended.set()), timeout=PATIENCE)
        assert pool.usage == (2, 0, 0, 2, 0, 2)
        exchange.down = "nobody listens"
        for line in exchange.lines:
            line.busy = True
        with pytest.raises(ConnectionRefusedError):
            await pool.use(stay, timeout=PATIENCE)
        assert pool.usage.failures == 1


async def cancel_at_random(times):
    """Callers leave at random moments, but for one in twenty, which may be faster than their answers ever are;
    afterwards nothing is lent, lost or waiting."""
    random = Random(5)
    exchange = Exchange()
    async with Bridge(calls=40) as bridge:
        pool = exchange.pool(bridge, 4)
        left = iter(range(times))
        reached = 0

        async def callers():
            nonlocal reached
            for _ in left:
                with trio.CancelScope() as scope:
                    pauses = random.randrange(5)
                    for _ in range(random.randrange(3)):
                        await trio.lowlevel.checkpoint()
                    async with trio.open_nursery() as nursery:
                        if random.randrange(20):
                            nursery.start_soon(cancel_later, scope, random.randrange(8))
                        await pool.use(lambda line, pauses=pauses: line.ask(1, pauses), timeout=PATIENCE)
                        reached += 1
                        nursery.cancel_scope.cancel()

        async def cancel_later(scope, turns):
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(callers)
        await until(lambda: bridge.under_way == 0)
        assert 0 < reached < times, "some were cancelled, and some were not"
        assert pool.size == exchange.open <= 4
        assert pool.usage[1:5] == (0, 0, pool.size, 0), "nothing is lent, nobody waits"
        assert len(exchange.lines) <= 4, "no connection was lost, so none was replaced"
        assert await pool.use(lambda line: line.ask("well"), timeout=PATIENCE) == "well"
        assert await bridge.call(lambda: _done(len(asyncio.all_tasks())), timeout=PATIENCE) == 2, (
            "itself and the server"
        )


@pytest.mark.slow
async def test_callers_that_are_cancelled_leak_nothing():
    await cancel_at_random(10_000)


@pytest.mark.soak
async def test_callers_that_are_cancelled_leak_nothing_for_long():
    await cancel_at_random(100_000)


async def _done(value=None):
    return value


async def until(true):
    """Return when something that a thread does has come true."""
    with trio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 -- a thread does it, that knows no event of trio
            await trio.sleep(0.001)
