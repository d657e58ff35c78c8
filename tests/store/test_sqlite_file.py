"""The embedded store as a file: who may open it, what people see in it, what is found when it is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from functools import partial

import apsw
import pytest
import trio
import trio.testing

from jivsd.records import Incident
from jivsd.store.api import DamagedRow, Entry, RunFilter, StoreError, Written
from jivsd.store.sqlite import SqliteStore, upkeep
from store.builders import AT, Journal, append, end, event, found_by_mark, marked, new_run, post, start


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jivsd.db"


@asynccontextmanager
async def opened(path, **options):
    async with SqliteStore(path, **options) as store:
        yield Journal(store, await store.open("node-a"))


async def test_everything_is_there_after_a_restart_and_the_epoch_is_higher(path):
    async with opened(f"sqlite:///{path}") as j:
        run = await j.start(lock_key="k")
        await j.write(append(run, 2, 3), post(run, "m1"))
        first = j.epoch
    async with opened(path) as j:
        assert j.epoch > first
        assert await j.seqs(run) == [1, 2, 3]
        assert [message.message_id for message in await j.store.messages(run.run_id)] == ["m1"]
        assert [holder.run_id for holder in await j.store.lock_queue()] == [run.run_id]
        assert await j.one(append(run, 4)) == Written()


async def test_a_closed_database_is_one_file(path):
    async with opened(path) as j:
        await j.start()
    assert sorted(file.name for file in path.parent.iterdir()) == ["jivsd.db", "jivsd.db.lock"]


async def test_the_file_belongs_to_its_owner_only(path):
    async with opened(path):
        assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == dict.fromkeys(
            ("jivsd.db", "jivsd.db-wal", "jivsd.db-shm", "jivsd.db.lock"), 0o600
        )


async def test_commits_are_synced(path):
    async with opened(path) as j:
        found = await j.store._write(lambda db: [db.pragma("synchronous"), db.pragma("journal_mode")])
        assert found == [2, "wal"], "FULL"


@pytest.mark.slow
def test_a_second_daemon_is_refused_and_told_who_has_it(path):
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=rf"in use by another jivsd, process {holder.pid}: stop that one"):
            trio.run(SqliteStore(path).open, "node-b")
        holder.kill()
        holder.wait()

    async def after_its_death():
        async with opened(path) as j:
            assert j.epoch == 2

    trio.run(after_its_death)


HOLDER = """
import sys, trio
from jivsd.store.sqlite import SqliteStore
async def main():
    await SqliteStore(sys.argv[1]).open("node-a")
    print("open", flush=True)
    sys.stdin.read()
trio.run(main)
"""


async def test_twice_in_one_process_is_refused_as_well(path):
    async with opened(path) as j:
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            await SqliteStore(path).open("node-b")
        with pytest.raises(StoreError, match="open already"):
            await j.store.open("node-a")
        assert isinstance(await j.start(), object)


async def test_a_newer_schema_is_refused(path):
    async with opened(path):
        pass
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    connection.close()
    for options in ({}, {"read_only": True}):
        with pytest.raises(StoreError, match=r"has schema version 99, this jivsd knows up to \d"):
            await SqliteStore(path, **options).open("node-a")
    with pytest.raises(StoreError, match="version 99"):
        await SqliteStore(path).open("node-a")  # and the refused ones hold no lock


async def test_attributes_from_before_their_workflow_stood_beside_them_are_found(path):
    async with opened(path) as j:
        early = await marked(j)
    with apsw.Connection(str(path)) as connection:
        connection.execute(
            "ALTER TABLE attribute DROP COLUMN run_workflow; UPDATE meta SET value = '2' WHERE name = 'schema'"
        )
    connection.close()
    async with opened(path) as j:
        late = await marked(j)
        assert await found_by_mark(j) == {name: {early[name], late[name]} for name in early}


async def test_another_number_of_shards_is_refused(path):
    async with opened(path):
        pass
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '16' WHERE name = 'shards'")
    connection.close()
    with pytest.raises(StoreError, match="number of shards"):
        await SqliteStore(path).open("node-a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("CREATE TABLE customers (name)", "another program"),
        (b"not a database at all, but long enough to have a header " * 20, "is damaged"),
    ],
)
async def test_a_file_that_is_not_ours_is_left_alone(path, content, said):
    if isinstance(content, str):
        connection = apsw.Connection(str(path))
        connection.execute(content)
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=said):
        await SqliteStore(path).open("node-a")
    assert path.read_bytes() == before


@pytest.mark.parametrize("options", [{}, {"read_only": True}])
@pytest.mark.parametrize("name", ["no/such/folder/jivsd.db", "folder"])
async def test_a_place_without_a_database(tmp_path, name, options):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=name):
        await SqliteStore(tmp_path / name, **options).open("node-a")


@pytest.mark.parametrize("url", ["postgresql://host/db", "redis://x", "sqlite:path"])
def test_a_url_of_something_else(url):
    if "://" in url:
        with pytest.raises(StoreError, match="is not an embedded store"):
            SqliteStore(url)
    else:
        assert SqliteStore(url).path == url


@pytest.mark.parametrize("threaded", [True, False])
async def test_looking_beside_a_daemon(path, threaded):
    async with opened(path) as j:
        run = await j.start()
        async with SqliteStore(path, read_only=True, threaded=threaded) as looker:
            assert await looker.open("node-b") == 0
            await j.one(append(run, 2))
            assert [event.seq for event in await looker.events(run.run_id)] == [1, 2]
            assert await looker.check() == []
            with pytest.raises(StoreError, match="reading only"):
                await looker.commit([append(run, 3)])
            with pytest.raises(StoreError, match="reading only"):
                await looker.put_incident(Incident("i", "step", "x", 1))
        assert await j.one(append(run, 3)) == Written()


async def test_looking_after_a_kill(path):
    async with opened(path) as j:
        run = await j.start()
        copy = path.with_name("killed.db")  # a database whose log nobody emptied
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    async with SqliteStore(copy, read_only=True) as looker:
        await looker.open("node-b")
        assert len(await looker.events(run.run_id)) == 1


async def test_a_closed_store_says_so(path):
    async with opened(path) as j:
        pass
    with pytest.raises(StoreError, match="not open"):
        await j.store.counts()
    with pytest.raises(StoreError, match="not open"):
        await j.store.commit([])


async def test_a_caller_who_is_cancelled_gets_the_verdict_all_the_same(path):
    async with opened(path) as j:
        run = await j.start()
        began, go = threading.Event(), threading.Event()

        def hold(_):
            began.set()
            go.wait()

        answers = []

        async def commit():
            entry = append(run, 2)
            entry.epoch = j.epoch
            answers.append(await j.store.commit([entry]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(j.store._writer.call, hold)
            await trio.to_thread.run_sync(began.wait)
            nursery.start_soon(commit)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            go.set()
        assert answers == [[Written()]]
        assert await j.seqs(run) == [1, 2]


async def test_readers_do_not_wait_for_the_writer(path):
    async with opened(path) as j:
        run = await j.start()
        began, go = threading.Event(), threading.Event()

        def hold(connection):
            connection.execute("BEGIN IMMEDIATE")
            began.set()
            go.wait()
            connection.execute("ROLLBACK")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(j.store._writer.call, hold)
            await trio.to_thread.run_sync(began.wait)
            assert await j.seqs(run) == [1]
            go.set()


async def test_the_views_read_well(path):
    async with opened(path) as j:
        run = await j.start(workflow="order", workflow_id="o-1")
        large = b'{"text":"' + b"x" * 70_000 + b'"}'
        await j.one(Entry(run.run_id, run.shard, events=[event(run, 2, large, by="ann")]))
        await j.one(end(run, 3, at=AT + 1_500_000))
    with apsw.Connection(str(path)) as connection:
        connection.row_trace = lambda cursor, row: dict(zip([c[0] for c in cursor.get_description()], row, strict=True))
        timeline = connection.execute("SELECT * FROM timeline WHERE workflow_id = 'o-1'").fetchall()
        (shown,) = connection.execute("SELECT * FROM runs").fetchall()
        (row,) = connection.execute("SELECT input FROM run").fetchall()
    connection.close()
    assert [json.loads(line["payload"]) for line in timeline][:2] == [{"seed": "s"}, json.loads(large)]
    assert timeline[1]["at"] == "2027-01-15T08:00:00.000000Z"
    assert (timeline[1]["by"], timeline[1]["kind"], timeline[1]["status"]) == ("ann", "StepDone", "COMPLETED")
    assert (shown["ended_at"], shown["wake_at"]) == ("2027-01-15T08:00:01.500000Z", None)
    assert json.loads(row["input"]) == json.loads(shown["input"]) == {"seconds": 1}


DAMAGE = [
    ("UPDATE event SET payload = X'7B7D' WHERE seq = 3", "event 3 of run {run} is damaged"),
    ("UPDATE event SET path = 'elsewhere' WHERE seq = 3", "event 3 of run {run} is damaged"),
    ("UPDATE event SET at = at + 1 WHERE seq = 3", "event 3 of run {run} is damaged"),
    ("UPDATE event SET checksum = checksum + 1 WHERE seq = 3", "event 3 of run {run} is damaged"),
    ("UPDATE event SET payload = NULL WHERE seq = 3", "event 3 of run {run} is damaged"),
    ("UPDATE payload SET body = X'22'", "event 4 of run {run} is damaged"),
    ("DELETE FROM payload", "event 4 of run {run} is damaged"),
    ("DELETE FROM event WHERE seq = 3", "event 3 of run {run} missing"),
    ("DELETE FROM event WHERE seq IN (1, 2, 3)", "events 1 to 3 of run {run} missing"),
    ("DELETE FROM run", "run {run} has events but no row"),
    ("DELETE FROM event", "run {run} has no events"),
    ("UPDATE run SET input = CAST(X'FF' AS TEXT)", "not UTF-8"),
    ("UPDATE run SET status = 'ASLEEP'", "the row of run {run} is damaged"),
    ("""UPDATE run SET options = '{"timeout": "long"}'""", "the row of run {run} is damaged"),
]


@pytest.mark.parametrize(("damage", "finding"), DAMAGE)
async def test_damage_is_found(path, damage, finding):
    async with opened(path) as j:
        run = await j.start()
        large = b'"' + b"x" * 70_000 + b'"'
        await j.write(append(run, 2, 3), Entry(run.run_id, run.shard, events=[event(run, 4, large)]), append(run, 5))
        connection = apsw.Connection(str(path))
        connection.execute(damage)
        connection.close()
        findings = await j.store.check()
        assert any(finding.format(run=run.run_id) in line for line in findings), findings


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGE[:9]])
async def test_a_damaged_journal_is_never_read(path, damage):
    async with opened(path) as j:
        run, other = await j.start(), await j.start()
        large = b'"' + b"x" * 70_000 + b'"'
        await j.write(append(run, 2, 3), Entry(run.run_id, run.shard, events=[event(run, 4, large)]), append(run, 5))
        connection = apsw.Connection(str(path))
        connection.execute(damage.replace("WHERE", f"WHERE run_id = '{run.run_id}' AND"))
        connection.close()
        with pytest.raises(DamagedRow, match=run.run_id):
            await j.store.events(run.run_id)
        assert await j.seqs(other) == [1]
        assert await j.one(append(other, 2)) == Written()


async def test_a_damaged_row_in_the_way_of_an_append_harms_only_its_run(path):
    async with opened(path) as j:
        run, other = await j.start(), await j.start()
        await j.one(append(run, 2))
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE event SET payload = X'7B7D' WHERE seq = 2")
        connection.close()
        refused, written = await j.write(append(run, 2), append(other, 2))
        assert (refused.why, written) == ("exists", Written())


async def test_torn_pages_are_found(path):
    async with opened(path) as j:
        runs = [new_run() for _ in range(50)]
        await j.write(*[start(run) for run in runs])
        await j.write(*[append(run, *range(2, 30)) for run in runs])
    content = bytearray(path.read_bytes())
    for page in range(len(content) // 4096 * 2 // 3, len(content) // 4096):  # events; the schema lies before
        content[page * 4096 : page * 4096 + 512] = os.urandom(512)
    path.write_bytes(content)
    async with SqliteStore(path, read_only=True) as store:
        await store.open("node-a")
        assert await store.check()
        for run in runs[-5:]:
            with pytest.raises(StoreError, match="damaged"):
                await store.events(run.run_id)


async def test_a_backup_of_a_database_in_use(path):
    async with opened(path) as j:
        runs = [await j.start() for _ in range(5)]
        target = path.with_name("backup.db")
        stop = False

        async def keep_writing():
            seq = 2
            while not stop:
                await j.write(*[append(run, seq) for run in runs])
                seq += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing)
            await j.store.backup(str(target))
            stop = True
        with pytest.raises(StoreError, match="already a file"):
            await j.store.backup(str(target))
        with pytest.raises(StoreError, match="cannot write the backup"):
            await j.store.backup(str(path.parent / "none" / "b.db"))
    assert sorted(file.name for file in path.parent.iterdir() if file.name.startswith("backup")) == ["backup.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    async with opened(target) as copy:
        assert await copy.store.check() == []
        assert await copy.seqs(runs[0])
        assert len({len(await copy.seqs(run)) for run in runs}) == 1, "one snapshot"


async def test_a_backup_given_up_leaves_nothing(path, monkeypatch):
    async with opened(path) as j:
        await j.start()
        with trio.CancelScope() as scope:
            scope.cancel()
            await j.store.backup(str(path.with_name("backup.db")))
        monkeypatch.setattr("jivsd.store.sqlite.upkeep.BACKUP_PAGES", 1)
        began, given_up = threading.Event(), threading.Event()
        copy = upkeep._copy

        def copy_when_given_up(*arguments):
            began.set()
            given_up.wait()
            copy(*arguments)

        monkeypatch.setattr(upkeep, "_copy", copy_when_given_up)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(j.store.backup, str(path.with_name("backup.db")))
            await trio.to_thread.run_sync(began.wait)
            nursery.cancel_scope.cancel()
            given_up.set()
    assert [file.name for file in path.parent.iterdir() if file.name.startswith("backup")] == []


async def test_pruning_goes_in_bounded_batches(path, monkeypatch):
    monkeypatch.setattr("jivsd.store.removal.PRUNE_EVENTS", 10)
    async with opened(path) as j:
        runs = [await j.start() for _ in range(20)]
        for run in runs:
            await j.one(end(run, 2))
        pages, cursor = [], None
        while not pages or cursor is not None:
            page = await j.store.prunable(RunFilter(), 17, cursor)
            pages.append(await j.store.remove(page.run_ids))
            cursor = page.next
        assert pages == [5, 5, 5, 5]
        assert await j.store.check() == []


async def test_a_run_row_of_a_later_program_is_a_clear_error(path):
    async with opened(path) as j:
        run = await j.start()
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE run SET status = 'ASLEEP'")
        connection.close()
        for ask in (partial(j.store.run, run.run_id), partial(j.store.runs, RunFilter(workflow_id=run.workflow_id), 5)):
            with pytest.raises(StoreError, match=f"the row of run {run.run_id} is damaged"):
                await ask()


async def test_a_database_in_memory_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in (":memory:", "sqlite://"):
        for threaded in (True, False):
            async with opened(url, threaded=threaded) as j:
                run = await j.start()
                assert await j.seqs(run) == [1]
                assert await j.store.check() == []
                await j.store.backup(str(tmp_path / "copy.db"))
            (tmp_path / "copy.db").unlink()
    assert list(tmp_path.iterdir()) == []
