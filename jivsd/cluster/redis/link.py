"""What a node has of Redis: leases and a bus, over connections that live in a thread of their own."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from redis.exceptions import RedisError

from jivsd import logs
from jivsd.bridge import Bridge
from jivsd.cluster.leases import LeasesAway, LeasesError
from jivsd.cluster.redis.address import address_of
from jivsd.cluster.redis.bus import RedisBus
from jivsd.cluster.redis.leases import Asker, Keys, RedisLeases, patience_of
from jivsd.cluster.redis.servers import servers_of
from jivsd.cluster.redis.trouble import WrongServer, is_for_good, sentence
from jivsd.cluster.redis.wire import Manner, Tally

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from jivsd.cluster.leases import Heard
    from jivsd.cluster.redis.servers import Servers

log = logs.get(__name__)

LEASE: Final = 5.0
"""Seconds that a lease is good unless the configuration says otherwise."""
OLDEST: Final = 6
"""The oldest version of Redis that will do."""
FAREWELL: Final = 1.0
"""Seconds that it may take at the end to give up what nobody knows of."""


class RedisLink:
    """Leases and a bus of one node, in what a URL names. An `async with` begins and ends it.

    Redis need not be there: then `leases` says so, what is told is lost, and both work as soon as it is.
    """

    leases: RedisLeases
    bus: RedisBus

    def __init__(self, url: str, *, database: str, node: str, token: str, heard: Heard, lease: float = LEASE) -> None:
        """Prepare.

        Args:
            url: see `address_of`.
            database: the own id of the database whose shards and nodes are meant.
            node: who we are.
            token: by which we are known as a holder: one of this opening, never used before.
            heard: is called with each message of the bus, on the trio thread.
            lease: seconds that a lease is good.

        Raises:
            LeasesError: it is not a URL of ours.
        """
        self._address = address_of(url)
        self._bridge = Bridge("jivsd-redis")
        self._tally = Tally()
        self._database = database
        self._node = node
        self._token = token
        self._heard = heard
        self._lease = lease

    async def __aenter__(self) -> Self:
        self._bridge.start()
        manner = Manner(self._address, f"jivsd-{self._node}", patience_of(self._lease) / 2, self._tally)
        # the bus has connections of its own: no message delays a lease
        self._servers, others = servers_of(self._bridge, manner), servers_of(self._bridge, manner)
        named: dict[str, Any] = {"database": self._database, "lease": self._lease, "token": self._token}
        self.leases = RedisLeases(self._bridge, self._servers, self._address, **named)
        self.bus = RedisBus(
            self._bridge, others, self._address, database=self._database, node=self._node, heard=self._heard
        )
        self.bus.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(FAREWELL), suppress(LeasesAway):
                await self.leases.settle()
            await self._bridge.close(FAREWELL)

    @property
    def shown(self) -> str:
        """The URL, without passwords."""
        return self._address.shown

    @property
    def commands(self) -> dict[str, int]:
        """How many commands Redis has had, by their status: "ok", or "failed" if it refused or did not answer."""
        return {"ok": self._tally.ok, "failed": self._tally.failed}

    async def check(self) -> None:
        """See whether Redis will do, and warn of what an administrator should know.

        Raises:
            LeasesError: it never will, as it is configured.
            LeasesAway: it is not there now, or does not answer.
        """
        try:
            found = await self._bridge.call(partial(self._look, self._servers), timeout=patience_of(self._lease))
        except (RedisError, TimeoutError) as error:
            kind = LeasesError if is_for_good(error) else LeasesAway
            raise kind(sentence(error, self._address)) from None
        for doubt in found:
            log.warning(doubt, redis=self.shown)

    async def _look(self, servers: Servers) -> list[str]:
        """In the loop: try all that we do, and read what the server says of itself."""
        (said,) = await servers.ask_any([("INFO",)])
        state = dict(re.findall(r"(\w+):([^\r\n]*)", said.decode())) if isinstance(said, bytes) else {}
        self._object(state)
        # a name of its own: two nodes that look at the same time do not meet
        keys = Keys(servers, f"{self._database}:check:{self._token}", self._token, self._lease)
        await keys.hold([0], Asker())
        await keys.holders([0])
        await keys.release([0])
        for answer in await servers.ask_any([("PUBLISH", f"jivsd:{self._database}:check", b"")]):
            if isinstance(answer, RedisError):
                raise answer
        if state.get("maxmemory", "0") != "0" and state.get("maxmemory_policy") != "noeviction":
            return [
                "Redis may throw our locks away when its memory is full (maxmemory-policy "
                f"{state['maxmemory_policy']}): nothing is lost by that, but shards move; noeviction is right"
            ]
        return []

    def _object(self, state: dict[str, str]) -> None:
        """Say what speaks against a server, given what it says of itself."""
        version, mode = state.get("redis_version", ""), state.get("redis_mode", "standalone")
        if version and int(version.partition(".")[0]) < OLDEST:
            raise WrongServer(f"it is Redis {version}; jivsd needs {OLDEST} or newer")
        if mode == "sentinel":
            raise WrongServer("it is a Sentinel; write redis+sentinel://host:26379/SERVICE")
        if mode == "cluster" and self._address.kind != "cluster":
            raise WrongServer("it is a node of a cluster; write redis+cluster://host:6379")
