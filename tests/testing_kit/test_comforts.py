"""What scenarios can do beside starting and waiting, and the pytest plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jivsd.testing.env import Env, RunFailed

PLUGIN = """
import msgspec
from jivsd import Context, Retry, StepContext, Transaction, signal, step, workflow

class Parcel(msgspec.Struct):
    name: str
    weight: int

class TooHeavy(Exception):
    pass

@step(retry=Retry(attempts=3, first="1s", jitter=0))
async def weigh(ctx: StepContext, name: str) -> int:
    return ctx.attempt

@step
def label(name: str) -> str:
    return name.upper()

@label.compensate
def tear(text: str | None, name: str) -> None: ...

@step
async def book(tx: Transaction, name: str) -> None: ...

@workflow("post")
class Post:
    stamped = False

    @signal
    def stamp(self) -> None:
        self.stamped = True

    async def run(self, ctx: Context, name: str) -> Parcel:
        text = await ctx.step(label, name)
        try:
            weight = await ctx.step(weigh, name)
        except TooHeavy:
            weight = -1
        await ctx.step(book, name)
        await ctx.wait_until(lambda: self.stamped)
        return Parcel(text, weight)
"""


class Parcel(msgspec.Struct):
    name: str
    weight: int


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "post.py"
    file.write_text(PLUGIN)
    return file


@pytest.mark.jump
async def test_steps_fail_as_often_as_asked_and_signals_come_later(plugin):
    async with Env(plugin) as env:
        env.fail("weigh", ConnectionError("no scales"), times=2)
        begun = env.now
        started = await env.start("post", "ann")
        env.later("2h", env.signal, started, "stamp")
        await env.sleep("1h")
        assert [wait.kind for wait in await env.waits(started)] == ["until"]
        assert await env.result(started, type=Parcel) == Parcel("ANN", 3)
        assert (env.now - begun).total_seconds() == 7200
        kinds = [event.kind for event in await env.events(started)]
        assert kinds.count("AttemptFailed") == 2


@pytest.mark.jump
async def test_a_step_that_always_fails_with_an_error_of_the_plugin(plugin):
    async with Env(plugin) as env:
        weigh = env.registry.workflow("post").namespace["weigh"]
        env.fail(weigh, weigh.function.__globals__["TooHeavy"]("much"), times=None)
        started = await env.start("post", "ann")
        await env.signal(started, "stamp")
        assert await env.result(started) == {"name": "ANN", "weight": -1}
        env.fail("book", OSError("full"), times=None)
        row = await env.ended(await env.start("post", "bob"))
        assert (row.status, row.error.type) == ("COMPENSATED", "OSError")


@pytest.mark.jump
async def test_steps_of_every_mode_are_replaced_and_come_back(plugin):
    seen = []

    async def weigh(ctx, name):
        seen.append((ctx.path, name))
        return 9

    async with Env(plugin) as env:
        env.replace("label", lambda name: f"<{name}>")
        env.replace("weigh", weigh)
        env.replace("book", lambda tx, name: seen.append(name))
        started = await env.start("post", "ann")
        await env.signal(started, "stamp")
        assert await env.result(started, type=Parcel) == Parcel("<ann>", 9)
        with pytest.raises(TypeError, match="step 'label' is a plain function, so a plain function stands in for it"):
            env.replace("label", weigh)
        with pytest.raises(LookupError, match=r"there is no step 'lable' in .*; there are: book, label, tear, weigh"):
            env.fail("lable", OSError())
    assert seen == [("weigh", "ann"), "ann"]
    async with Env(plugin) as env:
        started = await env.start("post", "ann")
        await env.signal(started, "stamp")
        assert await env.result(started, type=Parcel) == Parcel("ANN", 1)
        env.replace("label", lambda name: 7)
        with pytest.raises(RunFailed, match="does not fit its annotation"):
            await env.result(await env.start("post", "bob"))


@pytest.mark.slow
def test_the_pytest_plugin_runs_async_tests_that_ask_for_it(plugin, tmp_path):
    Path(tmp_path / "test_post.py").write_text("""
import time

SEEN = []

async def test_a_day_takes_no_time(jivsd_env, tmp_path):
    began = time.monotonic()
    async with jivsd_env("post.py") as env:
        run = await env.start("post", "ann")
        env.later("1d", env.signal, run, "stamp")
        assert await env.result(run) == {"name": "ANN", "weight": 1}
    assert tmp_path.exists()
    assert time.monotonic() - began < 60

async def test_a_failure_is_one(jivsd_env):
    async with jivsd_env("post.py") as env:
        assert False, "as it should"

def test_a_plain_one():
    import sys
    SEEN.append(1)
""")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    if "jivsd" not in _entry_points():
        command += ["-p", "jivsd.testing.pytest_plugin"]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "as it should" in done.stdout


def _entry_points():
    from importlib.metadata import entry_points

    return entry_points(group="pytest11").names
