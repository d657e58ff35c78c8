"""Looking at a PostgreSQL database without taking anything of it: what speaks against it, before a daemon starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from jivsd.bridge import Bridge
from jivsd.store.api import StoreError
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop, translated
from jivsd.store.postgres.pools import CONNECTIONS
from jivsd.store.postgres.schema import check_version
from jivsd.store.postgres.server import check, check_rights, check_room, clock_off, doubts

if TYPE_CHECKING:
    from jivsd.store.postgres.address import Address

PATIENCE = 20.0
"""Seconds for all of it."""


class Examined(NamedTuple):
    """What was found. `version` of the schema: 0, if there is no journal yet. `clock_off`: as `Store.clock_off`."""

    version: int
    clock_off: float
    doubts: list[str]


async def examine(url: str) -> Examined:
    """Look at the database of a URL.

    Raises:
        StoreError: it will not do, or cannot be reached; the message says why, and what would help.
    """
    address = address_of(url)
    try:
        async with Bridge("jivsd-doctor") as bridge:
            return await bridge.call(lambda: _examine(address), timeout=PATIENCE)
    except StoreError:
        raise
    except Exception as error:
        raise translated(error, address) from error


async def _examine(address: Address) -> Examined:
    connection = await connect(address, "doctor")
    try:
        await check(connection, address)
        await check_room(connection, address, CONNECTIONS)
        version = await check_version(connection, address)
        if version:
            await check_rights(connection, address)
        return Examined(version, await clock_off(connection, time.time), await doubts(connection))
    finally:
        drop(connection)
