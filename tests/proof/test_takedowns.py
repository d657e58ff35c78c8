"""Real daemons whose workflows spin, or end the process: the culprit is held, all others go on."""

import signal
import tempfile
from pathlib import Path

import pytest
import trio

from jivsd.client import Client, ClientError, DaemonNotRunning
from jivsd.proof.daemons import Daemon

POISON = """
import ctypes, os, re, signal, time
from jivsd import Context, StepContext, step, workflow

@step
async def leave() -> None:
    os._exit(3)

@step
def leave_in_a_thread() -> None:
    os._exit(3)

@step
async def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@step
async def crash() -> None:
    ctypes.string_at(0)

@step
async def block() -> None:
    time.sleep(60)

STEPS = {step.name: step for step in (leave, leave_in_a_thread, kill, crash, block)}

@workflow("poison")
async def poison(ctx: Context, what: str) -> str:
    await ctx.sleep("50ms")
    if what == "spin":
        while True:
            pass
    if what == "regex":
        re.match("(a+)+$", "a" * 60 + "b")
    if what in STEPS:
        await ctx.step(STEPS[what])
    await ctx.wait_signal("go")
    return "went"

@workflow("good")
async def good(ctx: Context) -> str:
    await ctx.wait_signal("go")
    return "went"
"""

FLAGS = {"JIVSD_SUPERVISION__LOOP_WARNING": "200ms", "JIVSD_SUPERVISION__LOOP_LIMIT": "600ms"}


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="jivsd-take-") as made:
        plugins = Path(made) / "plugins"
        plugins.mkdir(mode=0o755)
        (plugins / "poison.py").write_text(POISON)
        yield Path(made)


def daemon_in(folder):
    return Daemon(folder / "data", folder / "log", ["--plugins", str(folder / "plugins")], FLAGS)


async def start(client, *inputs):
    """Start runs, of which one may take the daemon along before it answers."""
    try:
        for one in inputs:
            await client.start("poison", one, id=one)
    except (DaemonNotRunning, ClientError):
        pass


async def blocked(client, ref):
    """The run, as soon as it is held."""
    with trio.fail_after(30):
        while (run := await client.show(ref)).status != "BLOCKED":  # noqa: ASYNC110 -- another process does it
            await trio.sleep(0.05)
    return run


async def gone(daemon):
    with trio.fail_after(30):
        return await daemon.ended()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("spin", 70, "quarantined: it stopped the loop for 0.6 s at poison@"),
        pytest.param("block", 70, "quarantined: it stopped the loop for 0.6 s at poison@", marks=pytest.mark.soak),
        pytest.param("leave", 3, "quarantined: it ended the process by os._exit(3) at poison@", marks=pytest.mark.soak),
        ("leave_in_a_thread", 3, "quarantined: it ended the process by os._exit(3) at poison@"),
        pytest.param("kill", -signal.SIGKILL, "quarantined: it killed the process at poison@", marks=pytest.mark.soak),
    ],
)
async def test_who_takes_the_process_down_is_held_at_the_next_start(folder, what, code, says):
    daemon = daemon_in(folder)
    try:
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            fine = (await client.start("good")).run.run_id
            also_fine = (await client.start("poison", "nothing")).run.run_id
            await start(client, what)
            assert await gone(daemon) == code
        if code == 70:
            log = (folder / "log").read_text()
            assert "code holds up the event loop" in log
            assert "poison.py:" in log
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            (incident,) = (await client.incidents()).items
            assert incident.kind == "takedown"
            assert incident.message.startswith(says)
            assert ("poison.py:" in incident.message, incident.workflow) == (True, "poison")
            held = await blocked(client, f"poison:{what}")
            assert held.run_id == incident.run_id
            for run in (fine, also_fine):
                await client.signal(run, "go")
                assert (await client.result(run, 10)).status == "COMPLETED"
            await client.terminate(held.run_id, reason="poison")
            assert (await client.incidents()).items == []
    finally:
        await daemon.aclose()


@pytest.mark.soak
@pytest.mark.timeout(120)
async def test_code_that_keeps_the_interpreter_is_ended_by_the_kernel_and_found_by_a_trial(folder):
    daemon = daemon_in(folder)
    try:
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            await start(client, "nothing", "regex")
            assert await gone(daemon) == -signal.SIGVTALRM
        await daemon.launch()
        assert await gone(daemon) == -signal.SIGVTALRM
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            (incident,) = (await client.incidents()).items
            assert incident.message.startswith("quarantined: it kept the interpreter to itself at poison@")
            await client.signal("poison:nothing", "go")
            assert (await client.result("poison:nothing", 10)).status == "COMPLETED"
    finally:
        await daemon.aclose()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_of_a_fatal_error_the_suspects_are_tried_one_by_one(folder):
    """A segmentation fault leaves only a stack: its runs come back one at a time until the guilty one is alone."""
    daemon = daemon_in(folder)
    try:
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            fine = [(await client.start("poison", "nothing")).run.run_id for _ in range(3)]
            await start(client, "crash")
            assert await gone(daemon) == -signal.SIGSEGV
        await daemon.launch()  # which brings the guilty one back, alone
        assert await gone(daemon) == -signal.SIGSEGV
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            (incident,) = (await client.incidents()).items
            assert incident.message.startswith("quarantined: it ended the process (Segmentation fault) at poison@")
            await blocked(client, "poison:crash")
            for run in fine:
                await client.signal(run, "go")
                assert (await client.result(run, 10)).status == "COMPLETED"
    finally:
        await daemon.aclose()
