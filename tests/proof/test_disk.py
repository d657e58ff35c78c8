"""What a daemon does when it cannot write, or may not: it says so, keeps what it has, and goes on when it can."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from jivsd.client import Client, ClientError
from jivsd.proof.daemons import Daemon, DaemonFailed
from jivsd.records import ENDED, Status

pytestmark = pytest.mark.slow

NO_LIMIT = resource.RLIM_INFINITY
SMALL = 32_768
"""Bytes of a file in which the log has room, and the journal's write-ahead log has none."""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="jivsd-disk-") as made:
        yield Path(made)


@asynccontextmanager
async def running(daemon):
    try:
        await daemon.start()
        async with Client.connect(daemon.data_dir) as client:
            yield client
    finally:
        await daemon.aclose()


async def until(look, what):
    with trio.move_on_after(20):
        while not await look():  # noqa: ASYNC110 -- another process does it
            await trio.sleep(0.05)
        return
    raise AssertionError(f"not within 20 s: {what}")


async def goes_on_when_there_is_room(client, daemon, fill, make_room):
    """A run is under way when the disk gets full; it ends when there is room again."""
    letters = {"letters": 40, "at_once": 2, "spread": 0.2}
    run = (await client.start("campaign", letters, id="spring")).run
    await client.signal(run.run_id, "approve", "ann")
    fill()

    async def away():
        return (await client.status()).store_away is not None

    await until(away, "that the store is away")
    with pytest.raises(ClientError) as refused:
        await client.start("campaign", {"letters": 1})
    assert refused.value.status == 503
    assert (await client.show(run.run_id)).status is Status.RUNNING
    make_room()

    async def back():
        return (await client.status()).store_away is None

    await until(back, "that the store is back")
    ended = await client.result(run.run_id, 30)
    assert ended.status is Status.COMPLETED
    assert (await client.start("order", {"order": "A-1"}, wait="20s")).run.status in ENDED
    log = daemon.log.read_text()
    assert "the store cannot be written to; work waits" in log
    assert "the store is back" in log
    assert await daemon.stop() == 0


async def test_a_limit_on_files_is_like_a_full_disk(folder):
    daemon = Daemon(folder / "state", folder / "daemon.log")
    async with running(daemon) as client:

        def limit(size):
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))

        await goes_on_when_there_is_room(client, daemon, lambda: limit(SMALL), lambda: limit(NO_LIMIT))


@pytest.fixture
def small_disk(folder):
    """A file system of 4 MiB."""
    place = folder / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk(small_disk, folder):
    daemon = Daemon(small_disk / "state", folder / "daemon.log")
    filler = small_disk / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    async with running(daemon) as client:
        await goes_on_when_there_is_room(client, daemon, fill, filler.unlink)


async def test_a_disk_that_is_read_only(small_disk, folder):
    daemon = Daemon(small_disk / "state", folder / "daemon.log")
    async with running(daemon):
        assert await daemon.stop() == 0
    await trio.run_process(["mount", "-o", "remount,ro", str(small_disk)])
    with pytest.raises(DaemonFailed, match="Read-only file system"):
        await daemon.start()
    assert await daemon.ended() == 1
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
async def test_a_folder_that_may_not_be_written(folder):
    folder.chmod(0o500)
    daemon = Daemon(folder / "state", Path(tempfile.gettempdir()) / f"{folder.name}.log")
    try:
        with pytest.raises(PermissionError):
            await daemon.launch()
    finally:
        folder.chmod(0o700)


async def test_a_second_daemon_on_the_same_folder_is_refused_and_harms_nobody(folder):
    first = Daemon(folder / "state", folder / "first.log")
    second = Daemon(folder / "state", folder / "second.log")
    async with running(first) as client:
        run = (await client.start("campaign", {"letters": 5, "spread": 0.2})).run
        await second.launch()
        assert await second.ended() == 1
        said = second.log.read_text()
        assert f"in use by another jivsd, process {first.pid}: stop that one, or use another data folder" in said
        assert "Traceback" not in said
        await client.signal(run.run_id, "approve", "ann")
        assert (await client.result(run.run_id, 20)).status is Status.COMPLETED
        assert await first.stop() == 0
