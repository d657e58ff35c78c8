"""Bugs built in on purpose: a torturer that does not find them proves nothing.

They are in a store that the torturer gives to daemons of its own (`python -m jivsd.proof.torture.planted PLANT ...`);
the daemon that people run knows nothing of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from jivsd import config, daemon
from jivsd.config import sqlite_path
from jivsd.proof.daemons import Daemon
from jivsd.records import Kind
from jivsd.store.api import Entry, Refused, Written
from jivsd.store.choice import is_postgres
from jivsd.store.postgres import PostgresStore, claiming
from jivsd.store.sqlite import store as sqlite_store
from jivsd.store.sqlite.database import query
from jivsd.store.sqlite.store import SqliteStore
from jivsd.store.statements import statements
from jivsd.store.txstep import TxStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType
    from typing import Self

    from jivsd.store.api import More, Post, Store, Verdict

EVERY: Final = 8
"""Of how many steps' outcomes one is written wrongly."""


class _SqliteStore(SqliteStore):
    async def present_epochs(self) -> dict[int, int]:
        return await self._read(lambda db: dict(query(db, statements("sqlite")["epochs"]).fetchall()))


class _PostgresStore(PostgresStore):
    async def present_epochs(self) -> dict[int, int]:
        asked = f"SELECT id, epoch FROM {self.address.schema}.shard"
        return dict(await self._read(lambda db: db.fetch(asked)))


class _Planted:
    """A store with a bug: another store does its work."""

    def __init__(self, store: _SqliteStore | _PostgresStore) -> None:
        self._store = store
        self._outcomes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


class StepTwice(_Planted):
    """Writes a step's outcome twice, as a store would that forgets what it has written when it is asked again."""

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        doubled = [entry for entry in batch if isinstance(entry, Entry) and self._chosen(entry)]
        for entry in doubled:
            if isinstance(entry.tx, TxStep):
                entry.tx = _twice(entry.tx)
        verdicts = await self._store.commit(batch)
        again = [_again(entry) for entry in doubled if entry.tx is None]
        if again:
            await self._store.commit(again)
        return verdicts

    def _chosen(self, entry: Entry) -> bool:
        if not _settles(entry):
            return False
        self._outcomes += 1
        return self._outcomes % EVERY == 0


def _settles(entry: Entry) -> bool:
    """Whether an entry records that a step is done."""
    return entry.tx is not None or any(event.kind == Kind.STEP_DONE for event in entry.events)


def _twice(step: TxStep) -> TxStep:
    def body(tx: Any) -> Any:
        step.body(tx)
        return step.body(tx)

    return TxStep(step.seq, body, step.failed)


def _again(entry: Entry) -> Entry:
    events = [msgspec.structs.replace(event, seq=event.seq + len(entry.events)) for event in entry.events]
    return Entry(entry.run_id, entry.shard, entry.epoch, events=events)


class LoseAck(_Planted):
    """Acknowledges what it has not written: of the starts and the steps' outcomes one in many."""

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        lost = {place for place, entry in enumerate(batch) if isinstance(entry, Entry) and self._chosen(entry)}
        kept = iter(await self._store.commit([entry for place, entry in enumerate(batch) if place not in lost]))
        return [Written() if place in lost else next(kept) for place in range(len(batch))]

    def _chosen(self, entry: Entry) -> bool:
        if entry.tx is not None or not (_settles(entry) or entry.new is not None):
            return False
        self._outcomes += 1
        return self._outcomes % EVERY == 0


class StaleWriter(_Planted):
    """Writes under whatever epoch is the present one, behind whatever is there: nothing keeps two writers apart."""

    async def commit(self, batch: Sequence[Entry | Post], more: More | None = None) -> list[Verdict]:
        epochs = await self._store.present_epochs()
        for entry in batch:
            if isinstance(entry, Entry):
                entry.epoch = epochs[entry.shard]
        verdicts = await self._store.commit(batch)
        return [await self._insist(entry, verdict) for entry, verdict in zip(batch, verdicts, strict=True)]

    async def _insist(self, entry: Entry | Post, verdict: Verdict) -> Verdict:
        """Where another writer was first, write what is to be written behind that."""
        if not isinstance(entry, Entry) or entry.new is not None or entry.tx is not None or not entry.events:
            return verdict
        if not isinstance(verdict, Refused) or verdict.why != "exists":
            return verdict
        last = (await self._store.events(entry.run_id))[-1].seq
        events = [msgspec.structs.replace(event, seq=last + place) for place, event in enumerate(entry.events, 1)]
        (found,) = await self._store.commit([Entry(entry.run_id, entry.shard, entry.epoch, events=events)])
        return found


class _NoLock:
    """In place of the lock that keeps a second daemon out."""

    def __init__(self, path: str) -> None:
        pass

    def release(self) -> None:
        pass


async def _keep_nobody_out(*_: object) -> None:
    """In place of what keeps a second daemon from a PostgreSQL database."""


STALE_WRITER: Final = "stale-writer"
PLANTS: Final[dict[str, type[_Planted]]] = {
    "step-twice": StepTwice,
    "lose-ack": LoseAck,
    STALE_WRITER: StaleWriter,
}


class PlantedDaemon(Daemon):
    """A daemon with a bug."""

    def __init__(self, data_dir: Path, log: Path, plugins: Path, plant: str, environment: Mapping[str, str]) -> None:
        super().__init__(data_dir, log, environment=environment)
        self._command = [sys.executable, "-m", __name__, plant, str(data_dir), str(plugins)]


def _replace(module: ModuleType, name: str, by: object) -> None:
    assert name in vars(module)
    vars(module)[name] = by


def main(arguments: Sequence[str]) -> int:
    """Run a daemon with a bug: PLANT DATA_DIR PLUGINS."""
    plant, data_dir, plugins = arguments
    kind = PLANTS[plant]
    if kind is StaleWriter:
        _replace(sqlite_store, "FileLock", _NoLock)
        _replace(claiming, "keep_others_out", _keep_nobody_out)

    def open_store(url: str) -> Store:
        return cast("Store", kind(_PostgresStore(url) if is_postgres(url) else _SqliteStore(sqlite_path(url))))

    settings = config.load(None, {"data_dir": Path(data_dir), "plugins": [Path(plugins)]})
    return daemon.run(settings, open_store)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
