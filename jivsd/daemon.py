"""The composition root: configuration in, running daemon out. The one module that knows everyone.

Order of start: store, plugins, leases, engine, part of the shards, services, admin server; shutdown goes the other way
round.
"""

from __future__ import annotations

import signal
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import trio

from jivsd import connections, interpreter, logs, memory
from jivsd.admin.feedwire import encoded
from jivsd.clock import SECOND, SystemClock
from jivsd.cluster.keeping import Times
from jivsd.cluster.membership import Lone, Membership
from jivsd.engine.api import ChildState, EngineError
from jivsd.engine.blame import at_fault
from jivsd.engine.clockwatch import ClockWatch
from jivsd.engine.engine import Engine
from jivsd.engine.lastwords import LastWords, end_process
from jivsd.engine.limits import Limits, Own
from jivsd.engine.plugins import settle
from jivsd.engine.pulse import Pulse
from jivsd.engine.stuck import Patience, Stuck
from jivsd.engine.trials import Trials, judge
from jivsd.engine.watchdog import Watchdog
from jivsd.groups import leaves
from jivsd.listening import OPEN, listen_tcp, listen_unix
from jivsd.masking import masked
from jivsd.metrics import Metrics
from jivsd.notify import READY, STOPPING, WATCHDOG, Notifier
from jivsd.places import ConfigError, make_folder, socket_path
from jivsd.registry.registry import Registry
from jivsd.services.deadlocks import DeadlockService
from jivsd.services.feed import Config as Feeding
from jivsd.services.feed import FeedService
from jivsd.services.requests import RequestService
from jivsd.store.api import StoreError
from jivsd.store.choice import store_of
from jivsd.supervision import ChildSpec, Intensity, RestartsExceeded, SupervisionError, Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from jivsd.admin.server import Server
    from jivsd.config import Config
    from jivsd.engine.blame import Blame
    from jivsd.engine.trials import Suspicion
    from jivsd.store.api import Store

log = logs.get(__name__)

OK, FAILED, INTERRUPTED = 0, 1, 130
RUNS_FIRST = 5.0
"""Seconds for which the endpoint lets the recovery of runs go first; what it imports keeps the loop busy."""
HAND_OVER = 7.0
"""Seconds after the grace of a hand-over when a daemon that stops goes on without it."""
HARD_END = 10.0
"""Seconds after the grace of a shutdown when the process ends whatever still hangs."""


class Household(NamedTuple):
    """What a daemon has in common with others that were started with it on this host, as their workers.

    `listeners` are open already; `siblings` are the others' sockets, by node; `notifier` is who started it.
    """

    listeners: Sequence[socket.socket] = ()
    siblings: Mapping[str, Path] = MappingProxyType({})
    notifier: Notifier = Notifier()


def run(config: Config, open_store: Callable[[str], Store] | None = None, *, household: Household | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second one ends it at once. Returns the exit code.

    `open_store` makes the store of a URL, instead of the daemon itself: for proofs of what a bad one would do.
    `household` is given to one of several workers.
    """
    logs.configure(config.log.level, config.log.format, config.node)
    household = household or Household(notifier=Notifier.of_environment())
    try:
        trio.run(partial(_serve, config, open_store or store_of, household))
    except (StoreError, SupervisionError, ConfigError, OSError, ExceptionGroup) as error:
        for leaf in leaves(error):
            log.critical("the daemon cannot run", why=_sentence(leaf))
        return FAILED
    return OK


async def _serve(config: Config, open_store: Callable[[str], Store], household: Household) -> None:
    interpreter.share()
    make_folder(config.data_dir)
    socket_path(config.data_dir)  # before anything is begun: a path that is too long is said now
    for path in config.plugins:
        if not path.exists():
            raise ConfigError([f"plugins: there is no file or folder {path}"])
    registry = Registry()
    found = registry.load(config.plugins)
    for name in config.workflows:
        if registry.workflow(name) is None:
            log.warning("limits are configured for a workflow that is not loaded", workflow=name)
    connections.configure({name: one.url.get_secret_value() for name, one in config.connections.items()})
    words = LastWords(config.data_dir)
    url = config.store.get_secret_value()
    async with open_store(url) as store:
        share = config.redis is not None or config.cluster.share or bool(household.siblings)
        epoch = await store.open(config.node, share=share)
        await settle(registry, store, found, [], SystemClock().now())
        limits = config.supervision
        most, period = limits.takedowns, limits.takedown_period
        suspicion = await judge(store, words, now=SystemClock().now(), most=most, period=period)
        memory.settle()
        parts = _Parts(config, store, registry, None if share else epoch, household)
        parts.try_one_by_one(suspicion, words)
        watchdog = Watchdog(limits.loop_warning / SECOND, limits.loop_limit / SECOND, words)
        with words.listening(parts.at_fault):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_signals, parts.stop, config.shutdown.grace / SECOND)
                nursery.start_soon(_reload_on_hangup, parts.reload)
                nursery.start_soon(parts.be_felt)
                nursery.start_soon(watchdog.run)
                nursery.start_soon(parts.stuck.run)
                nursery.start_soon(parts.clock_watch.run)
                await parts.run()
                nursery.cancel_scope.cancel()
    log.info("stopped")


def _limits(config: Config) -> Limits:
    own = {name: Own(one.active_runs, one.running_steps) for name, one in config.workflows.items()}
    return Limits(config.limits.active_runs, config.limits.running_steps, own)


def _membership(config: Config, store: Store, engine: Engine, *, shared: bool) -> Lone | Membership | None:
    """What the daemon is among the nodes of its database; None: the database is embedded."""
    if store.sharing is None:
        return None
    if not shared:
        return Lone(config.node, store.sharing, engine.holding, engine.metrics)
    cluster = config.cluster
    times = Times(cluster.lease / SECOND, cluster.postgresql_lease / SECOND, cluster.handover / SECOND)

    def heard(body: bytes) -> None:
        if engine.serving:
            engine.calling.heard(body)

    member = Membership(
        config.node,
        store.sharing,
        engine.holding,
        times,
        metrics=engine.metrics,
        redis=config.redis.get_secret_value() if config.redis is not None else None,
        full=lambda: engine.serving and engine.gate.full,
        heard=heard,
    )
    engine.calling.tell, engine.holding.owner_is_full = member.tell, member.owner_is_full
    return member


class _Parts:
    """The supervised children. The endpoint is one apart: it can crash and come back without a run noticing."""

    def __init__(
        self, config: Config, store: Store, registry: Registry, epoch: int | None, household: Household
    ) -> None:
        self._config = config
        self._household = household
        self._metrics = Metrics()
        self._engine = Engine(
            store,
            registry,
            node=config.node,
            epoch=epoch,
            metrics=self._metrics,
            threads=config.limits.threads,
            recovery=config.recovery.concurrency,
            limits=_limits(config),
            passivate_after=config.limits.passivate_after / SECOND,
            resident=config.limits.resident_runs,
            store_url=masked(config.store.get_secret_value()),
            intensity=Intensity(config.supervision.restarts, config.supervision.period / SECOND),
        )
        self._engine.children = self._children
        limits = config.supervision
        patience = Patience(factor=limits.stuck_factor, least=limits.stuck_least, still=limits.still)
        self.stuck = Stuck(self._engine, patience)
        self.clock_watch = ClockWatch(self._engine)
        self._feed = FeedService(store.feed, encoded, self._engine.clock.now, Feeding(config.feed.keep / SECOND))
        self._server: Server | None = None
        self._closing = False
        self._failure: tuple[str, BaseException | None] | None = None
        self._member = self._engine.neighbours = _membership(config, store, self._engine, shared=epoch is None)
        self.supervisor = Supervisor(
            "daemon",
            self._specs(),
            on_restart=lambda name: self._metrics.supervisor_restarts.labels(name).inc(),
            on_give_up=self._gave_up,
        )

    def _specs(self) -> list[ChildSpec]:
        """The children in the order of their start. A node hands over while its engine goes on."""
        config, member = self._config, self._member
        grace = config.shutdown.grace / SECOND
        intensity = Intensity(config.supervision.restarts, config.supervision.period / SECOND)
        drain = partial(self._engine.drain, grace)
        specs = [
            ChildSpec("engine", self._engine.run, intensity=intensity, drain=drain, shutdown=grace + 5),
            ChildSpec("requests", RequestService(self._engine).run, intensity=intensity),
            ChildSpec("deadlocks", DeadlockService(self._engine).run, intensity=intensity),
            ChildSpec("feed", self._feed.run, intensity=intensity),
            ChildSpec("admin", self._admin, intensity=intensity, drain=self._drain_admin),
        ]
        if isinstance(member, Membership):
            most = config.cluster.handover / SECOND + HAND_OVER
            specs.insert(1, ChildSpec("node", member.take_part, intensity=intensity, drain=member.drain, shutdown=most))
        if member is not None:
            specs.insert(0, ChildSpec("leases", member.keep, intensity=intensity, drain=member.end))
        return specs

    def try_one_by_one(self, suspicion: Suspicion | None, words: LastWords) -> None:
        """Bring those runs back one at a time that may have ended the process before."""
        if suspicion is not None:
            self._engine.trials = Trials(self._engine, suspicion, words.on_trial)

    def at_fault(self, codes: set[object]) -> Blame | None:
        """Whose plain step these code objects belong to."""
        return at_fault(self._engine.actors.values(), codes)

    async def run(self) -> None:
        """Run until the supervisor is stopped.

        Raises:
            SupervisionError: a child could not be started, or the engine crashed too often.
        """
        async with self._member or nullcontext():
            try:
                await self.supervisor.run()
            finally:
                if self._server is not None:
                    self._server.close()
        if self._failure is not None:
            name, error = self._failure
            raise RestartsExceeded(f"the {name} crashed too often") from error

    def stop(self, seconds: float) -> None:
        """Have `run` return; whoever started the daemon hears how long that may take."""
        self._household.notifier.send(STOPPING, f"EXTEND_TIMEOUT_USEC={int(seconds * SECOND)}")
        self.supervisor.stop()

    async def reload(self) -> None:
        """Load the plugins again."""
        self._household.notifier.reloading()
        try:
            await self._engine.reload_plugins(by="SIGHUP")
        except EngineError as error:
            log.error("the plugins were not loaded again", why=str(error))
        self._household.notifier.send(READY)

    async def be_felt(self) -> None:
        """Tell whoever would start a hung daemon again that this one is not."""
        notifier = self._household.notifier
        if notifier.watchdog is not None:
            await Pulse(self._engine, notifier.watchdog, partial(notifier.send, WATCHDOG)).run()

    def _gave_up(self, name: str, error: BaseException | None) -> None:
        """Without the engine and its part of the shards there is no daemon; without the endpoint the runs go on."""
        if name in ("engine", "node") or (name == "leases" and isinstance(self._member, Membership)):
            self._failure = name, error
            self.supervisor.stop()

    def _children(self) -> list[ChildState]:
        return [ChildState(child.name, child.state.value, child.restarts) for child in self.supervisor.children()]

    async def _admin(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.move_on_after(RUNS_FIRST):
            await self._engine.recovery.under_way.wait()
        server = self._server = self._server or self._make_server()
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(self._serve, server)
            log.info("ready", listening=addresses)
            self._household.notifier.send(READY)
            task_status.started()
        if self._closing:
            server.close()  # who comes now is told at once that nobody is here

    async def _serve(self, server: Server, *, task_status: trio.TaskStatus[list[str]]) -> None:
        await server.run(task_status=task_status)

    def _make_server(self) -> Server:
        from jivsd.admin.access import Role, Token
        from jivsd.admin.app import create_app  # these take long to import, and recovery has begun by now
        from jivsd.admin.server import Server

        config, household = self._config, self._household
        listeners = [listen_unix(socket_path(config.data_dir))]
        hosts: list[str] = []
        if config.http is not None:
            hosts.append(config.http.host)
            if not household.listeners:
                listeners += listen_tcp(config.http.host, config.http.port)
                if not config.needs_token:
                    log.warning(OPEN, http=str(config.http))
        token = config.token.get_secret_value() if config.token is not None else None
        tokens = [
            Token(name, one.token.get_secret_value(), Role[one.role.upper()]) for name, one in config.tokens.items()
        ]
        app = create_app(
            self._engine, feed=self._feed, token=token, tokens=tokens, hosts=hosts, siblings=household.siblings
        )
        return Server(app, listeners, lent=household.listeners)

    def _drain_admin(self) -> None:
        self._closing = True
        if self._server is not None:
            self._server.drain()


async def _watch_signals(stop: Callable[[float], None], grace: float) -> None:
    """Stop at the first signal. A second SIGINT ends the process even when code of a plugin does not yield."""
    arrived = trio.Event()
    token = trio.lowlevel.current_trio_token()
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen and number == signal.SIGINT:
            end_process(INTERRUPTED)
        seen.append(number)
        token.run_sync_soon(arrived.set, idempotent=True)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        await arrived.wait()
        log.info("stopping", signal=signal.Signals(seen[0]).name, grace_s=grace)
        stop(grace + HARD_END)
        await trio.sleep(grace + HARD_END)
        log.critical("stopping took too long; ending at once")
        end_process(FAILED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _reload_on_hangup(reload: Callable[[], Awaitable[None]]) -> None:
    """Load the plugins again at every SIGHUP."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            await reload()


def _sentence(error: BaseException) -> str:
    said, cause = str(error), str(error.__cause__ or "")
    whole = isinstance(error, StoreError) or cause in said
    return masked(said if whole else f"{said} ({cause})")
