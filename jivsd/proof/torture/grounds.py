"""Where a torture takes place: what the daemon keeps its journal in, and what can be done to that."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping
    from pathlib import Path
    from random import Random

    from jivsd.proof.proxy import Proxy
    from jivsd.proof.torture.ownership import Ownership
    from jivsd.proof.torture.recovery import Recovery


class Ground(Protocol):
    """A store of the torture's own."""

    @property
    def name(self) -> str:
        """Which store it is, for people."""
        ...

    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """Variables by which daemons find the journal, by node."""
        ...

    @property
    def ownership(self) -> Ownership | None:
        """Who owns which shards; None: the store cannot be shared."""
        ...

    @property
    def proxies(self) -> Mapping[str, Proxy]:
        """The ways of nodes to the store, where they go through a proxy."""
        ...

    @property
    def faults(self) -> Collection[str]:
        """What can be done to the store."""
        ...

    async def commit(self, kind: str, rng: Random, recovery: Recovery) -> bool:
        """Do something to the store, and mend it again. False: it could not be done just now."""
        ...

    async def journal(self) -> Path:
        """A SQLite database with the journal as it stands."""
        ...

    async def check(self) -> list[str]:
        """What the store itself finds wrong with what is in it."""
        ...

    async def left_open(self, *, serving: bool) -> list[str]:
        """What a daemon holds of the store without need: while it is `serving`, and after it has ended."""
        ...


@asynccontextmanager
async def embedded(state: Path) -> AsyncGenerator[Ground]:
    """The embedded store of a daemon that has its data in the folder `state`."""
    yield _Embedded(state)


class _Embedded:
    name = "SQLite"
    environments: Mapping[str, Mapping[str, str]] = MappingProxyType({"": {}})
    ownership: Ownership | None = None
    proxies: Mapping[str, Proxy] = MappingProxyType({})
    faults: Collection[str] = ()

    def __init__(self, state: Path) -> None:
        self._journal = state / "jivsd.db"

    async def commit(self, kind: str, rng: Random, recovery: Recovery) -> bool:
        raise NotImplementedError(f"the embedded store knows no fault {kind}")

    async def journal(self) -> Path:
        return self._journal

    async def check(self) -> list[str]:
        async with SqliteStore(self._journal, read_only=True) as store:
            await store.open("torture")
            return await store.check()

    async def left_open(self, *, serving: bool) -> list[str]:
        return []
