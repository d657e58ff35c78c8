"""Histories: what a replay finds, and what `python -m jivsd.testing` says."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
import trio
import trio.testing

from jivsd import Context, StepContext, step, workflow
from jivsd.store.api import Plugin
from jivsd.testing.__main__ import main
from jivsd.testing.env import Env, run
from jivsd.testing.history import History, Mismatch, NotAHistory, record, replay

PLUGIN = """
from jivsd import Context, step, workflow

@step
async def double(n: int) -> int:
    return 2 * n

@workflow("sums")
async def sums(ctx: Context, n: int) -> int:
    first = await ctx.step(double, n)
    async with ctx.nursery("more") as more:
        jobs = [more[key].start_soon(double, key) for key in (1, 2)]
    return first + sum(job.result for job in jobs)
"""


@step
async def double(n: int) -> int:
    return 2 * n


@step
async def third(ctx: StepContext, n: int) -> int:
    return 3 * n


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture
def history(plugin):
    async def scenario():
        async with Env(plugin) as env:
            await trio.testing.wait_all_tasks_blocked()  # until it has looked for what to recover
            started = await env.start("sums", 5, id="s-1")
            await env.result(started)
            stored = env.registry.plugins[0].stored
            return record(History.of(await env.engine.show(started), await env.events(started), stored), plugin)

    return run(scenario)


def changed(plugin, old, new):
    assert old in PLUGIN
    plugin.write_text(PLUGIN.replace(old, new))
    return plugin


def test_a_history_survives_its_file(history, tmp_path):
    history.write(tmp_path / "history.json")
    again = History.read(tmp_path / "history.json")
    assert again.encode() == history.encode()
    assert again.journal()[0].run_id == again.run_id
    assert [str(it).split(" with")[0] for it in replay(again).issued] == [
        "step double",
        "step more[1]/double",
        "step more[2]/double",
    ]


@pytest.mark.parametrize(
    ("old", "new", "seq", "path", "expected", "found"),
    [
        ("ctx.step(double, n)", "ctx.step(double, n + 1)", 1, "double", "step double with arg", "step double with arg"),
        ('"more"', '"other"', 2, "more[1]/double", "step more[1]/double with", "step other[1]/double with"),
        ("(1, 2)", "(1, 2, 3)", 2, "more[3]/double", "no command", "step more[3]/double with"),
        ("(1, 2)", "(1,)", 2, "more[2]/double", "step more[2]/double with", "no command"),
        ("return first +", "return 1 +", 5, "", "COMPLETED with 16", "COMPLETED with 7"),
        ("    return first +", "    await ctx.sleep(1)\n    return first +", 4, "sleep", "no command", "timer sleep"),
        (
            "return first +",
            "raise KeyError(first) if first else",
            5,
            "",
            "COMPLETED with 16",
            "FAILED with KeyError: 10",
        ),
    ],
)
def test_code_that_does_something_else_is_found_out(history, plugin, old, new, seq, path, expected, found):
    with pytest.raises(Mismatch, match="workflow 'sums' does not match its history, event") as caught:
        replay(history, changed(plugin, old, new))
    mismatch = caught.value
    assert (mismatch.seq, mismatch.path) == (seq, path)
    assert mismatch.expected.startswith(expected)
    assert mismatch.found.startswith(found)


def test_without_the_commands_the_events_alone_are_compared(history, plugin):
    exported = msgspec.structs.replace(history, issued=None)
    assert replay(exported, changed(plugin, "(1, 2)", "(2, 1)")).outcome.status == "COMPLETED"
    with pytest.raises(
        Mismatch, match=r"the journal has StepDone for more\[2\]/double, which the code has not reached"
    ):
        replay(exported, changed(plugin, "(1, 2)", "(1, 3)"))


def test_a_replay_may_be_called_inside_of_trio_and_finds_its_calls(history):
    @workflow("sums")
    async def sleepy(ctx: Context, n: int) -> int:
        with trio.move_on_after(1):
            await trio.sleep(n)
        return n

    async def inside():
        assert replay(history).outcome.status == "COMPLETED"
        return replay(msgspec.structs.replace(history, issued=None), sleepy)

    for found in (trio.run(inside), replay(msgspec.structs.replace(history, issued=None), sleepy)):
        assert found.blocked.kind == "foreign"
        assert "workflow code may await only its context" in found.blocked.message


def test_code_that_is_not_there(history, plugin):
    with pytest.raises(LookupError, match="there is no workflow 'sums' in the plugin; it has: plus"):
        replay(history, changed(plugin, '@workflow("sums")', '@workflow("plus")'))
    with pytest.raises(LookupError, match="brings no source along"):
        replay(msgspec.structs.replace(history, plugin=None))


def test_files_that_hold_no_history(tmp_path):
    file = tmp_path / "file.json"
    file.write_text("{}")
    with pytest.raises(NotAHistory, match="is not a history that `jivsd export`"):
        History.read(file)


def test_the_command_says_what_a_replay_finds(history, plugin, tmp_path, capsys):
    bundle = str(tmp_path / "bundle.json")
    history.write(bundle)
    assert main(["replay", bundle]) == 0
    assert capsys.readouterr().out == "sums:s-1 replays: 5 events, 3 commands; it ends COMPLETED\n"
    assert main(["replay", bundle, "--plugin", str(changed(plugin, "(1, 2)", "(1,)"))]) == 1
    assert "expected step more[2]/double" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none.json")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    history = msgspec.structs.replace(history, plugin=Plugin("0" * 32, "sums", {"sums.py": ""}, 0))
    history.write(bundle)
    assert main(["replay", bundle]) == 2
    assert "its files do not match their hash" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (
            ["--break", "double"],
            "p n\nn\np first\nc\n",
            ["step double is issued, at event 1", "(Pdb) 5", "(Pdb) 10"],
        ),
        (["--break"], "p first, [job.result for job in jobs]\nq\n", ["the end of the replay", "(10, [2, 4])"]),
        (["--break", "nowhere"], "p n\nc\n", ["nowhere is never reached; this is the end", "(Pdb) 5\n"]),
        (["--break", "more[2]/double"], "p first\nc\n", ["step more[2]/double is issued, at event 2", "(Pdb) 10\n"]),
    ],
)
def test_the_debugger_stops_in_the_plugins_code(history, tmp_path, arguments, typed, said):
    bundle = tmp_path / "bundle.json"
    history.write(bundle)
    command = [sys.executable, "-m", "jivsd.testing", "replay", str(bundle), *arguments]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    place = 0
    for line in said:
        place = done.stdout.index(line, place)
