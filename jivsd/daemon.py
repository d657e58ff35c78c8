"""The composition root: configuration in, running daemon out. The one module that knows everyone.

Order of start: store, plugins, engine, admin server; shutdown goes the other way round.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from jivsd import logs
from jivsd.clock import SECOND, SystemClock
from jivsd.config import sqlite_path
from jivsd.engine.api import ChildState
from jivsd.engine.engine import Engine
from jivsd.engine.incidents import resolved
from jivsd.masking import masked
from jivsd.metrics import Metrics
from jivsd.places import socket_path
from jivsd.records import Incident, IncidentState, derived_id
from jivsd.registry.registry import Registry
from jivsd.store.api import StoreError
from jivsd.store.sqlite.store import SqliteStore
from jivsd.supervision import ChildSpec, Intensity, SupervisionError, Supervisor

if TYPE_CHECKING:
    from jivsd.admin.server import Server
    from jivsd.config import Config
    from jivsd.store.api import Store

log = logs.get(__name__)

OK, FAILED, INTERRUPTED = 0, 1, 130
NO_RUN = "00000000-0000-7000-8000-000000000000"
"""Incidents that belong to no run derive their ids from this one."""
HARD_END = 10.0
"""Seconds after the grace of a shutdown when the process ends whatever still hangs."""


def run(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second one ends it at once. Returns the exit code."""
    logs.configure(config.log.level, config.log.format, config.node)
    try:
        trio.run(partial(_serve, config))
    except (StoreError, SupervisionError, OSError, ExceptionGroup) as error:
        for leaf in _leaves(error):
            log.critical("the daemon cannot run", why=_sentence(leaf))
        return FAILED
    return OK


async def _serve(config: Config) -> None:
    config.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    registry = Registry()
    registry.load(config.plugins)
    metrics = Metrics()
    url = config.store.get_secret_value()
    async with _store(url) as store:
        epoch = await store.open(config.node)
        await _settle_plugins(registry, store, SystemClock().now())
        supervisor = _supervisor(config, store, registry, metrics, epoch, masked(url))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_signals, supervisor, config.shutdown.grace / SECOND)
            await supervisor.run()
            nursery.cancel_scope.cancel()
    log.info("stopped", node=config.node)


async def _settle_plugins(registry: Registry, store: Store, now: int) -> None:
    """Keep the loaded code in the store; what did not load is an incident until it does."""
    for plugin in registry.plugins:
        for finding in plugin.findings:
            log.warning("a plugin may not be durable", plugin=plugin.name, finding=str(finding))
        await store.put_plugin(plugin.stored)
    problems = {derived_id(NO_RUN, str(problem)): problem for problem in registry.problems}
    for incident_id, problem in problems.items():
        log.error("a plugin was not loaded", plugin=problem.plugin, why=str(problem))
        details = {"plugin": problem.plugin, "where": problem.where}
        await store.put_incident(Incident(incident_id, "plugin", str(problem), now, details=details))
    known, _ = await store.incidents(IncidentState.OPEN, limit=1000)
    for incident in known:
        if incident.kind == "plugin" and incident.run_id is None and incident.incident_id not in problems:
            await store.put_incident(resolved(incident, "gone", by="daemon", why="the plugin loads now", at=now))


def _supervisor(
    config: Config, store: Store, registry: Registry, metrics: Metrics, epoch: int, shown_url: str
) -> Supervisor:
    grace = config.shutdown.grace / SECOND
    engine = Engine(
        store,
        registry,
        node=config.node,
        epoch=epoch,
        metrics=metrics,
        threads=config.limits.threads,
        recovery=config.recovery.concurrency,
        store_url=shown_url,
    )
    admin = _Admin(config, engine)
    intensity = Intensity(config.supervision.restarts, config.supervision.period / SECOND)
    children = [
        ChildSpec("engine", engine.run, intensity=intensity, drain=partial(engine.drain, grace), shutdown=grace + 5),
        ChildSpec("admin", admin.run, intensity=intensity, drain=admin.drain),
    ]
    supervisor = Supervisor("daemon", children, on_restart=lambda name: metrics.supervisor_restarts.labels(name).inc())
    engine.children = lambda: [
        ChildState(child.name, child.state.value, child.restarts) for child in supervisor.children()
    ]
    return supervisor


def _store(url: str) -> Store:
    scheme = url.partition(":")[0]
    if scheme != "sqlite":
        raise StoreError(f"{scheme}:// cannot hold the journal yet; leave store out for the embedded one")
    return SqliteStore(sqlite_path(url))


class _Admin:
    """The endpoint as a child of its own: it can crash and come back without a run noticing; its sockets stay."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._server: Server | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self._server is None:
            self._server = self._make()
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(self._serve, self._server)
            log.info("ready", node=self._config.node, listening=addresses)
            task_status.started()

    async def _serve(self, server: Server, *, task_status: trio.TaskStatus[list[str]]) -> None:
        await server.run(task_status=task_status)

    def _make(self) -> Server:
        from jivsd.admin.app import create_app  # these take long to import, and recovery has begun by now
        from jivsd.admin.server import Server, listen_tcp, listen_unix

        config = self._config
        listeners = [listen_unix(socket_path(config.data_dir))]
        if config.http is not None:
            listeners += listen_tcp(config.http.host, config.http.port)
        token = config.token.get_secret_value() if config.token is not None else None
        return Server(create_app(self._engine, token=token), listeners)

    def drain(self) -> None:
        if self._server is not None:
            self._server.drain()


async def _watch_signals(supervisor: Supervisor, grace: float) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arriving:
        first = await anext(aiter(arriving))
        log.info("stopping", signal=signal.Signals(first).name, grace_s=grace)
        supervisor.stop()
        with trio.move_on_after(grace + HARD_END):
            async for again in arriving:
                if again == signal.SIGINT:
                    os._exit(INTERRUPTED)
    log.critical("stopping took too long; ending at once")
    os._exit(FAILED)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [leaf for cause in inner for leaf in _leaves(cause)]
    return [error]


def _sentence(error: BaseException) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return masked(f"{error}{cause}")
