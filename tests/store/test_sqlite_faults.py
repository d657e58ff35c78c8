"""What the embedded store does when the disk does not: nothing is half written, and it goes on when there is room."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from typing import ClassVar

import apsw
import pytest

from jivsd.store.api import Entry, OutcomeUnknown, StoreAway, Written
from jivsd.store.sqlite import SqliteStore, database
from store.builders import Journal, append, event

PAYLOAD = b'"' + b"x" * 60_000 + b'"'


@contextmanager
def small_disk(folder, megabytes):
    """A real full disk where we may mount one; else a limit on the size of files, which fails in the same calls."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20, limits[1]))

    def make_room():
        if mounted:
            subprocess.run(["mount", "-o", f"remount,size={megabytes * 10}m", str(folder)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    try:
        yield make_room
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_whole_batches_until_there_is_room(tmp_path):
    with small_disk(tmp_path / "disk", 2) as make_room:
        async with SqliteStore(tmp_path / "disk" / "jivsd.db") as store:
            j = Journal(store, await store.open("node-a"))
            run, other = await j.start(), await j.start()
            seq = 2
            with pytest.raises(StoreAway, match=r"jivsd\.db"):
                while True:
                    await j.write(Entry(run.run_id, run.shard, events=[event(run, seq, PAYLOAD)]), append(other, seq))
                    seq += 1
            for _ in range(3):
                with pytest.raises(StoreAway):
                    await j.write(Entry(run.run_id, run.shard, events=[event(run, seq, PAYLOAD)]), append(other, seq))
            assert await j.seqs(run) == await j.seqs(other) == list(range(1, seq)), "readable, and nothing by halves"
            make_room()
            await store.probe()
            again = [Entry(run.run_id, run.shard, events=[event(run, seq, PAYLOAD)]), append(other, seq)]
            assert await j.write(*again) == [Written()] * 2
            assert await store.check() == []


async def test_no_room_for_a_new_database(tmp_path):
    with small_disk(tmp_path / "disk", 1) as make_room:
        path = tmp_path / "disk" / "jivsd.db"
        (tmp_path / "disk" / "filler").write_bytes(bytes(1 << 20))
        if shutil.disk_usage(tmp_path / "disk").free:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with pytest.raises(StoreAway):
            await SqliteStore(path).open("node-a")
        make_room()
        async with SqliteStore(path) as store:
            j = Journal(store, await store.open("node-a"))
            await j.start()


class BrokenFile(apsw.VFSFile):
    """A file of a disk on which some calls fail."""

    broken: ClassVar[set[str]] = set()

    def __init__(self, name, flags):
        super().__init__("", name, flags)

    def xSync(self, flags):
        if "sync" in self.broken:
            error = apsw.IOError("the disk does not answer")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC
            raise error
        super().xSync(flags)

    def xWrite(self, data, offset):
        if "write" in self.broken:
            raise apsw.IOError("the disk is gone")
        super().xWrite(data, offset)


class BrokenDisk(apsw.VFS):
    """The ordinary VFS with files that can break."""

    def __init__(self):
        super().__init__("broken", "", exclude={"xDlOpen"})

    def xOpen(self, name, flags):
        return BrokenFile(name, flags)


@pytest.fixture
def broken(monkeypatch):
    """Opens writers on the disk that can break; the set says what is broken."""
    disk = BrokenDisk()
    connection = apsw.Connection

    def connect(path, *, flags):
        return connection(path, flags=flags, vfs="broken") if flags & apsw.SQLITE_OPEN_READWRITE else connection(path)

    monkeypatch.setattr(database.apsw, "Connection", connect)
    BrokenFile.broken.clear()
    yield BrokenFile.broken
    BrokenFile.broken.clear()
    disk.unregister()


async def test_a_disk_that_does_not_write(tmp_path, broken):
    async with SqliteStore(tmp_path / "jivsd.db") as store:
        j = Journal(store, await store.open("node-a"))
        run = await j.start()
        broken.add("write")
        with pytest.raises(StoreAway):
            await j.write(append(run, 2))
        broken.clear()
        assert await j.seqs(run) == [1]
        assert await j.write(append(run, 2)) == [Written()]


async def seqs_after_a_crash(path, run, name):
    """What a process would find that came after this one was killed now."""
    copy = path.with_name(name)
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    async with SqliteStore(copy, read_only=True) as store:
        await store.open("node-b")
        return [event.seq for event in await store.events(run.run_id)]


async def test_a_commit_that_could_not_be_synced_is_unknown_until_the_epoch_is_raised(tmp_path, broken):
    path = tmp_path / "jivsd.db"
    async with SqliteStore(path) as store:
        j = Journal(store, await store.open("node-a"))
        run = await j.start()
        broken.add("sync")
        with pytest.raises(OutcomeUnknown):
            await j.write(append(run, 2))
        assert await j.seqs(run) == [1]
        assert await seqs_after_a_crash(path, run, "killed.db") == [1, 2], "why it is unknown"
        broken.clear()
        assert await store.raise_epoch("node-a", {run.shard: j.epoch}) == {run.shard: j.epoch + 1}
        assert await seqs_after_a_crash(path, run, "later.db") == [1], "shut out"
        j.epoch += 1
        assert await j.write(append(run, 2)) == [Written()]
        assert await seqs_after_a_crash(path, run, "last.db") == [1, 2]
