"""A torture on PostgreSQL: on a server of its own, or in a schema of its own on somebody's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import trio

from jivsd.bridge import Bridge
from jivsd.proof.daemons import DaemonFailed
from jivsd.proof.pgserver import VERSIONS, Server
from jivsd.proof.private import ServerFailed
from jivsd.proof.proxy import Proxy
from jivsd.proof.room import NoRoom
from jivsd.proof.torture.copied import copy
from jivsd.proof.torture.ownership import Ownership
from jivsd.proof.torture.serverfaults import ServerFaults
from jivsd.store.api import StoreAway, StoreError
from jivsd.store.postgres import PostgresStore
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop, translated
from jivsd.store.postgres.pools import READERS, WRITERS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping
    from pathlib import Path
    from random import Random

    from jivsd.proof.proxy import Where
    from jivsd.proof.torture.grounds import Ground
    from jivsd.proof.torture.recovery import Recovery

OWN: Final = "postgresql"
"""In place of a URL: a server of the torture's own."""
DATABASE: Final = "torture"
THROUGH_PROXY: Final = frozenset({"cut", "lose", "node-cut"})
"""The faults for which a daemon reaches the server through our proxy."""
ANSWERS_WITHIN: Final = 30.0
COPIED_WITHIN: Final = 300.0
TIDY_WITHIN: Final = 15.0
"""Seconds in which a daemon must have only those sessions that it needs, after all that was done to it."""
LOOK_AGAIN: Final = 0.2
_SIZES: Final = {"journal": 1, "writer": WRITERS, "reader": READERS}
"""How many sessions a daemon has at most, by purpose."""

_SESSIONS: Final = """
SELECT application_name AS name, pid, coalesce(state, '') AS state,
       (SELECT count(*) FROM pg_locks WHERE pg_locks.pid = session.pid AND granted AND locktype <> 'advisory') AS locks
FROM pg_stat_activity AS session WHERE application_name LIKE 'jivsd % of ' || $1::text || '%'
"""


class Route(NamedTuple):
    """How a URL is reached through a proxy: where the server is, and the rest of the URL."""

    server: Where
    user: str
    path: str
    query: dict[str, str]

    def url(self, port: int) -> str:
        """The URL by way of a port of the loopback address. Not encrypted, so that the proxy can follow it."""
        query = urlencode({**self.query, "sslmode": "disable"})
        return urlunsplit(("postgresql", f"{self.user}127.0.0.1:{port}", self.path, query, ""))


def route_of(url: str) -> Route:
    """How a URL can be reached through a proxy.

    Raises:
        StoreError: it is no URL of a PostgreSQL database.
        ValueError: it cannot; the message says why.
    """
    address_of(url)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if query.get("sslmode", "prefer") not in ("disable", "allow", "prefer"):
        raise ValueError(f"sslmode={query['sslmode']} lets no proxy in between")
    user, at, place = parts.netloc.rpartition("@")
    if "," in place or "," in query.get("host", ""):
        raise ValueError("it names several hosts")
    host = query.pop("host", None) or unquote(parts.hostname or "localhost")
    port = int(query.pop("port", None) or parts.port or 5432)
    rest = {name: value for name, value in query.items() if not name.startswith("ssl")}
    where = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    return Route(where, user + at, parts.path, rest)


@asynccontextmanager
async def postgres(
    store: str, seed: int, kinds: Collection[str], folder: Path, nodes: int = 1
) -> AsyncGenerator[Ground]:
    """A place on PostgreSQL, that is gone afterwards.

    Args:
        store: `OWN`, or the URL of a database in which it has a schema.
        seed: decides the version of a server of its own.
        kinds: the faults that are to be committed.
        folder: for the copy of the journal.
        nodes: how many daemons use it.

    Raises:
        DaemonFailed: there is no such place; the message says why.
    """
    async with Bridge("jivsd-torture") as bridge:
        if store == OWN:
            async with _own_server(seed, room="disk-full" in kinds) as server:
                made = _Postgres(server.url(DATABASE), bridge, folder, server, nodes)
                space = "" if server.room is None else f" TABLESPACE {DATABASE}"
                first = _Postgres(server.url(), bridge, folder, server)
                if server.room is not None:
                    await first.ask(f"CREATE TABLESPACE {DATABASE} LOCATION '{server.room.folder}'")
                await first.ask(f"CREATE DATABASE {DATABASE}{space}")
                async with made.schemas_of_its_own(), made.proxied(kinds):
                    yield made
        else:
            made = _Postgres(_with_schema(store), bridge, folder, None, nodes)
            async with made.schemas_of_its_own(), made.proxied(kinds):
                yield made


def _with_schema(url: str) -> str:
    if "schema" in dict(parse_qsl(urlsplit(url).query)):
        return url
    return f"{url}{'&' if '?' in url else '?'}schema=jivsd_torture_{uuid4().hex[:12]}"


@asynccontextmanager
async def _own_server(seed: int, *, room: bool) -> AsyncGenerator[Server]:
    version = sorted(VERSIONS)[seed % len(VERSIONS)]
    server: Server | None = None
    try:
        server = await trio.to_thread.run_sync(partial(Server, version, room=room))
        await trio.to_thread.run_sync(server.start)
        yield server
    except (ServerFailed, NoRoom) as error:
        raise DaemonFailed(str(error)) from None
    finally:
        if server is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.remove)


class _Postgres:
    """A schema in a database, and one beside it for what steps write."""

    def __init__(self, url: str, bridge: Bridge, folder: Path, server: Server | None, nodes: int = 1) -> None:
        self.name = "PostgreSQL" if server is None else f"PostgreSQL {server.version}"
        self._address = address_of(url)
        self._tables = f"{self._address.schema}_steps"
        """The schema for what steps write."""
        self._url = f"{url}{'&' if '?' in url else '?'}search_path={self._tables}"
        self._bridge = bridge
        self._copy = folder / "journal.sqlite"
        self._node = f"torture-{uuid4().hex[:8]}"
        self._faults = ServerFaults(self.ask, self._node, server)
        names = [self._node] if nodes == 1 else [f"{self._node}-{number}" for number in range(1, nodes + 1)]
        self.environments: dict[str, dict[str, str]] = {
            name: {"JIVSD_STORE": self._url, "JIVSD_NODE": name} for name in names
        }
        """By node."""
        self.ownership: Ownership | None = Ownership(self.ask, self._address.schema, self._tables)

    @property
    def faults(self) -> Collection[str]:
        return self._faults.kinds

    @property
    def proxies(self) -> Mapping[str, Proxy]:
        """The ways of the nodes to the server, if they go through a proxy."""
        return self._faults.proxies

    async def ask(self, sql: str, *arguments: Any) -> list[Any]:
        """What PostgreSQL answers, asked directly.

        Raises:
            StoreError: it does not.
        """
        try:
            return await self._bridge.call(lambda: self._ask(sql, arguments), timeout=ANSWERS_WITHIN)
        except Exception as error:
            raise translated(error, self._address) from error

    async def _ask(self, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
        connection = await connect(self._address, "torture")
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            drop(connection)

    @asynccontextmanager
    async def schemas_of_its_own(self) -> AsyncGenerator[None]:
        """Take a schema that is not there, or empty, and one beside it for what steps write; drop both at the end."""
        schema, shown = self._address.schema, self._address.shown
        try:
            found = await self.ask(
                "SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname IN ($1, $2)",
                *(schema, self._tables),
            )
            if found:
                raise DaemonFailed(f"the schema {schema} of {shown} has something in it: name a new one, or none")
            await self.ask(f"CREATE SCHEMA IF NOT EXISTS {self._tables}")
        except StoreError as error:
            raise DaemonFailed(str(error)) from None
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self.ask(f"DROP SCHEMA IF EXISTS {schema}, {self._tables} CASCADE")

    @asynccontextmanager
    async def proxied(self, kinds: Collection[str]) -> AsyncGenerator[None]:
        """Have each daemon go through a proxy, if a fault needs that."""
        if not THROUGH_PROXY & set(kinds):
            yield
            return
        route = route_of(self._url)
        async with trio.open_nursery() as nursery:
            for node, environment in self.environments.items():
                proxy = Proxy(route.server, self._faults.tap)
                await nursery.start(proxy.serve)
                self._faults.proxies[node] = proxy
                environment["JIVSD_STORE"] = route.url(proxy.port)
            yield
            nursery.cancel_scope.cancel()

    async def commit(self, kind: str, rng: Random, recovery: Recovery) -> bool:
        try:
            return await self._faults.commit(kind, rng, recovery)
        except ServerFailed as error:
            raise DaemonFailed(str(error)) from None

    async def journal(self) -> Path:
        with trio.move_on_after(COPIED_WITHIN):
            while not await self._is_copied():  # noqa: ASYNC110 -- the server may just be coming up
                await trio.sleep(LOOK_AGAIN)
        return self._copy

    async def _is_copied(self) -> bool:
        try:
            await self._bridge.call(self._copied, timeout=COPIED_WITHIN)
        except Exception as error:
            if isinstance(said := translated(error, self._address), StoreAway):
                return False
            raise said from error
        return True

    async def _copied(self) -> None:
        connection = await connect(self._address, "torture")
        try:
            await copy(connection, [self._address.schema, self._tables], self._copy)
        finally:
            drop(connection)

    async def check(self) -> list[str]:
        async with PostgresStore(self._url, read_only=True) as store:
            await store.open("torture")
            return await store.check()

    async def left_open(self, *, serving: bool) -> list[str]:
        wrong: list[str] = []
        with trio.move_on_after(TIDY_WITHIN):
            while wrong := await self._untidy(serving=serving):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
        return wrong

    async def _untidy(self, *, serving: bool) -> list[str]:
        sessions = await self.ask(_SESSIONS, self._node)
        if not serving:
            return [f"session {name!r} is still there, {state}" for name, _, state, _ in sessions]
        wrong: list[str] = []
        for name, pid, state, locks in sessions:
            if state.startswith("idle in transaction") or (state == "idle" and locks):
                wrong.append(f"session {name!r} ({pid}) is {state} and holds {locks} locks")
        for purpose, most in _SIZES.items():
            count = sum(name.startswith(f"jivsd {purpose} ") for name, *_ in sessions)
            if count > most * len(self.environments) or (purpose == "journal" and not count):
                wrong.append(f"there are {count} sessions {purpose!r}; a daemon has {most}")
        return wrong
