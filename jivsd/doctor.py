"""Looks at a host before a daemon is started there, or beside one that runs: what is wrong, and what mends it."""

from __future__ import annotations

import os
import shutil
import stat
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd import openfiles
from jivsd.client import Client, ClientError, DaemonNotRunning
from jivsd.cluster.leases import LeasesAway, LeasesError
from jivsd.config import sqlite_path
from jivsd.listening import CannotListen, listen_tcp
from jivsd.masking import masked
from jivsd.places import ConfigError, make_folder, socket_path
from jivsd.registry.registry import Registry
from jivsd.store import clocks
from jivsd.store.api import StoreError
from jivsd.store.choice import is_postgres, store_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jivsd.config import Config
    from jivsd.engine.api import EngineStatus

LITTLE_ROOM: Final = 1024**3
NO_ROOM: Final = 64 * 1024**2
"""Bytes free in the data folder below which it says so, and below which nothing can go well."""
SECRETS: Final = ("store", "redis", "token")
"""Keys of the configuration that are secrets; those of named connections and tokens, too."""


class State(StrEnum):
    """How something is: good, bad enough that a daemon would not work, or worth a look."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, how it is, and what mends it."""

    what: str
    state: State
    says: str
    remedy: str = ""


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Look at everything that a daemon with this configuration would need, one after the other."""
    for finding in (*_secrets(config), *_folder(config), _files()):
        yield finding
    running = await _running(config)
    if isinstance(running, Finding):
        yield running
    else:
        for finding in _daemon(running):
            yield finding
    async for finding in _store(config):
        yield finding
    if config.redis is not None:
        yield await _redis(config)
    for finding in _plugins(config):
        yield finding
    if config.http is not None:
        yield _port(config, running=running is not None)


def _secrets(config: Config) -> Iterator[Finding]:
    """Files with secrets in them that others can read."""
    named = [f"connections.{name}.url" for name in config.connections]
    named += [f"tokens.{name}.token" for name in config.tokens]
    files = {config.source(key).removeprefix("file ") for key in (*SECRETS, *named) if _is_file(config.source(key))}
    for path in sorted(files):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield Finding("config", State.DOUBTFUL, f"others can read the secrets in {path}", f"chmod o-rwx,g-w {path}")
    if not files:
        yield Finding("config", State.GOOD, "it can be read, and names no secret in a file")


def _is_file(source: str) -> bool:
    return source.startswith("file ")


def _folder(config: Config) -> Iterator[Finding]:
    path = config.data_dir
    try:
        make_folder(path)
        socket_path(path)
    except (OSError, ConfigError) as error:
        yield Finding("data folder", State.WRONG, str(error), "choose another data_dir, or change its owner and mode")
        return
    if path.stat().st_mode & stat.S_IWOTH:
        yield Finding("data folder", State.DOUBTFUL, f"everybody can write to {path}", f"chmod o-w {path}")
    free = shutil.disk_usage(path).free
    if free < LITTLE_ROOM:
        state = State.WRONG if free < NO_ROOM else State.DOUBTFUL
        yield Finding("data folder", state, f"only {free // 1024**2} MiB are free in {path}", "make room on that disk")
    else:
        yield Finding("data folder", State.GOOD, f"{path}, {free // 1024**3} GiB free")


def _files() -> Finding:
    most = openfiles.most()
    if most is not None and most < openfiles.ENOUGH:
        says = f"a daemon may have {most} files and connections open"
        remedy = f"ulimit -Hn {openfiles.ENOUGH}, or LimitNOFILE={openfiles.ENOUGH} in the unit"
        return Finding("open files", State.DOUBTFUL, says, remedy)
    return Finding("open files", State.GOOD, "as many as it needs")


async def _running(config: Config) -> EngineStatus | Finding | None:
    """What the daemon of the data folder says, if there is one."""
    try:
        async with Client.connect(config.data_dir, by="doctor") as client:
            return await client.status()
    except DaemonNotRunning:
        return None
    except (ClientError, ConfigError) as error:
        return Finding("daemon", State.DOUBTFUL, f"it runs, and does not say how it is: {error}", "look into its log")


def _daemon(status: EngineStatus | None) -> Iterator[Finding]:
    if status is None:
        yield Finding("daemon", State.GOOD, "none runs with this data folder")
        return
    if status.version != version("jivsd"):
        says = f"the one that runs is jivsd {status.version}, this is {version('jivsd')}"
        yield Finding("daemon", State.DOUBTFUL, says, "start it again")
    if status.store_away is not None:
        says = f"the one that runs cannot use its store: {status.store_away}"
        yield Finding("daemon", State.WRONG, says, "mend that; it tries again by itself")
    if status.incidents:
        yield Finding("daemon", State.DOUBTFUL, f"{status.incidents} incidents are open", "jivsd incidents list")
    yield Finding("daemon", State.GOOD, f"one runs, jivsd {status.version}")


async def _store(config: Config) -> AsyncIterator[Finding]:
    url = config.store.get_secret_value()
    try:
        if is_postgres(url):
            async for finding in _postgres(config, url):
                yield finding
            return
        if not os.path.exists(sqlite_path(url)):  # noqa: ASYNC240 -- nobody else waits for it
            yield Finding("store", State.GOOD, f"{masked(url)}: it will be made")
            return
        async with store_of(url, read_only=True) as store:
            await store.open("doctor")
            yield Finding("store", State.GOOD, f"{masked(url)}: it can be read")
    except StoreError as error:
        yield Finding("store", State.WRONG, masked(str(error)), "see the README on PostgreSQL, or restore a backup")


async def _postgres(config: Config, url: str) -> AsyncIterator[Finding]:
    from jivsd.store.postgres.examination import examine as examine_database

    found = await examine_database(url)
    for doubt in found.doubts:
        yield Finding("store", State.DOUBTFUL, doubt, "ask the administrator of the database")
    if clocks.is_off(found.clock_off):
        yield Finding("clock", State.WRONG, clocks.sentence(config.node, found.clock_off), "timedatectl set-ntp true")
    else:
        yield Finding("clock", State.GOOD, f"{abs(found.clock_off):.2f} s off the database's")
    journal = f"its journal has schema version {found.version}" if found.version else "it has no journal yet"
    yield Finding("store", State.GOOD, f"{masked(url)}: it can be reached; {journal}")


async def _redis(config: Config) -> Finding:
    assert config.redis is not None
    if not is_postgres(config.store.get_secret_value()):
        says = "redis is for nodes that share a PostgreSQL journal, and the store is none"
        return Finding("redis", State.WRONG, says, "leave redis out, or name a postgresql:// store")
    from jivsd.cluster.redis import RedisLink

    try:
        url = config.redis.get_secret_value()
        async with RedisLink(url, database="doctor", node=config.node, token="doctor", heard=lambda _: None) as link:
            await link.check()
            return Finding("redis", State.GOOD, f"{link.shown}: it answers")
    except LeasesAway as error:
        remedy = "start it, or look at the address; nodes work without it, only slower when one of them dies"
        return Finding("redis", State.DOUBTFUL, masked(str(error)), remedy)
    except LeasesError as error:
        return Finding("redis", State.WRONG, masked(str(error)), "mend the URL, or the user's rights")


def _plugins(config: Config) -> Iterator[Finding]:
    for path in config.plugins:
        if not path.exists():
            yield Finding("plugins", State.WRONG, f"there is no file or folder {path}", "mend `plugins`, or make it")
    report = Registry().load([path for path in config.plugins if path.exists()])
    for problem in report.problems:
        yield Finding("plugins", State.WRONG, str(problem), f"jivsd plugins check {problem.where}")
    workflows = sum(len(plugin.workflows) for plugin in report.plugins)
    yield Finding("plugins", State.GOOD, f"{len(report.plugins)} load, with {workflows} workflows")


def _port(config: Config, *, running: bool) -> Finding:
    assert config.http is not None
    where = str(config.http)
    if running:
        return Finding("http", State.GOOD, f"{where} is for the daemon that runs")
    try:
        for listener in listen_tcp(config.http.host, config.http.port):
            listener.close()
    except CannotListen as error:
        return Finding("http", State.WRONG, str(error), "stop who listens there (ss -ltnp), or choose another port")
    return Finding("http", State.GOOD, f"{where} is free")
