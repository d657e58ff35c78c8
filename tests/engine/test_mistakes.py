"""The mistakes that a new author makes: each is told what is wrong, where, and what would be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from jivsd.engine.api import Invalid, NotFound
from jivsd.registry.source import PluginProblem
from jivsd.testing import Env, RunFailed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.jump

HEAD = """
from jivsd import NO_RETRY, Context, query, signal, step, workflow
import trio

@step(retry=NO_RETRY)
async def work(n: int) -> int:
    raise ConnectionError("no network")

async def helper(n: int) -> int:
    return n

def deeper() -> None:
    raise ValueError("deep")

@workflow("made")
class Made:
    approved = False

    @signal
    def approve(self, by: str) -> None:
        self.approved = True

    async def run(self, ctx: Context, n: int) -> None:
"""
OWN_LINE = HEAD.count("\n") + 1


@pytest.fixture
def plugin(tmp_path):
    """A plugin with some code; its file."""

    def write(code: str) -> Path:
        (tmp_path / "mistakes.py").write_text(code)
        return tmp_path / "mistakes.py"

    return write


@pytest.mark.parametrize(
    ("code", "error", "place"),
    [
        (
            "await ctx.step(helper, n)",
            "TypeError: ctx.step takes a function declared with @step, not helper",
            OWN_LINE,
        ),
        (
            "await ctx.step(5, n)",
            "TypeError: ctx.step takes a function declared with @step, not a value of type int",
            OWN_LINE,
        ),
        (
            "await ctx.run(helper, n)",
            "TypeError: ctx.run takes a workflow or a workflow's name, not helper",
            OWN_LINE,
        ),
        (
            "await ctx.wait_until(self.approved)",
            "TypeError: ctx.wait_until takes a function, as in `ctx.wait_until(lambda: self.approved)`, "
            "not a value of type bool",
            OWN_LINE,
        ),
        ("await ctx.step(work, n)", "ConnectionError: no network", OWN_LINE),
        ("deeper()", "ValueError: deep", 13),
        (
            "async with ctx.nursery('all') as all: all['a'].start_soon(work, n)",
            "ExceptionGroup: nursery 'all' (ConnectionError: no network)",
            OWN_LINE,
        ),
    ],
)
async def test_a_run_that_fails_says_where(plugin, code, error, place):
    async with Env(plugin(f"{HEAD}        {code}\n")) as env:
        run = await env.start("made", 1)
        with pytest.raises(RunFailed) as caught:
            await env.result(run)
        assert re.search(rf"FAILED: {re.escape(error)}, raised at \w+@\w+/\w+\.py:{place}$", str(caught.value))


async def test_a_signal_of_another_type_is_told_so_once(plugin):
    async with Env(plugin(f"{HEAD}        await ctx.wait_until(lambda: self.approved)\n")) as env:
        run = await env.start("made", 1)
        with pytest.raises(Invalid, match=r"^workflow 'made', signal 'approve': invalid input: Expected `str`"):
            await env.signal(run, "approve", 5)
        with pytest.raises(NotFound, match=r"'jade'; a run is named by its run id or as WORKFLOW:ID$"):
            await env.signal("jade", "approve", "ann")
        with pytest.raises(NotFound, match=r"'jade'; the plugins of this test have: made$"):
            await env.start("jade", 5)
        with pytest.raises(AssertionError, match=r"it waits for a condition on the run's own state at wait_until$"):
            await env.ended(run)


async def test_a_plugin_that_does_not_load_is_told_without_a_chain(plugin):
    with pytest.raises(PluginProblem, match="object has no JSON form; write Any for any JSON value") as caught:
        Env(plugin("from jivsd import *\n@step\ndef odd() -> dict[str, object]: ...\n"))
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert [entry.name for entry in caught.traceback][1:] == ["__init__", "registry_of"]


def test_an_env_outside_of_async_code_says_where_it_belongs(plugin):
    with pytest.raises(RuntimeError, match="Env is used in async code: in a test"):
        Env(plugin(HEAD))
