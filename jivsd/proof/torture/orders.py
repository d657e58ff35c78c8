"""What a torture is to do, and where."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.masking import masked
from jivsd.proof.daemons import DaemonFailed
from jivsd.proof.torture.faults import ON_DAEMON
from jivsd.proof.torture.grounds import embedded
from jivsd.proof.torture.nodefaults import ON_NODES, ON_REDIS, Leases, Redis
from jivsd.proof.torture.planted import PLANTS
from jivsd.store.api import StoreError
from jivsd.store.choice import is_postgres
from jivsd.values import redis_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from jivsd.proof.torture.grounds import Ground

WORKERS: Final = 24
"""How many runs are open at once."""
POSTGRES: Final = "postgresql"
"""In place of a URL: a PostgreSQL server of the torture's own."""
NO_REDIS: Final = "none"
"""In place of a URL: the nodes share by PostgreSQL alone."""
REDIS_CLUSTER: Final = "cluster"
"""In place of a URL: a Redis Cluster of three servers of the torture's own."""
LEASES: Final = (Leases(1.0, 4.0), Leases(2.0, 8.0), Leases(5.0, 20.0))
"""How long the nodes' leases are: the seed decides."""


class Wrong(ValueError):
    """What was asked for cannot be done; the message says why."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. `seed` decides the programs and the moments of the faults."""

    seconds: float
    seed: int
    faults: tuple[str, ...]
    store: str | None = None
    """None: the embedded one; POSTGRES, or the URL of a database."""
    plant: str | None = None
    workers: int = WORKERS
    nodes: int = 1
    redis: str | None = None
    """Of several nodes: None is a server of the torture's own; or REDIS_CLUSTER, NO_REDIS, or a URL."""

    @property
    def leases(self) -> Leases:
        """How long the nodes' leases are."""
        return LEASES[self.seed % len(LEASES)]


def orders(
    *,
    seconds: float,
    seed: int | None = None,
    store: str | None = None,
    redis: str | None = None,
    nodes: int = 1,
    faults: str | None = None,
    plant: str | None = None,
) -> Orders:
    """Check what is asked for.

    Raises:
        Wrong: it is not possible, or not with this store.
    """
    if store is not None and not is_postgres(store):
        raise Wrong(f"--store {masked(store)}: write postgresql://…, or postgresql for a server of the torture's own")
    if nodes == 1 and redis is not None:
        raise Wrong("--redis is for several nodes: say how many, --nodes 3")
    if redis not in (None, NO_REDIS, REDIS_CLUSTER):
        try:
            redis_url(redis)
        except ValueError as error:
            raise Wrong(f"--redis {masked(redis)}: {error}; or {NO_REDIS}, or {REDIS_CLUSTER}") from None
    if nodes > 1 and store is None:
        store = POSTGRES
    if plant is not None and plant not in PLANTS:
        raise Wrong(f"--plant {plant}: allowed are {', '.join(PLANTS)}")
    return Orders(
        seconds=seconds,
        seed=SystemRandom().randrange(1 << 32) if seed is None else seed,
        faults=_faults(faults, _possible(store, nodes, redis), lambda name: _why_not(name, store, nodes, redis)),
        store=store,
        plant=plant,
        nodes=nodes,
        redis=redis,
    )


def place(what: Orders, folder: Path, state: Path) -> AbstractAsyncContextManager[Ground]:
    """Where it is done: the store of a daemon that has its data in `state`; it may put something into `folder`."""
    if what.store is None:
        return embedded(state)
    from jivsd.proof.torture.servers import postgres  # its driver takes a while to import

    return postgres(what.store, what.seed, what.faults, folder, what.nodes)


@asynccontextmanager
async def a_redis(what: Orders) -> AsyncGenerator[Redis | None]:
    """The Redis of several nodes, if they are to have one.

    Raises:
        DaemonFailed: there is none; the message says why.
    """
    if what.nodes == 1 or what.redis == NO_REDIS:
        yield None
        return
    if what.redis not in (None, REDIS_CLUSTER):
        yield Redis(what.redis)
        return
    from jivsd.proof.private import ServerFailed
    from jivsd.proof.redisserver import Cluster, Server

    servers, running = Server() if what.redis is None else Cluster(), ExitStack()
    try:
        await trio.to_thread.run_sync(running.enter_context, servers)
    except ServerFailed as error:
        raise DaemonFailed(str(error)) from None
    try:
        yield Redis(servers.url, servers.nodes if isinstance(servers, Cluster) else [servers])
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(running.close)


def shared_by(what: Orders, redis: Redis | None) -> dict[str, str]:
    """The variables by which nodes share."""
    leases = what.leases
    return {
        "JIVSD_CLUSTER__SHARE": "true",
        "JIVSD_CLUSTER__LEASE": f"{leases.redis}s",
        "JIVSD_CLUSTER__POSTGRESQL_LEASE": f"{leases.postgresql}s",
        **({} if redis is None else {"JIVSD_REDIS": redis.url}),
    }


def _faults(text: str | None, possible: list[str], why_not: Callable[[str], str]) -> tuple[str, ...]:
    if text is None:
        return tuple(possible)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in possible:
            raise Wrong(f"--faults {name}: {why_not(name)}")
    return tuple(kind for kind in possible if kind in names)


def _possible(store: str | None, nodes: int, redis: str | None) -> list[str]:
    """The faults that can be done to daemons with this store, to the store, and to their Redis."""
    own = [*ON_NODES, *(ON_REDIS if redis in (None, REDIS_CLUSTER) else ())] if nodes > 1 else [*ON_DAEMON]
    if store is None:
        return own
    from jivsd.proof.pgserver import can_have_room
    from jivsd.proof.torture.serverfaults import ON_ANY, ON_OWN
    from jivsd.proof.torture.servers import THROUGH_PROXY, route_of

    if store == POSTGRES:
        return [*own, *(kind for kind in ON_OWN if kind != "disk-full" or can_have_room())]
    try:
        route_of(store)
    except StoreError as error:
        raise Wrong(f"--store: {error}") from None
    except ValueError:
        return [kind for kind in (*own, *ON_ANY) if kind not in THROUGH_PROXY]
    return [*own, *ON_ANY]


def _why_not(name: str, store: str | None, nodes: int, redis: str | None) -> str:
    from jivsd.proof.torture.serverfaults import ON_OWN

    if name in ON_REDIS and nodes > 1:
        return "needs a Redis of the torture's own: leave out --redis, or say --redis cluster"
    if name in (*ON_NODES, *ON_REDIS) and nodes == 1:
        return "needs several nodes: --nodes 3"
    if name not in ON_OWN and name not in ON_NODES:
        return f"allowed are {', '.join(_possible(store, nodes, redis))}, or an empty text for none"
    if store is None:
        return "needs PostgreSQL: --store postgresql starts a server for it"
    if store == POSTGRES:
        return "this system lets an ordinary user mount nothing, so no disk can be made full"
    from jivsd.proof.torture.servers import route_of

    try:
        route_of(store)
    except ValueError as error:
        return f"no proxy can be put in between: {error}"
    return f"needs a server that the torture may restart, stop and fill: --store {POSTGRES} starts one of its own"
