"""What a torture is to do, and where."""

from __future__ import annotations

from random import SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.masking import masked
from jivsd.proof.torture.faults import ON_DAEMON
from jivsd.proof.torture.grounds import embedded
from jivsd.proof.torture.planted import PLANTS
from jivsd.store.api import StoreError
from jivsd.store.choice import is_postgres

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from jivsd.proof.torture.grounds import Ground

WORKERS: Final = 24
"""How many runs are open at once."""
LATER: Final = {"flush": "Redis"}
"""Faults of what else there is to be: what they come with."""
POSTGRES: Final = "postgresql"
"""In place of a URL: a PostgreSQL server of the torture's own."""


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
    if redis is not None:
        raise Wrong("--redis comes with several nodes: leave it out")
    if nodes != 1:
        raise Wrong(f"--nodes {nodes}: there is one daemon so far: leave it out")
    if plant is not None and plant not in PLANTS:
        raise Wrong(f"--plant {plant}: allowed are {', '.join(PLANTS)}")
    return Orders(
        seconds=seconds,
        seed=SystemRandom().randrange(1 << 32) if seed is None else seed,
        faults=_faults(faults, store),
        store=store,
        plant=plant,
    )


def place(what: Orders, folder: Path, state: Path) -> AbstractAsyncContextManager[Ground]:
    """Where it is done: the store of a daemon that has its data in `state`; it may put something into `folder`."""
    if what.store is None:
        return embedded(state)
    from jivsd.proof.torture.servers import postgres  # its driver takes a while to import

    return postgres(what.store, what.seed, what.faults, folder)


def _faults(text: str | None, store: str | None) -> tuple[str, ...]:
    possible = _possible(store)
    if text is None:
        return tuple(possible)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name in LATER:
            raise Wrong(f"--faults {name} comes with {LATER[name]}; there are {', '.join(possible)}")
        if name not in possible:
            raise Wrong(f"--faults {name}: {_why_not(name, store, possible)}")
    return tuple(kind for kind in possible if kind in names)


def _possible(store: str | None) -> list[str]:
    """The faults that can be done to a daemon with this store, and to the store."""
    if store is None:
        return [*ON_DAEMON]
    from jivsd.proof.pgserver import can_have_room
    from jivsd.proof.torture.serverfaults import ON_ANY, ON_OWN
    from jivsd.proof.torture.servers import THROUGH_PROXY, route_of

    if store == POSTGRES:
        return [*ON_DAEMON, *(kind for kind in ON_OWN if kind != "disk-full" or can_have_room())]
    try:
        route_of(store)
    except StoreError as error:
        raise Wrong(f"--store: {error}") from None
    except ValueError:
        return [*ON_DAEMON, *(kind for kind in ON_ANY if kind not in THROUGH_PROXY)]
    return [*ON_DAEMON, *ON_ANY]


def _why_not(name: str, store: str | None, possible: list[str]) -> str:
    from jivsd.proof.torture.serverfaults import ON_OWN

    if name not in ON_OWN:
        return f"allowed are {', '.join(possible)}, or an empty text for none"
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
