from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from jivsd import logs
from jivsd.supervision import (
    ChildSpec,
    Intensity,
    Restarts,
    RestartsExceeded,
    StartFailed,
    State,
    StopFailed,
    Supervisor,
)

pytestmark = pytest.mark.jump


class Stage:
    """Makes children that tell what happens to them, and crash or return on command."""

    def __init__(self):
        self.heard = []
        self.commands = {}

    def child(self, name, *, ready=True, before=None, after=None, **options):
        """before: awaited before it is ready. after: awaited, shielded, when it is cancelled."""

        async def run(*, task_status):
            send, commands = trio.open_memory_channel(math.inf)
            self.commands[name] = send
            self.heard.append(f"+{name}")
            try:
                if before is not None:
                    await before()
                if ready:
                    task_status.started()
                async for command in commands:
                    if command is None:
                        return
                    raise command
            finally:
                if after is not None:
                    with trio.CancelScope(shield=True):
                        await after()
                self.heard.append(f"-{name}")

        return ChildSpec(name, run, **options)

    def crash(self, name, error=None):
        self.commands[name].send_nowait(error or ValueError("bad"))

    def end(self, name):
        self.commands[name].send_nowait(None)

    def take(self):
        heard, self.heard = self.heard, []
        return " ".join(heard)


@pytest.fixture
def stage():
    return Stage()


@asynccontextmanager
async def supervised(*children, **options):
    supervisor = Supervisor("top", children, **options)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            yield supervisor
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        [error] = group.exceptions
        raise error from error.__cause__


def states(supervisor):
    return [child.state for child in supervisor.children()]


async def test_children_start_in_order_when_the_one_before_is_ready_and_stop_in_reverse(stage):
    children = [stage.child(name, before=partial(trio.sleep, 1), after=partial(trio.sleep, 2)) for name in "abc"]
    supervisor = Supervisor("top", children)
    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        await nursery.start(supervisor.run)
        assert trio.current_time() - started == pytest.approx(3)
        assert stage.take() == "+a +b +c"
        assert states(supervisor) == [State.RUNNING] * 3
        supervisor.stop()
    assert stage.take() == "-c -b -a"
    assert trio.current_time() - started == pytest.approx(9)
    assert states(supervisor) == [State.ENDED] * 3


async def test_a_cancelled_supervisor_stops_its_children_in_order_too(stage):
    children = [stage.child(name, after=partial(trio.sleep, 2)) for name in "abc"]
    async with supervised(*children):
        stage.take()
    assert stage.take() == "-c -b -a"


async def test_cancelled_before_it_began_it_leaves_nothing_behind(stage):
    with trio.CancelScope() as scope:
        scope.cancel()
        await Supervisor("top", [stage.child("a")]).run()
    assert scope.cancelled_caught
    assert stage.take() in ("", "+a -a")


async def test_stopped_while_it_starts_it_stops_those_that_run(stage):
    supervisor = Supervisor("top", [stage.child("a"), stage.child("b", ready=False), stage.child("c")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        assert states(supervisor) == [State.RUNNING, State.STARTING, State.WAITING]
        supervisor.stop()
    assert stage.take() == "+a +b -b -a"


async def test_a_crash_restarts_the_child_alone_with_growing_waits(stage):
    restarted = []
    intensity = Intensity(restarts=4, period=60, first=1, limit=3)
    async with supervised(
        stage.child("a"), stage.child("b", intensity=intensity), stage.child("c"), on_restart=restarted.append
    ) as supervisor:
        stage.take()
        for wait in (1, 2, 3, 3):
            crashed = trio.current_time()
            stage.crash("b")
            await wait_all_tasks_blocked()
            assert states(supervisor) == [State.RUNNING, State.STARTING, State.RUNNING]
            await trio.sleep(wait - 0.01)
            assert stage.take() == "-b"
            await trio.sleep(0.02)
            assert stage.take() == "+b"
            assert trio.current_time() - crashed == pytest.approx(wait + 0.01)
        assert restarted == ["b"] * 4
        assert [child.restarts for child in supervisor.children()] == [0, 4, 0]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", "-b +b"),
        ("rest_for_one", "-b -d -c +b +c +d"),
        ("one_for_all", "-b -d -c -a +a +b +c +d"),
    ],
)
async def test_strategies_say_who_is_restarted_with_it(stage, strategy, expected):
    async with supervised(*(stage.child(name) for name in "abcd"), strategy=strategy) as supervisor:
        stage.take()
        stage.crash("b")
        await trio.sleep(10)
        assert stage.take() == expected
        assert [child.restarts for child in supervisor.children()] == [0, 1, 0, 0]


async def test_siblings_that_crash_together_are_restarted_once_each(stage):
    async with supervised(*(stage.child(name) for name in "abc"), strategy="one_for_all"):
        stage.take()
        for name in "abc":
            stage.crash(name)
        await trio.sleep(10)
        heard = stage.take().split()
        assert sorted(heard) == ["+a", "+b", "+c", "-a", "-b", "-c"]
        assert heard[3:] == ["+a", "+b", "+c"]


async def test_a_group_starts_again_when_an_earlier_child_crashes_while_a_later_one_starts(stage):
    supervisor = Supervisor("top", [stage.child("a"), stage.child("b", ready=False)], strategy="rest_for_one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        assert stage.take() == "+a +b"
        stage.crash("a")
        await trio.sleep(1)
        assert stage.take() == "-a -b +a +b"
        supervisor.stop()


async def test_one_crash_looping_child_does_not_hold_up_the_restart_of_another(stage):
    slow = Intensity(first=50, limit=50)
    async with supervised(stage.child("a", intensity=slow), stage.child("b")):
        stage.take()
        stage.crash("a")
        stage.crash("b")
        await trio.sleep(1)
        assert stage.take().endswith("+b")


@pytest.mark.parametrize(
    ("rule", "after_crash", "after_return"),
    [("permanent", "-a +a", "-a +a"), ("transient", "-a +a", "-a"), ("temporary", "-a", "-a")],
)
async def test_restart_rules(stage, rule, after_crash, after_return):
    for act, expected in ((stage.crash, after_crash), (stage.end, after_return)):
        async with supervised(stage.child("a", restart=rule)) as supervisor:
            stage.take()
            act("a")
            await trio.sleep(10)
            assert stage.take() == expected
            assert states(supervisor) == [State.RUNNING if "+" in expected else State.ENDED]
        stage.take()


async def test_a_temporary_child_is_not_restarted_with_its_group(stage):
    children = [stage.child("a"), stage.child("b", restart="temporary"), stage.child("c", restart="transient")]
    async with supervised(*children, strategy="one_for_all"):
        stage.end("c")
        await wait_all_tasks_blocked()
        stage.take()
        stage.crash("a")
        await trio.sleep(10)
        assert stage.take() == "-a -b +a"


async def test_too_many_crashes_stop_the_others_and_raise(stage):
    intensity = Intensity(restarts=2, period=10)
    with pytest.raises(RestartsExceeded) as raised:
        async with supervised(stage.child("a"), stage.child("b", intensity=intensity), stage.child("c")):
            stage.take()
            for _ in range(3):
                stage.crash("b", OSError("cannot reach postgresql://u:hunter2@h"))
                await trio.sleep(1)
    assert str(raised.value) == ("b crashed again after 2 restarts in 10 s: OSError: cannot reach postgresql://u:***@h")
    assert isinstance(raised.value.__cause__, OSError)
    assert stage.take() == "-b +b -b +b -b -c -a"


async def test_crashes_that_are_far_apart_are_forgiven(stage):
    async with supervised(stage.child("a", intensity=Intensity(restarts=1, period=10))) as supervisor:
        for _ in range(20):
            stage.crash("a")
            await trio.sleep(11)
        assert supervisor.children()[0].restarts == 20


async def test_with_a_handler_a_child_is_given_up_and_the_others_go_on(stage):
    given_up = []
    child = stage.child("a", intensity=Intensity(restarts=0))
    async with supervised(child, stage.child("b"), on_give_up=lambda *what: given_up.append(what)) as supervisor:
        stage.crash("a", error := ValueError("bad"))
        await trio.sleep(10)
        assert given_up == [("a", error)]
        assert states(supervisor) == [State.GIVEN_UP, State.RUNNING]
        stage.crash("b")
        await trio.sleep(10)
        assert states(supervisor) == [State.GIVEN_UP, State.RUNNING]


@pytest.mark.parametrize("rule", ["permanent", "transient", "temporary"])
async def test_a_child_that_cannot_start_is_an_error_and_the_others_are_stopped(stage, rule):
    async def fail():
        await trio.sleep(1)
        raise OSError("port 8420 is in use")

    with pytest.raises(StartFailed, match=r"^b could not be started: OSError: port 8420 is in use$"):
        await Supervisor("top", [stage.child("a"), stage.child("b", before=fail, restart=rule)]).run()
    assert stage.take() == "+a +b -b -a"


async def test_a_permanent_child_that_returns_before_it_is_ready_cannot_start(stage):
    async def nothing(*, task_status):
        await trio.lowlevel.checkpoint()

    with pytest.raises(StartFailed, match=r"^a could not be started: it returned$"):
        await Supervisor("top", [ChildSpec("a", nothing)]).run()
    async with supervised(ChildSpec("a", nothing, restart="transient"), stage.child("b")):
        assert stage.take() == "+b"


async def test_failing_to_start_again_is_a_crash_like_others(stage):
    fails = 0

    async def sometimes():
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise OSError("not yet")

    async with supervised(stage.child("a", before=sometimes)) as supervisor:
        fails = 2
        stage.crash("a")
        await trio.sleep(10)
        assert supervisor.children()[0] == ("a", State.RUNNING, 3)


async def test_exception_groups_and_strange_base_exceptions_are_crashes(stage):
    class Frozen(BaseException):
        pass

    async with supervised(stage.child("a")) as supervisor:
        stage.crash("a", ExceptionGroup("two", [ValueError("x"), KeyError("y")]))
        await trio.sleep(1)
        stage.crash("a", BaseExceptionGroup("one", [Frozen()]))
        await trio.sleep(1)
        stage.crash("a", Frozen())
        await trio.sleep(1)
        assert supervisor.children()[0] == ("a", State.RUNNING, 3)


async def test_an_interrupt_is_nobodys_crash(stage):
    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor("top", [stage.child("a"), stage.child("b")]).run)
            stage.crash("a", KeyboardInterrupt())
    assert raised.value.subgroup(KeyboardInterrupt) is not None
    assert sorted(stage.take().split()) == ["+a", "+b", "-a", "-b"]


async def test_a_child_with_drain_ends_by_itself_or_is_cancelled_at_its_deadline(stage):
    drained = []

    def drain(name):
        def ask():
            drained.append((name, trio.current_time()))
            if name == "quick":
                stage.end(name)
            if name == "broken":
                raise ValueError("cannot")

        return ask

    names = ("deaf", "quick", "broken")
    supervisor = Supervisor("top", [stage.child(name, shutdown=7, drain=drain(name)) for name in names])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        stage.take()
        began = trio.current_time()
        supervisor.stop()
    assert [name for name, _ in drained] == ["broken", "quick", "deaf"]
    assert stage.take() == "-broken -quick -deaf"
    assert trio.current_time() - began == pytest.approx(7)


async def test_a_child_that_waits_for_its_restart_is_not_drained(stage):
    drained = []
    child = stage.child("a", drain=lambda: drained.append("a"), intensity=Intensity(first=50, limit=50))
    async with supervised(child) as supervisor:
        stage.crash("a")
        await wait_all_tasks_blocked()
        supervisor.stop()
        await wait_all_tasks_blocked()
        assert states(supervisor) == [State.ENDED]
    assert not drained


async def test_a_child_that_does_not_stop_holds_up_the_next_no_longer_than_its_deadline(stage):
    stopped = {}

    def note(name, seconds):
        async def after():
            stopped[name] = trio.current_time()
            await trio.sleep(seconds)

        return after

    supervisor = Supervisor(
        "top", [stage.child("a", after=note("a", 0)), stage.child("b", after=note("b", 100), shutdown=3)]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.stop()
    assert stopped["a"] - stopped["b"] == pytest.approx(3)
    assert stage.take() == "+a +b -a -b"


async def test_nothing_is_started_twice_when_a_sibling_does_not_stop(stage):
    stuck = stage.child("b", after=partial(trio.sleep, 100), shutdown=3)
    with pytest.raises(StopFailed, match="a cannot be restarted: one of its siblings does not stop"):
        async with supervised(stage.child("a"), stuck, strategy="one_for_all"):
            stage.crash("a")
            await trio.sleep_forever()
    assert stage.take() == "+a +b -a -b"


async def test_a_supervisor_can_be_a_child(stage):
    inner = Supervisor("inner", [stage.child("b", intensity=Intensity(restarts=1)), stage.child("c")])
    children = [stage.child("a"), ChildSpec("inner", inner.run, shutdown=20), stage.child("d")]
    async with supervised(*children) as top:
        assert stage.take() == "+a +b +c +d"
        for _ in range(2):
            stage.crash("b")
            await trio.sleep(1)
        assert stage.take() == "-b +b -b -c +b +c"
        assert [child.restarts for child in top.children()] == [0, 1, 0]
    assert stage.take() == "-d -c -b -a"


async def test_a_child_that_fails_while_it_is_stopped_does_not_hurt(stage):
    async def fail():
        raise ValueError("in cleanup")

    async with supervised(stage.child("a"), stage.child("b", after=fail)):
        stage.take()
    assert stage.take() == "-a"


async def test_crashes_are_logged_with_reason_and_without_secrets(stage, capsys, monkeypatch):
    monkeypatch.setattr(logs, "_output", logs._Output(10, "json", {}, None))
    async with supervised(stage.child("a")):
        stage.crash("a", OSError("no redis://:hunter2@h"))
        await trio.sleep(1)
    log = capsys.readouterr().err
    assert '"reason":"OSError: no redis://:***@h"' in log
    assert "hunter2" not in log


async def test_two_children_of_one_name_are_refused(stage):
    with pytest.raises(ValueError, match="supervisor 'top' has two children of one name: a, a"):
        Supervisor("top", [stage.child("a"), stage.child("a")])


@given(
    gaps=st.lists(st.floats(0, 20, allow_nan=False), max_size=60),
    allowed=st.integers(0, 5),
    period=st.floats(0.1, 30),
)
def test_an_intensity_holds_in_every_period(gaps, allowed, period):
    restarts = Restarts(Intensity(allowed, period, first=0.5, limit=3))
    now, granted = 0.0, []
    for gap in gaps:
        now += gap
        wait = restarts.delay(now)
        recent = [at for at in granted if at > now - period]
        assert (wait is None) == (len(recent) >= allowed)
        if wait is not None:
            assert wait == min(3, 0.5 * 2 ** len(recent))
            granted.append(now)
    assert restarts.total == len(granted)
