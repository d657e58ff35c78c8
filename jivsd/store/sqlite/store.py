"""The front of the embedded store: who may call, on which thread the work is done, what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import apsw
import trio

from jivsd.store.api import StoreError
from jivsd.store.sqlite import listing, loading, lockbook, plugin_tables, pruning, reading, rows, statistics, upkeep
from jivsd.store.sqlite.batch import BatchWriter
from jivsd.store.sqlite.database import (
    MEMORY,
    FileLock,
    check_version,
    connect_reader,
    connect_writer,
    migrate,
    path_of,
    query,
    together,
    translated,
)
from jivsd.store.sqlite.feed import SqliteFeed
from jivsd.store.sqlite.requests import SqliteSqlRequests
from jivsd.store.sqlite.worker import InlineWorker, ThreadWorker
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from jivsd.bridge import Usage
    from jivsd.records import Event, Incident, IncidentGroup, Kind, Message, Progress, Publication, Run
    from jivsd.store.api import (
        Entry,
        More,
        Plugin,
        Post,
        Recorded,
        RunFilter,
        Runs,
        Shards,
        Verdict,
        Wake,
    )
    from jivsd.store.lockbook import LockQueue, Tangle
    from jivsd.store.plugin_tables import Migration
    from jivsd.store.removal import Journals, PruneCount, RunIds
    from jivsd.store.sqlite.worker import Worker
    from jivsd.store.statistics import Statistics
    from jivsd.store.tickets import Holder

T = TypeVar("T")

READERS: Final = 2
"""Connections that read, with a thread each."""


NOT_SHARED: Final = (
    "nodes share a PostgreSQL database, no file: say store = postgresql://…, or leave redis, cluster.share and workers "
    "out"
)


class SqliteStore:
    """The journal in one SQLite file (write-ahead log, every commit synced). Keeps the contract `store.api.Store`.

    One thread writes; others read, and are not kept waiting by it. A second daemon on the file is refused. An
    `async with` closes the store; `open` comes first.
    """

    def __init__(self, url: str | Path, *, threaded: bool = True, read_only: bool = False) -> None:
        """Name the database: `sqlite:////path`, a path, or `:memory:`.

        Args:
            url: where it is.
            threaded: whether threads of the store's own do the work; if not, the caller's does, at once: for tests in
                which time jumps.
            read_only: only look; works beside a daemon that has the file, and never changes or makes it.

        Raises:
            StoreError: it is the URL of something else.
        """
        self.path = path_of(url)
        self._threaded = threaded
        self._read_only = read_only
        self._lock: FileLock | None = None
        self._writer: Worker | None = None
        self._reader: Worker | None = None
        self._batches: BatchWriter | None = None
        self._sql = statements("sqlite")
        self.feed = SqliteFeed(self._read, self._write)
        self.sql_requests = SqliteSqlRequests(self._read, self._write)

    @property
    def transactions(self) -> None:
        """The writer runs transaction steps, inside batches."""

    @property
    def requests(self) -> None:
        """Only one node can have it."""

    async def __aenter__(self) -> SqliteStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def sharing(self) -> None:
        """One daemon has the file, and all shards."""

    async def open(self, node: str, *, share: bool = False) -> int:
        """Check the database, bring its schema up to date, claim all shards for `node`; return the epoch.

        Opened read-only it claims nothing and returns 0.

        Raises:
            StoreError: another daemon has the file, its schema is newer than this program, it is another program's; or
                it is to be shared.
            StoreAway: it cannot be written to.
        """
        if share:
            raise StoreError(NOT_SHARED)
        if self._threaded:
            await trio.to_thread.run_sync(self._connect)
        else:
            self._connect()
        if self._read_only:
            return 0
        try:
            return await self._write(lambda db: query(db, self._sql["claim_shards"], (node,)).fetchall()[0][0])
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.close()
            raise

    async def close(self) -> None:
        """Let what has begun end, close the connections, let the next daemon in."""
        # The writer last: the connection that is closed last empties the log into the database.
        workers = [worker for worker in dict.fromkeys((self._reader, self._writer)) if worker is not None]
        self._reader = self._writer = None
        with trio.CancelScope(shield=True):
            for worker in workers:
                await worker.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        """See `Store.commit`."""
        if self._batches is None or self._writer is None:
            raise self._not_writable()
        batches = self._batches

        def work(_: apsw.Connection) -> list[Verdict]:
            verdicts = batches.commit(batch)
            while more is not None and self._threaded and (following := more(verdicts)):
                verdicts = batches.commit(following)
            return verdicts

        return await self._writer.call(work)

    async def raise_epoch(self, node: str, shards: Mapping[int, int]) -> dict[int, int]:
        """See `Store.raise_epoch`. There is one writer, so no older transaction can be under way."""

        def work(db: apsw.Connection) -> dict[int, int]:
            with together(db):
                raised = {
                    shard: query(db, self._sql["raise_epoch"], (shard, node, epoch)).fetchall()
                    for shard, epoch in shards.items()
                }
                return {shard: found[0][0] for shard, found in raised.items() if found}

        return await self._write(work)

    async def events(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """See `Store.events`."""
        return await self._read(lambda db: reading.events(db, run_id, after, limit))

    async def find_event(self, run_id: str, kind: Kind, path: str) -> Event | None:
        """See `Store.find_event`."""
        return await self._read(lambda db: reading.find_event(db, run_id, kind, path))

    async def run(self, run_id: str) -> Run | None:
        """See `Store.run`."""
        return await self._read(lambda db: reading.run(db, run_id))

    async def rows(self, run_ids: Sequence[str]) -> list[Run | StoreError | None]:
        """See `Store.rows`."""
        return await self._read(lambda db: loading.runs(db, run_ids))

    async def current_run(self, workflow: str, workflow_id: str) -> Run | None:
        """See `Store.current_run`."""
        return await self._read(lambda db: reading.current_run(db, workflow, workflow_id))

    async def continued(self, run_id: str) -> Run | None:
        """See `Store.continued`."""
        return await self._read(lambda db: reading.continued(db, run_id))

    async def runs(self, where: RunFilter, limit: int, cursor: str | None = None) -> Runs:
        """See `Store.runs`."""
        return await self._read(lambda db: listing.runs(db, where, limit, cursor))

    async def count(self, where: RunFilter, limit: int, cursor: str | None = None) -> int:
        """See `Store.count`."""
        return await self._read(lambda db: listing.count(db, where, limit, cursor))

    async def open_runs(self, after: str | None, limit: int, shards: Shards = None) -> list[Run]:
        """See `Store.open_runs`."""
        return await self._read(lambda db: reading.open_runs(db, after, limit))

    async def wakes(self, after: Wake, limit: int, shards: Shards = None) -> list[Wake]:
        """See `Store.wakes`."""
        return await self._read(lambda db: reading.wakes(db, after, limit))

    async def called_runs(self, shards: Shards = None, unread_before: int | None = None) -> list[str]:
        """See `Store.called_runs`."""
        return await self._read(reading.called_runs)

    async def recorded(self, run_ids: Sequence[str]) -> list[Recorded | StoreError | None]:
        """See `Store.recorded`."""
        return await self._read(lambda db: loading.recorded(db, run_ids))

    async def messages(self, *run_ids: str) -> list[Message]:
        """See `Store.messages`."""
        return await self._read(lambda db: [one for run_id in run_ids for one in reading.messages(db, run_id)])

    async def progress(self, run_id: str) -> list[Progress]:
        """See `Store.progress`."""
        return await self._read(lambda db: reading.progress(db, run_id))

    async def outbox(self, after: int, limit: int, topic: str | None = None) -> list[Publication]:
        """See `Store.outbox`."""
        return await self._read(lambda db: reading.outbox(db, after, limit, topic))

    async def clear_outbox(self, before: int, limit: int) -> int:
        """See `Store.clear_outbox`."""
        return await self._write(lambda db: len(query(db, self._sql["clear_outbox"], (before, limit)).fetchall()))

    async def seen_message(self, workflow: str, workflow_id: str, message_id: str) -> tuple[str, Kind] | None:
        """See `Store.seen_message`."""
        return await self._read(lambda db: reading.seen_message(db, workflow, workflow_id, message_id))

    async def lock_queue(self, key: str | None = None, limit: int | None = None) -> list[Holder]:
        """See `LockBook.lock_queue`."""
        return await self._read(lambda db: lockbook.lock_queue(db, key, limit))

    async def lock_queues(
        self, key: str | None = None, limit: int = 100, after: str = "", places: int = 20
    ) -> list[LockQueue]:
        """See `LockBook.lock_queues`."""
        return await self._read(lambda db: lockbook.lock_queues(db, key, limit, after, places))

    async def tangle(self, since: int) -> Tangle:
        """See `LockBook.tangle`."""
        return await self._read(lambda db: lockbook.tangle(db, since))

    async def raise_fence(self, key: str) -> int:
        """See `LockBook.raise_fence`."""
        found = await self._write(lambda db: query(db, self._sql["raise_fence"], (key,)).fetchall())
        if not found:
            raise StoreError(f"nobody ever held the lock key {key!r}")
        return found[0][0]

    async def incidents(
        self,
        state: str | None = None,
        run_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        fingerprint: str | None = None,
        kind: str | None = None,
    ) -> tuple[list[Incident], str | None]:
        """See `Store.incidents`."""
        return await self._read(lambda db: reading.incidents(db, state, run_id, limit, cursor, fingerprint, kind))

    async def incident_groups(self, state: str | None = None, limit: int = 100) -> list[IncidentGroup]:
        """See `Store.incident_groups`."""
        return await self._read(lambda db: reading.incident_groups(db, state, limit))

    async def incident(self, incident_id: str) -> Incident | None:
        """See `Store.incident`."""
        return await self._read(lambda db: reading.incident(db, incident_id))

    async def put_incident(self, incident: Incident) -> None:
        """See `Store.put_incident`."""
        row = rows.incident_row(incident)
        await self._write(lambda db: query(db, self._sql["put_incident"], row))

    async def put_plugin(self, plugin: Plugin) -> None:
        """See `Store.put_plugin`."""
        row = rows.plugin_row(plugin)
        await self._write(lambda db: query(db, self._sql["put_plugin"], row))

    async def migrate_plugin(self, plugin: str, migrations: Mapping[str, Sequence[Migration]]) -> None:
        """See `Store.migrate_plugin`."""
        if self._batches is None:
            raise self._not_writable()
        guard = self._batches.guard
        await self._write(lambda db: plugin_tables.migrate(db, guard, plugin, migrations.get("sqlite", ())))

    async def plugin(self, code_hash: str) -> Plugin | None:
        """See `Store.plugin`."""
        return await self._read(lambda db: reading.plugin(db, code_hash))

    async def counts(self) -> dict[str, int]:
        """See `Store.counts`."""
        return await self._read(reading.counts)

    async def statistics(self, since: int, until: int, workflow: str | None = None) -> Statistics:
        """See `Store.statistics`."""
        return await self._read(lambda db: statistics.collect(db, since, until, workflow))

    async def prunable(self, where: RunFilter, limit: int, cursor: str | None = None) -> RunIds:
        """See `Store.prunable`."""
        return await self._read(lambda db: pruning.prunable(db, where, limit, cursor))

    async def count_prunable(self, where: RunFilter) -> list[PruneCount]:
        """See `Store.count_prunable`."""
        return await self._read(lambda db: pruning.count_prunable(db, where))

    async def journals(self, where: RunFilter, limit: int, cursor: str | None = None) -> Journals:
        """See `Store.journals`."""
        return await self._read(lambda db: pruning.journals(db, where, limit, cursor))

    async def remove(self, run_ids: Sequence[str]) -> int:
        """See `Store.remove`."""
        return await self._write(lambda db: pruning.remove(db, run_ids))

    async def forget_keys(self, before: int, after: tuple[str, str] = ("", "")) -> tuple[int, tuple[str, str] | None]:
        """See `Store.forget_keys`."""
        old, following = await self._read(lambda db: pruning.old_keys(db, before, after))
        forgotten = await self._write(lambda db: pruning.forget_keys(db, before, old)) if old else 0
        return forgotten, following

    async def shrink(self) -> tuple[int, int]:
        """See `Store.shrink`."""
        return await self._write(pruning.shrink)

    async def trim(self) -> None:
        """See `Store.trim`. What the readers keep is little."""
        await self._write(lambda db: query(db, self._sql["trim"]).fetchall())

    async def schema_version(self) -> int:
        """The number of the last migration of the database."""
        return await self._read(lambda db: check_version(db, self.path))

    async def check(self) -> list[str]:
        """See `Store.check`."""
        return await self._apart(lambda db, pause: upkeep.check(db, self.path, pause))

    async def backup(self, target: str) -> None:
        """See `Store.backup`.

        Raises:
            StoreError: there is a file of that name already, or it cannot be written.
        """
        await self._apart(lambda db, pause: upkeep.backup(db, target, pause))

    async def clock_off(self) -> float:
        """See `Store.clock_off`. It has this machine's clock."""
        return 0.0

    def connections(self) -> dict[str, Usage]:
        """See `Store.connections`."""
        return {}

    async def outsiders(self) -> list[str]:
        """See `Store.outsiders`. There are no locks of rows here."""
        return []

    async def probe(self) -> None:
        """See `Store.probe`."""
        await self._write(lambda db: query(db, self._sql["probe"]))

    def _connect(self) -> None:
        if self._writer is not None or self._reader is not None:
            raise StoreError(f"the database {self.path} is open already")
        if self._read_only:
            self._reader = self._look()
            return
        if self.path != MEMORY:
            self._lock = FileLock(self.path)
        try:
            connection = connect_writer(self.path)
            try:
                migrate(connection, self.path)
                self._batches = BatchWriter(connection, self.path)
                readers = None if self.path == MEMORY else self._readers()
                self._writer = (
                    ThreadWorker("jivsd-writer", [connection]) if self._threaded else InlineWorker(connection)
                )
                self._reader = readers or self._writer
            except BaseException:
                connection.close()
                raise
        except BaseException:
            if self._lock is not None:
                self._lock.release()
                self._lock = None
            raise

    def _look(self) -> Worker:
        connection = connect_reader(self.path)
        try:
            if not check_version(connection, self.path):
                raise StoreError(f"{self.path} is not a database of jivsd")
        except apsw.Error as error:
            raise translated(error, self.path) from error
        finally:
            connection.close()
        return self._readers()

    def _readers(self) -> Worker:
        if not self._threaded:
            return InlineWorker(connect_reader(self.path))
        return ThreadWorker("jivsd-reader", [connect_reader(self.path) for _ in range(READERS)])

    async def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._writer is None:
            raise self._not_writable()
        return await self._call(self._writer, work)

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._reader is None:
            raise StoreError(f"the database {self.path} is not open")
        return await self._call(self._reader, work)

    async def _call(self, worker: Worker, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return await worker.call(work)
        except apsw.Error as error:
            raise translated(error, self.path) from error

    async def _apart(self, work: Callable[[apsw.Connection, Callable[[], None]], T]) -> T:
        """Do long work with a connection and a thread of its own, given up when the caller is cancelled."""
        if self._reader is None:
            raise StoreError(f"the database {self.path} is not open")
        if self.path == MEMORY:
            return await self._read(lambda db: work(db, _go_on))

        def alone(pause: Callable[[], None]) -> T:
            connection = connect_reader(self.path)
            try:
                return work(connection, pause)
            finally:
                connection.close()

        if not self._threaded:
            return alone(_go_on)
        return await trio.to_thread.run_sync(alone, trio.from_thread.check_cancelled)

    def _not_writable(self) -> StoreError:
        return StoreError(f"the database {self.path} is {'open for reading only' if self._reader else 'not open'}")


def _go_on() -> None:
    """Nobody can cancel work on the caller's own thread."""
