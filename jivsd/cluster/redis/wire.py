"""Connections to Redis servers, in a bridge's loop: one question after the other, each answered or the end of it.

Whoever asks limits the time; what is cut short ends the connection.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AskError, ConnectionError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from jivsd.bridge import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jivsd.bridge import Bridge
    from jivsd.cluster.redis.address import Address, Host

Words = tuple[str | bytes | int, ...]
"""A command as it is sent."""

_MARK: Final = re.compile(rb"id=(\d+) addr=(\S+)")
LONGEST_PAUSE: Final = 0.5
"""The most seconds between attempts to connect."""


class Driver(Protocol):
    """What we use of the driver's connections."""

    async def connect(self) -> None: ...
    def abort(self) -> None: ...
    def pack_commands(self, commands: Sequence[Words]) -> list[bytes]: ...
    async def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...
    async def read_response(self) -> Any: ...
    @property
    def is_connected(self) -> bool: ...


class _Abrupt(AbstractConnection):
    """Ends at once, and never takes leave of a server that may not answer, as TLS wants it."""

    def abort(self) -> None:
        """End it."""
        if self._writer is not None:
            transport = self._writer.transport
            self._close()
            transport.abort()

    async def disconnect(self, *_: object, **__: object) -> None:
        """What the driver does when something goes wrong."""
        self.abort()


class _Tcp(_Abrupt, Connection):
    pass


class _Tls(_Abrupt, SSLConnection):
    pass


class _Unix(_Abrupt, UnixDomainSocketConnection):
    pass


def is_refusal(answer: object, code: str) -> bool:
    """Whether Redis refused for a reason, itself or in a script, where it wraps the reason in its own words."""
    return isinstance(answer, ResponseError) and (answer.status_code == code or f"{code} " in str(answer))


class Tally:
    """How many commands were answered well, and how many were not. Counted in the bridge's loop."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0


class Manner(NamedTuple):
    """How connections are made."""

    address: Address
    name: str
    """What administrators see in CLIENT LIST."""
    patience: float
    """Seconds that it may take to connect."""
    tally: Tally


class Mark(NamedTuple):
    """By which a server knows a connection, and no other one ever."""

    id: bytes
    addr: bytes


class Wire:
    """One connection."""

    def __init__(self, driver: Driver, host: Host | None, tally: Tally) -> None:
        self.driver = driver
        self.host = host
        self.mark: Mark | None = None
        self.used = False
        """Whether it served a question before: then the server may have closed it meanwhile."""
        self._tally = tally

    @property
    def good(self) -> bool:
        """Whether it can be asked more."""
        return self.driver.is_connected

    async def ask(self, commands: Sequence[Words]) -> list[Any]:
        """Send all commands, and return their answers; what Redis refuses is an exception among these.

        Raises:
            RedisError: the connection is no more; some or all may have been done.
        """
        answers: list[Any] = []
        try:
            await self.send(*commands)
            for _ in commands:
                answers += [await self._answer()]
        finally:
            bad = sum(
                isinstance(one, ResponseError) and not isinstance(one, AskError | NoScriptError) for one in answers
            )
            self._tally.ok += len(answers) - bad
            self._tally.failed += len(commands) - len(answers) + bad
        return answers

    async def _answer(self) -> Any:
        try:
            return await self.driver.read_response()
        except ResponseError as error:
            return error

    async def hear(self) -> Any:
        """The next thing that comes, however long that takes."""
        return await self.driver.read_response()

    async def send(self, *commands: Words) -> None:
        """Send commands whose answers come among others."""
        try:
            await self.driver.send_packed_command(self.driver.pack_commands(commands), check_health=False)
        except RuntimeError:  # how uvloop says so
            raise ConnectionError("the connection was closed meanwhile") from None

    def close(self) -> None:
        """End it at once."""
        self.driver.abort()


async def dial(manner: Manner, host: Host | None, *, sentinel: bool = False) -> Wire:
    """Connect to a server.

    Args:
        manner: how.
        host: where; None: to the Unix socket.
        sentinel: whether it is a Sentinel.

    Raises:
        RedisError: that cannot be.
    """
    driver = _driver(manner.address, host, sentinel=sentinel)
    try:
        async with asyncio.timeout(manner.patience):
            await driver.connect()
    except BaseException as error:
        driver.abort()
        if isinstance(error, RedisError | TimeoutError):
            manner.tally.failed += 1
        if isinstance(error, TimeoutError):
            raise NoAnswer("it does not answer in time") from None
        raise
    return Wire(driver, host, manner.tally)


def _driver(address: Address, host: Host | None, *, sentinel: bool) -> Driver:
    options: dict[str, Any] = {
        "username": address.sentinel_user if sentinel else address.user,
        "password": address.sentinel_password if sentinel else address.password,
        "db": 0 if sentinel else address.database,
        "socket_timeout": None,  # whoever asks has a limit for all of it; one for each answer takes longer to set
        "socket_connect_timeout": None,
        "protocol": 2,
    }
    if host is None:
        return cast("Driver", _Unix(path=address.path, **options))
    options |= {"host": host[0], "port": host[1]}
    if address.tls is None:
        return cast("Driver", _Tcp(**options))
    tls = address.tls
    options |= {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    options |= {"ssl_cert_reqs": "none" if tls.verify == "none" else "required"}
    options |= {"ssl_check_hostname": tls.verify == "full"}
    return cast("Driver", _Tls(**options))


class Line:
    """A connection to one server that is made anew when it breaks; who asks waits until others were answered.

    What was sent over a connection that was given up may reach the server later than what is sent over the next one.
    So the next one first has the server close it: then nothing comes from there any more.
    """

    def __init__(
        self,
        bridge: Bridge,
        name: str,
        connect: Callable[[], Awaitable[Wire]],
        right: Callable[[Wire], bool] = lambda _: True,
    ) -> None:
        """Prepare.

        Args:
            bridge: where it lives.
            name: what administrators see in CLIENT LIST.
            connect: makes a connection.
            right: whether a connection is still to the right server.
        """
        self._name = name
        self._connect = connect
        self._given_up: Mark | None = None
        self._pool = Pool(
            bridge,
            self._begin,
            size=1,
            good=lambda wire: wire.good and right(wire),
            drop=self._drop,
            spoils=lambda _: True,
            last_pause=LONGEST_PAUSE,
        )

    async def ask(self, commands: Sequence[Words]) -> list[Any]:
        """Have commands done that may be done twice; see `Wire.ask`.

        Raises:
            RedisError: the server cannot be asked.
        """
        while True:
            used = False

            async def work(wire: Wire) -> list[Any]:
                nonlocal used
                used, wire.used = wire.used, True
                answers = await wire.ask(commands)
                if any(is_refusal(answer, "READONLY") for answer in answers):
                    raise ConnectionError("it is a replica, or has become one")
                return answers

            try:
                return await self._pool.lend(work)
            except ConnectionError:
                if not used:  # else the server may be there, and only have closed what was idle
                    raise

    async def _begin(self) -> Wire:
        wire = await self._connect()
        try:
            last = self._given_up
            end_it = [] if last is None else [("CLIENT", "KILL", "ID", last.id, "ADDR", last.addr)]
            known, *_ = await wire.ask([("CLIENT", "INFO"), ("CLIENT", "SETNAME", self._name), *end_it])
        except BaseException:
            wire.close()
            raise
        self._given_up = None
        if isinstance(known, bytes) and (found := _MARK.match(known)):  # Redis 6.0 does not say it, nor to every user
            wire.mark = Mark(found[1], found[2])
        return wire

    def _drop(self, wire: Wire) -> None:
        self._given_up = wire.mark or self._given_up
        wire.close()
