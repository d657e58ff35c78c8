"""The front of the PostgreSQL store: which connection a question gets, for how long, and what errors mean."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

import trio

from jivsd.bridge import Bridge
from jivsd.store.api import OutcomeUnknown, StoreAway, StoreError
from jivsd.store.postgres import batch as batches
from jivsd.store.postgres import listing, lockbook, outsiders, plugin_tables, pruning, reading, rows, statistics
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.claiming import Claim
from jivsd.store.postgres.connections import sql_of, starts_just_now, translated, translated_commit
from jivsd.store.postgres.exclusion import Opening
from jivsd.store.postgres.feed import PostgresFeed
from jivsd.store.postgres.forwarded import PostgresRequests
from jivsd.store.postgres.pools import CONNECTIONS, Pools
from jivsd.store.postgres.recording import Recorder, has_steps
from jivsd.store.postgres.requests import PostgresSqlRequests
from jivsd.store.postgres.schema import check_version
from jivsd.store.postgres.server import clock_off
from jivsd.store.postgres.sharing import PostgresSharing
from jivsd.store.postgres.transactions import PostgresTransactions
from jivsd.store.postgres.upkeep import Checker
from jivsd.store.upkeep import REPORTED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from jivsd.bridge import Pool, Usage
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
    from jivsd.store.postgres.connections import Connection, Sql
    from jivsd.store.removal import Journals, PruneCount, RunIds
    from jivsd.store.statistics import Statistics
    from jivsd.store.tickets import Holder

T = TypeVar("T")

OPEN_TIMEOUT: Final = 60.0
STARTING: Final = 30.0
"""Seconds for which a server is waited for that says that it is just starting."""
LOOK_AGAIN: Final = 0.2
COMMIT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
FAREWELL: Final = 0.5
"""Seconds that a store that is closed waits until the database has heard that its node has gone."""
CHECK_TIMEOUT: Final = 600.0
"""Seconds that the database may take for one thing before its connection is given up."""
FOLD_EVERY: Final = 1_000
"""Batches between two times when what they have counted is added up."""


class PostgresStore:
    """The journal in a PostgreSQL database. Keeps the contract `store.api.Store`.

    One connection writes batches, one is for leases and claims, some read, some write what belongs to no run; they live
    in a thread of the store's own. An `async with` closes the store; `open` comes first.
    """

    def __init__(
        self, url: str, *, threaded: bool = True, read_only: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        """Name the database: `postgresql://user@host/database`; see `jivsd.store.postgres.address`.

        Args:
            url: where it is.
            threaded: whether the caller's thread goes on while the database works; if not, it stands still: for tests
                in which time jumps.
            read_only: only look; works beside a daemon that has the database, and never changes or makes it.
            now: this node's clock, in seconds since the epoch.

        Raises:
            StoreError: it is the URL of something else.
        """
        self.address = address_of(url)
        self._sql: Sql = sql_of(self.address.schema)
        self._read_only = read_only
        self._now = now
        self._opening = Opening("", "", share=False, version="")
        self._sharing: PostgresSharing | None = None
        self._opened = False
        self._batches = 0
        self._unsure: dict[int, int] = {}
        """Shards of which nobody knows whether their epoch was raised, and the epoch before."""
        self._bridge = Bridge("jivsd-postgres", blocking=not threaded)
        self.feed = PostgresFeed(self._sql, self._read, self._write)
        self.sql_requests = PostgresSqlRequests(self._sql, self._read, self._write)
        self._make_pools()

    @property
    def transactions(self) -> PostgresTransactions:
        """See `Store.transactions`."""
        return self._transactions

    @property
    def sharing(self) -> PostgresSharing | None:
        """See `Store.sharing`."""
        return self._sharing

    @property
    def requests(self) -> PostgresRequests:
        """See `Store.requests`."""
        return PostgresRequests(self._sql, self._write)

    async def __aenter__(self) -> PostgresStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, node: str, *, share: bool = False) -> int:
        """Check the server, bring the schema up to date, claim all shards for `node`; return the epoch.

        Opened read-only, or to share it, it claims nothing and returns 0.

        Raises:
            NameTaken: a node of this name shares it.
            StoreError: another daemon has it, its schema is newer than this program, the server will not do.
            StoreAway: it cannot be reached.
        """
        if self._opened:
            raise StoreError(f"the database {self.address.shown} is open already")
        self._opened = True
        self._opening = Opening(node, str(uuid4()), share, version("jivsd"))
        self._make_pools()
        self._claim = Claim(self.address, self._opening, self._pools.lend_another, self._now)
        if not self._read_only:
            ask = partial(self._use, self._pools.lease)
            self._sharing = PostgresSharing(self._opening, self._sql, ask, self._claim)
        self._bridge.start()
        try:
            epoch = await self._first()
            if not self._read_only:
                await self._use(self._pools.journal, _nothing, OPEN_TIMEOUT)  # so that the first batch finds it
            self._pools.claimed = True
            return epoch
        except BaseException:
            await self.close()
            raise

    async def _first(self) -> int:
        """Do what opening means; a server that is just starting is waited for."""
        pool, work = (self._pools.reader, self._look) if self._read_only else (self._pools.lease, self._prepare)
        deadline = trio.current_time() + STARTING
        while True:
            try:
                return await self._use(pool, work, OPEN_TIMEOUT)
            except StoreAway as error:
                if not starts_just_now(error) or trio.current_time() > deadline:
                    raise
            await trio.sleep(LOOK_AGAIN)

    async def close(self) -> None:
        """Let what has begun end, close the connections, let the next daemon in. Takes a few seconds at most."""
        if not self._opened:
            return
        if self._pools.claimed and self._sharing is not None:
            with suppress(StoreError), trio.move_on_after(FAREWELL, shield=True):
                await self._sharing.leave()
        self._opened = self._pools.claimed = False
        self._sharing = None
        await self._bridge.close()

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        """See `Store.commit`."""
        self._check_writable()
        if has_steps(batch):
            recorder = Recorder(
                batch, bridge=self._bridge, sql=self._sql, write=self._write_batch, stored=self._stored_event
            )
            return await recorder.commit()
        return await self._write_batch(batch, more)

    async def _write_batch(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        stage = batches.Stage()
        try:
            return await self._pools.journal.use(
                lambda connection: self._commit(connection, batch, stage, more), timeout=COMMIT_TIMEOUT
            )
        except StoreError:
            raise
        except Exception as error:
            raise (translated_commit if stage.decisive else translated)(error, self.address) from error

    async def _stored_event(self, run_id: str, seq: int) -> Event | None:
        return next(iter(await self.events(run_id, seq - 1, 1)), None)

    async def raise_epoch(self, node: str, shards: Mapping[int, int]) -> dict[int, int]:
        """See `Store.raise_epoch`. A session that holds a shard under an old epoch for long is ended."""
        before = dict(self._unsure)
        self._unsure.update(shards)
        try:
            raised = await self._write(lambda db: self._claim.raise_epochs(db, node, shards, before))
        except StoreAway as error:
            raise OutcomeUnknown(str(error)) from error
        for shard in shards:
            self._unsure.pop(shard, None)
        return raised

    async def events(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """See `Store.events`."""
        return await self._read(lambda db: reading.events(db, self._sql, run_id, after, limit))

    async def find_event(self, run_id: str, kind: Kind, path: str) -> Event | None:
        """See `Store.find_event`."""
        return await self._read(lambda db: reading.find_event(db, self._sql, run_id, kind, path))

    async def run(self, run_id: str) -> Run | None:
        """See `Store.run`."""
        return await self._read(lambda db: reading.run(db, self._sql, run_id))

    async def current_run(self, workflow: str, workflow_id: str) -> Run | None:
        """See `Store.current_run`."""
        return await self._read(lambda db: reading.current_run(db, self._sql, workflow, workflow_id))

    async def continued(self, run_id: str) -> Run | None:
        """See `Store.continued`."""
        return await self._read(lambda db: reading.continued(db, self._sql, run_id))

    async def runs(self, where: RunFilter, limit: int, cursor: str | None = None) -> Runs:
        """See `Store.runs`."""
        return await self._read(lambda db: listing.runs(db, self._sql, where, limit, cursor))

    async def count(self, where: RunFilter, limit: int, cursor: str | None = None) -> int:
        """See `Store.count`."""
        return await self._read(lambda db: listing.count(db, self._sql, where, limit, cursor))

    async def open_runs(self, after: str | None, limit: int, shards: Shards = None) -> list[Run]:
        """See `Store.open_runs`."""
        return await self._read(lambda db: reading.open_runs(db, self._sql, after, limit, shards))

    async def wakes(self, after: Wake, limit: int, shards: Shards = None) -> list[Wake]:
        """See `Store.wakes`."""
        return await self._read(lambda db: reading.wakes(db, self._sql, after, limit, shards))

    async def called_runs(self, shards: Shards = None, unread_before: int | None = None) -> list[str]:
        """See `Store.called_runs`."""
        return await self._read(lambda db: reading.called_runs(db, self._sql, shards, unread_before))

    async def rows(self, run_ids: Sequence[str]) -> list[Run | StoreError | None]:
        """See `Store.rows`."""
        return await self._read(lambda db: reading.runs(db, self._sql, run_ids))

    async def recorded(self, run_ids: Sequence[str]) -> list[Recorded | StoreError | None]:
        """See `Store.recorded`."""
        return await self._read(lambda db: reading.recorded(db, self._sql, run_ids))

    async def messages(self, *run_ids: str) -> list[Message]:
        """See `Store.messages`."""
        return await self._read(lambda db: reading.messages(db, self._sql, run_ids))

    async def progress(self, run_id: str) -> list[Progress]:
        """See `Store.progress`."""
        return await self._read(lambda db: reading.progress(db, self._sql, run_id))

    async def outbox(self, after: int, limit: int, topic: str | None = None) -> list[Publication]:
        """See `Store.outbox`."""
        return await self._read(lambda db: reading.outbox(db, self._sql, after, limit, topic))

    async def clear_outbox(self, before: int, limit: int) -> int:
        """See `Store.clear_outbox`."""
        return len(await self._write(lambda db: db.fetch(self._sql["clear_outbox"], before, limit)))

    async def seen_message(self, workflow: str, workflow_id: str, message_id: str) -> tuple[str, Kind] | None:
        """See `Store.seen_message`."""
        return await self._read(lambda db: reading.seen_message(db, self._sql, workflow, workflow_id, message_id))

    async def lock_queue(self, key: str | None = None, limit: int | None = None) -> list[Holder]:
        """See `LockBook.lock_queue`."""
        return await self._read(lambda db: lockbook.lock_queue(db, self._sql, key, limit))

    async def lock_queues(
        self, key: str | None = None, limit: int = 100, after: str = "", places: int = 20
    ) -> list[LockQueue]:
        """See `LockBook.lock_queues`."""
        return await self._read(lambda db: lockbook.lock_queues(db, self._sql, key, limit, after, places))

    async def tangle(self, since: int) -> Tangle:
        """See `LockBook.tangle`."""
        return await self._read(lambda db: lockbook.tangle(db, self._sql, since))

    async def raise_fence(self, key: str) -> int:
        """See `LockBook.raise_fence`."""
        found = await self._write(lambda db: db.fetch(self._sql["raise_fence"], key))
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
        which = state, run_id, limit, cursor, fingerprint, kind
        return await self._read(lambda db: reading.incidents(db, self._sql, *which))

    async def incident_groups(self, state: str | None = None, limit: int = 100) -> list[IncidentGroup]:
        """See `Store.incident_groups`."""
        return await self._read(lambda db: reading.incident_groups(db, self._sql, state, limit))

    async def incident(self, incident_id: str) -> Incident | None:
        """See `Store.incident`."""
        return await self._read(lambda db: reading.incident(db, self._sql, incident_id))

    async def put_incident(self, incident: Incident) -> None:
        """See `Store.put_incident`."""
        row = rows.incident_row(incident)
        await self._write(lambda db: db.execute(self._sql["put_incident"], *row))

    async def put_plugin(self, plugin: Plugin) -> None:
        """See `Store.put_plugin`."""
        row = rows.plugin_row(plugin)
        await self._write(lambda db: db.execute(self._sql["put_plugin"], *row))

    async def migrate_plugin(self, plugin: str, migrations: Mapping[str, Sequence[Migration]]) -> None:
        """See `Store.migrate_plugin`."""
        own = migrations.get("postgres", ())
        await self._write(lambda db: plugin_tables.migrate(db, self._sql, plugin, own), OPEN_TIMEOUT)

    async def plugin(self, code_hash: str) -> Plugin | None:
        """See `Store.plugin`."""
        return await self._read(lambda db: reading.plugin(db, self._sql, code_hash))

    async def counts(self) -> dict[str, int]:
        """See `Store.counts`."""
        return await self._read(lambda db: reading.counts(db, self._sql))

    async def statistics(self, since: int, until: int, workflow: str | None = None) -> Statistics:
        """See `Store.statistics`."""
        return await self._read(lambda db: statistics.collect(db, self._sql, since, until, workflow))

    async def prunable(self, where: RunFilter, limit: int, cursor: str | None = None) -> RunIds:
        """See `Store.prunable`."""
        return await self._read(lambda db: pruning.prunable(db, self._sql, where, limit, cursor))

    async def count_prunable(self, where: RunFilter) -> list[PruneCount]:
        """See `Store.count_prunable`."""
        return await self._read(lambda db: pruning.count_prunable(db, self._sql, where))

    async def journals(self, where: RunFilter, limit: int, cursor: str | None = None) -> Journals:
        """See `Store.journals`."""
        return await self._read(lambda db: pruning.journals(db, self._sql, where, limit, cursor))

    async def remove(self, run_ids: Sequence[str]) -> int:
        """See `Store.remove`."""
        return await self._write(lambda db: pruning.remove(db, self._sql, run_ids), READ_TIMEOUT)

    async def forget_keys(self, before: int, after: tuple[str, str] = ("", "")) -> tuple[int, tuple[str, str] | None]:
        """See `Store.forget_keys`."""
        return await self._write(lambda db: pruning.forget_keys(db, self._sql, before, after))

    async def shrink(self) -> tuple[int, int]:
        """See `Store.shrink`. PostgreSQL looks after that itself (autovacuum)."""
        return 0, 0

    async def trim(self) -> None:
        """See `Store.trim`. What there is to give back is the server's."""

    async def schema_version(self) -> int:
        """The number of the last migration of the database."""
        return await self._read(lambda db: check_version(db, self.address))

    async def check(self) -> list[str]:
        """See `Store.check`."""
        checker = Checker(self._sql)
        while checker.pieces and len(checker.findings) < REPORTED:
            if not await self._use(self._pools.reader, checker.pieces[0], CHECK_TIMEOUT):
                checker.pieces.pop(0)
        return checker.findings

    async def backup(self, target: str) -> None:
        """PostgreSQL has programs of its own for that.

        Raises:
            StoreError: always; the message names them.
        """
        schema = self.address.schema
        raise StoreError(f"a journal in PostgreSQL is saved with PostgreSQL's own programs: pg_dump --schema={schema}")

    async def clock_off(self) -> float:
        """See `Store.clock_off`."""
        return await self._read(lambda db: clock_off(db, self._now))

    def connections(self) -> dict[str, Usage]:
        """See `Store.connections`."""
        return self._pools.usage()

    async def outsiders(self) -> list[str]:
        """See `Store.outsiders`."""
        return await self._read(lambda db: outsiders.sessions(db, self._sql))

    async def probe(self) -> None:
        """See `Store.probe`."""
        await self._write(lambda db: db.execute(self._sql["probe"]))

    # ---- in the bridge's loop

    async def _commit(
        self, connection: Connection, batch: Sequence[Entry | Post], stage: batches.Stage, more: More | None
    ) -> list[Verdict]:
        while True:
            verdicts = await batches.commit(connection, self._sql, self.address, batch, stage)
            self._batches += 1
            if self._batches % FOLD_EVERY == 0:
                await connection.execute(self._sql["fold_counts"])
            if more is None or not (batch := more(verdicts)):
                return verdicts

    async def _prepare(self, connection: Connection) -> int:
        return await self._claim.make(connection, CONNECTIONS)

    async def _look(self, connection: Connection) -> int:
        if not await check_version(connection, self.address):
            raise StoreError(f"the database {self.address.shown} has no journal in the schema {self.address.schema}")
        return 0

    # ---- in trio

    def _make_pools(self) -> None:
        self._pools = Pools(self._bridge, self.address, self._opening)
        self._transactions = PostgresTransactions(self._bridge, self._pools.step, self.address, self._sql)

    async def _read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._use(self._pools.reader, work, READ_TIMEOUT)

    async def _write(self, work: Callable[[Connection], Awaitable[T]], timeout: float = COMMIT_TIMEOUT) -> T:
        self._check_writable()
        return await self._use(self._pools.writer, work, timeout)

    async def _use(self, pool: Pool[Connection], work: Callable[[Connection], Awaitable[T]], timeout: float) -> T:
        if not self._opened:
            raise StoreError(f"the database {self.address.shown} is not open")
        try:
            return await pool.use(work, timeout=timeout)
        except StoreError:
            raise
        except Exception as error:
            raise translated(error, self.address) from error

    def _check_writable(self) -> None:
        if not self._opened or self._read_only:
            how = "open for reading only" if self._opened else "not open"
            raise StoreError(f"the database {self.address.shown} is {how}")


async def _nothing(_: Connection) -> None:
    """What a connection is made for that is needed later."""
