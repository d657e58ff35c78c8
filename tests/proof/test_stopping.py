"""Stopping a daemon that has reasons not to stop."""

import signal
import tempfile
from pathlib import Path

import pytest
import trio

from jivsd.client import Client
from jivsd.proof.daemons import Daemon

SPIN = """
from jivsd import Context, workflow

@workflow("spin")
async def spin(ctx: Context, marker: str) -> None:
    open(marker, "w").close()
    while True:
        pass

@workflow("nap")
async def nap(ctx: Context) -> None:
    await ctx.sleep("1h")
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="jivsd-stop-") as made:
        yield Path(made)


@pytest.fixture
def plugins(folder):
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "spin.py").write_text(SPIN)
    return plugins


@pytest.mark.slow
async def test_a_second_sigint_ends_it_even_when_a_workflow_does_not_yield(folder, plugins):
    daemon = Daemon(folder / "data", folder / "log", ["--plugins", str(plugins)])
    marker = folder / "spinning"
    try:
        await daemon.start()
        with trio.move_on_after(30):
            async with Client.connect(data_dir=daemon.data_dir) as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.start, "spin", str(marker))
                while not marker.exists():  # noqa: ASYNC110 -- another process makes it
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
        daemon.send(signal.SIGINT)
        await trio.sleep(0.2)
        daemon.send(signal.SIGINT)
        assert await daemon.ended() == 130
    finally:
        await daemon.aclose()


@pytest.mark.slow
async def test_sigterm_leaves_no_socket_and_exit_code_0(folder, plugins):
    daemon = Daemon(folder / "data", folder / "log", ["--plugins", str(plugins)])
    try:
        await daemon.start()
        async with Client.connect(data_dir=daemon.data_dir) as client:
            await client.start("nap", None)
        assert await daemon.stop() == 0
        assert not list(daemon.data_dir.glob("*.sock"))
    finally:
        await daemon.aclose()
