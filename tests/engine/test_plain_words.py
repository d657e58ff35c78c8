"""What is said to people at the edges: signals that nothing takes, and why a run waits."""

from __future__ import annotations

from textwrap import dedent

import pytest

from jivsd.engine.api import NotFound
from jivsd.engine.limits import Limits
from jivsd.registry.awaited import awaited
from jivsd.testing import Env, RunFailed

pytestmark = pytest.mark.jump

HEAD = """
from jivsd import Context, Failure, NO_RETRY, signal, step, workflow
import trio

@step(retry=NO_RETRY)
async def work(seconds: float) -> None:
    await trio.sleep(seconds)
    if seconds == 1:
        raise Failure("no")

@workflow("worker", active_runs=1)
async def worker(ctx: Context, seconds: float) -> None:
    await ctx.step(work, seconds)

@workflow("asks", signals={"typed": int})
class Asks:
    said = ""

    @signal
    def tell(self, what: str) -> None:
        self.said = what

"""
CLOSED = """
    async def run(self, ctx: Context) -> str:
        return await ctx.wait_until(lambda: self.said)
"""
NAMED = """
    async def run(self, ctx: Context) -> str:
        return await ctx.wait_signal("named", str)
"""
FREE = """
    async def run(self, ctx: Context) -> str:
        return await ctx.wait_signal("na" + "med", str)
"""


@pytest.fixture
def plugin(tmp_path):
    def write(body: str) -> str:
        file = tmp_path / "asking.py"
        file.write_text(HEAD + body)
        return str(file)

    return write


@pytest.mark.parametrize(("code", "known"), [(CLOSED, "tell, typed"), (NAMED, "named, tell, typed")])
async def test_a_signal_that_the_code_can_never_take_is_refused(plugin, code, known):
    async with Env(plugin(code)) as env:
        run = await env.start("asks", id="a")
        for ref in (run, "asks:a"):
            with pytest.raises(NotFound, match=f"workflow 'asks' has no signal 'nmaed'; it has: {known} ") as refused:
                await env.signal(ref, "nmaed", 1)
            assert refused.value.data == {"signal": "nmaed", "run_id": run}
        receipt = await env.engine.signal(run, "typed", b"1")
        assert receipt.note == ""
        await env.signal(run, "tell" if code is CLOSED else "named", "yes")
        assert await env.result(run) == "yes"


async def test_a_signal_that_the_code_may_wait_for_is_kept_and_that_is_said(plugin):
    async with Env(plugin(FREE)) as env:
        run = await env.start("asks")
        receipt = await env.engine.signal(run, "named", b'"yes"')
        assert receipt.note == (
            "workflow 'asks' declares no signal 'named' (it has: tell, typed): it is kept until the code waits for it"
        )
        assert await env.result(run) == "yes"


async def test_a_signal_that_was_taken_by_older_code_is_still_known_by_its_id(plugin):
    async with Env(plugin(NAMED.replace("return await", "await ctx.sleep(9); return await"))) as env:
        run = await env.start("asks", id="a")
        await env.signal("asks:a", "named", "no", message_id="m")
        await env.cancel(run)
        await env.ended(run)
        plugin(CLOSED)
        await env.reload()
        await env.start("asks", id="a")
        receipt = await env.engine.signal("asks:a", "named", b'"no"', message_id="m")
        assert (receipt.duplicate, receipt.run_id) == (True, run)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('x = 1; ctx.wait_signal("a", int); ctx.wait_signal("b", timeout=3)', {"a", "b"}),
        ("ctx.wait_signal(NAME)", None),
        ('ctx.wait_signal(f"{1}")', None),
        ('wait = ctx.wait_signal; wait("a")', None),
        ('getattr(ctx, "wait_signal")("a")', None),
        ("ctx.wait_signal(*names)", None),
        ("ctx.wait_signal((", None),
        ('"""Uses wait_signal."""', set()),
        ("", set()),
    ],
)
def test_which_signals_code_waits_for(code, names):
    files = {"__init__.py": "", "sub/flow.py": dedent(code), "data.sql": "ctx.wait_signal(x)"}
    assert awaited(files) == names


async def test_why_a_run_that_is_due_does_not_begin(plugin):
    async with Env(plugin(CLOSED), limits=Limits(active_runs=2)) as env:
        first = await env.start("worker", 50)
        await env.sleep("1s")
        own = await env.start("worker", 1, delay="0s")
        others = [await env.start("worker", 1, delay="1m") for _ in range(2)]
        await env.sleep("2s")
        (wait,) = await env.waits(own)
        assert (wait.kind, wait.what) == (
            "start",
            "room to begin: as many of its runs are active as may be (its active_runs = 1)",
        )
        (wait,) = await env.waits(others[0])
        assert wait.what == "its time to begin, and room for it then"
        await env.ended(first)


async def test_why_a_paused_run_in_quarantine_rests(plugin):
    async with Env(plugin(CLOSED)) as env:
        run = await env.start("asks")
        await env.pause(run)
        await env.engine.quarantine_workflow("asks", by="ann", why="it lies")
        await env.sleep("1m")
        assert [(wait.kind, wait.what) for wait in await env.waits(run)] == [
            ("incident", "workflow 'asks' is quarantined: it lies (by ann)"),
            ("pause", "somebody to resume it"),
        ]


async def test_the_newest_run_of_a_workflow(plugin):
    async with Env(plugin(CLOSED)) as env:
        with pytest.raises(NotFound, match="there is no run 'worker:@newest'"):
            await env.show("worker:@newest")
        first, second = await env.start("worker", 1), await env.start("worker", 1)
        assert (await env.show("worker:@newest")).run_id == second
        with pytest.raises(RunFailed):
            await env.result("worker:@newest")
        again = await env.retry("worker:@newest")
        assert (await env.show("worker:@newest")).run_id == again
        assert len({first, second, again}) == 3
        named = await env.start("worker", 1, id="@newest")
        await env.start("worker", 1)
        assert (await env.show("worker:@newest")).run_id == named  # whoever calls one so gets it
