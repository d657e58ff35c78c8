"""The loop lets other threads have the interpreter: after a while in which it always had something to do."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import trio

from jivsd import interpreter


class Time:
    """A clock that stands still but for `pass_by`; naps are counted."""

    def __init__(self):
        self.now = 100.0
        self.naps = 0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        assert seconds == interpreter.NAP
        self.naps += 1


@pytest.fixture
def time(monkeypatch):
    found = Time()
    monkeypatch.setattr(interpreter, "time", SimpleNamespace(perf_counter=found.perf_counter, sleep=found.sleep))
    interval = sys.getswitchinterval()
    yield found
    sys.setswitchinterval(interval)


async def turns(count):
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_a_busy_loop_naps_now_and_then(time):
    interpreter.share()
    await turns(5)
    begun = time.naps
    await turns(50)
    assert time.naps == begun, "no time has passed"
    for number in range(1, 4):
        time.now += interpreter.EVERY * 1.01
        await turns(50)
        assert time.naps == begun + number


async def test_one_that_has_waited_does_not(time):
    interpreter.share()
    await turns(5)
    begun = time.naps
    for _ in range(3):
        time.now += 1.0
        await trio.sleep(0.001)
        await turns(5)
    assert time.naps == begun


async def test_threads_ask_sooner_than_is_usual(time):
    interpreter.share()
    assert sys.getswitchinterval() == pytest.approx(interpreter.SWITCH_INTERVAL)
