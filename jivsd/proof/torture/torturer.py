"""`jivsd torture`: random workflows while the daemon is killed, and a count of what came of it."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from jivsd.client import Client
from jivsd.proof import stage
from jivsd.proof.daemons import Daemon, DaemonFailed
from jivsd.proof.torture.account import Account
from jivsd.proof.torture.driver import Driver
from jivsd.proof.torture.evidence import looking
from jivsd.proof.torture.faults import FAULTS, LATER, Fault, Faults
from jivsd.proof.torture.found import Violation
from jivsd.proof.torture.language import WORKFLOW
from jivsd.proof.torture.planted import PLANTS, STALE_WRITER, PlantedDaemon
from jivsd.proof.torture.verdict import check_all, check_runs
from jivsd.proof.torture.workflows import world
from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable


WORKERS: Final = 24
"""How many runs are open at once."""
PATIENCE: Final = 60.0
"""Seconds that the last runs may take to end, once nothing is done to the daemon any more."""
LOOK: Final = 0.5
"""Seconds between two glances that a watcher gets."""
LOOK_FOR_PLANT: Final = 1.0
"""Seconds between two looks for a bug that was built in."""
IN_MEMORY: Final = ("1ms", "50ms", "500ms", "10s")
"""How long a run waits in memory before it leaves that: the seed decides."""
PLUGINS: Final = Path(__file__).parent / "workflows"


class Wrong(ValueError):
    """What was asked for cannot be done; the message says why."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. `seed` decides the programs and the moments of the faults."""

    seconds: float
    seed: int
    faults: tuple[Fault, ...]
    plant: str | None = None
    workers: int = WORKERS


class Glance(NamedTuple):
    """How things stand."""

    second: float
    starts: int
    open: int
    faults: int


class TortureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `runs` counts child runs too, `steps` what was carried out, `again` those attempts that were
    carried out once more because a fault came before their record, `commands` what the programs asked for, by kind.
    """

    runs: int
    kills: int
    faults: dict[str, int]
    violations: list[Violation]
    seed: int
    seconds: float
    starts: int
    signals: int
    events: int
    steps: int
    again: int
    commands: dict[str, int]
    plant: str | None
    kept: str | None


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
        Wrong: it is not possible, or not with the embedded store.
    """
    if store is not None:
        raise Wrong(
            "--store comes with PostgreSQL; so far there is the embedded store, in a folder of its own: leave it out"
        )
    if redis is not None:
        raise Wrong("--redis comes with PostgreSQL; the embedded store is one daemon's own: leave it out")
    if nodes != 1:
        raise Wrong(f"--nodes {nodes} comes with PostgreSQL; the embedded store is one daemon's own: leave it out")
    if plant is not None and plant not in PLANTS:
        raise Wrong(f"--plant {plant}: allowed are {', '.join(PLANTS)}")
    return Orders(
        seconds=seconds,
        seed=SystemRandom().randrange(1 << 32) if seed is None else seed,
        faults=_faults(faults),
        plant=plant,
    )


def _faults(text: str | None) -> tuple[Fault, ...]:
    if text is None:
        return FAULTS
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name in LATER:
            raise Wrong(f"--faults {name} comes with {LATER[name]}; the embedded store has {', '.join(FAULTS)}")
        if name not in FAULTS:
            raise Wrong(f"--faults {name}: allowed are {', '.join(FAULTS)}, or an empty text for none")
    return tuple(kind for kind in FAULTS if kind in names)


def torture(what: Orders, keep: Path | None = None, watch: Callable[[Glance], None] = lambda _: None) -> TortureReport:
    """Torture a daemon on a database of its own.

    Args:
        what: see `orders`.
        keep: a new or empty folder to leave the databases in.
        watch: told now and then how things stand.

    Raises:
        FolderNotEmpty: see `keep`. DaemonFailed, OSError: it cannot go on.
    """
    with stage.folder(keep, "torture") as folder, stage.one_error():
        return trio.run(_Torture(what, folder, kept=keep is not None).run, watch)


class _Torture:
    """One torture, in its folder."""

    def __init__(self, what: Orders, folder: Path, *, kept: bool) -> None:
        self._what = what
        self._folder = folder
        self._kept = kept
        self._state = folder / "state"
        self._journal = self._state / "jivsd.db"
        self._world = folder / "world.sqlite"
        self._account = Account(folder / "account.sqlite")
        self._planted: list[Violation] = []
        """What a planted bug has led to, as it was found first."""

    async def run(self, watch: Callable[[Glance], None]) -> TortureReport:
        began = time.perf_counter()
        world.make(str(self._world))
        daemon = self._daemon()
        try:
            await daemon.start()
            await self._work(daemon, watch)
        finally:
            self._account.close()
        seconds = round(time.perf_counter() - began, 2)
        return self._report(seconds, [*self._account.complaints, *await self._judge()])

    def _daemon(self) -> Daemon:
        log = self._folder / "daemon.log"
        settings = {"JIVSD_LIMITS__PASSIVATE_AFTER": IN_MEMORY[self._what.seed % len(IN_MEMORY)]}
        if self._what.plant is not None:
            return PlantedDaemon(self._state, log, PLUGINS, self._what.plant)
        return Daemon(self._state, log, ["--plugins", str(PLUGINS), "--log-level", "warning"], settings)

    async def _work(self, daemon: Daemon, watch: Callable[[Glance], None]) -> None:
        """Drive runs while faults happen, until all have ended; stop the daemon. A planted bug ends it when found."""
        what = self._what
        kinds = ("takeover",) if what.plant == STALE_WRITER else what.faults
        faults = Faults(daemon, self._account, what.seed, kinds, self._daemon)
        until = trio.current_time() + what.seconds
        try:
            async with Client.connect(self._state, by="torture") as client:
                await _check_plugin(client, daemon)
                driver = Driver(client, self._account, seed=what.seed, world=str(self._world))
                with trio.move_on_at(until + PATIENCE):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stage.interrupt_on_sigterm)
                        nursery.start_soon(self._watch, watch)
                        nursery.start_soon(faults.run, until)
                        if what.plant is not None:
                            nursery.start_soon(self._look_for_plant, nursery.cancel_scope, until)
                        await driver.work(what.workers, until)
                        nursery.cancel_scope.cancel()
            if what.plant is None:
                await faults.daemon.stop()
        finally:
            await faults.daemon.aclose()

    async def _watch(self, watch: Callable[[Glance], None]) -> None:
        account, began = self._account, trio.current_time()
        while True:
            open_runs = sum(case.ended is None for case in account.cases.values())
            watch(Glance(trio.current_time() - began, len(account.cases), open_runs, account.faults.total()))
            await trio.sleep(LOOK)

    async def _look_for_plant(self, scope: trio.CancelScope, until: float) -> None:
        """With a bug built in: end when it is found, and when time is up, for its runs may hang."""
        with trio.move_on_at(until):
            while not self._planted:
                await trio.sleep(LOOK_FOR_PLANT)
                found = self._wrong_runs()
                if any(wrong.path for wrong in found):
                    self._planted = found  # who writes without a fence may write over it yet
        scope.cancel()

    def _wrong_runs(self) -> list[Violation]:
        with looking(self._journal, self._world) as evidence:
            return list(check_runs(evidence, self._account))

    async def _judge(self) -> list[Violation]:
        """Compare everything with the model; with a bug built in, which has ended it early, only the runs."""
        if self._what.plant is not None:
            return self._planted or self._wrong_runs()
        with looking(self._journal, self._world) as evidence:
            found = list(check_all(evidence, self._account))
        async with SqliteStore(self._journal, read_only=True) as store:
            await store.open("torture")
            found += [Violation("store", "", "", line) for line in await store.check()]
        return found

    def _report(self, seconds: float, violations: list[Violation]) -> TortureReport:
        account = self._account
        commands: Counter[str] = Counter()
        for case in account.cases.values():
            commands.update(case.plan.commands)
        with looking(self._journal, self._world) as evidence:
            counts = evidence.counts()
        return TortureReport(
            runs=counts.runs,
            kills=account.faults["kill"],
            faults=dict(account.faults),
            violations=violations,
            seed=self._what.seed,
            seconds=seconds,
            starts=len(account.cases),
            signals=sum(len(told) for case in account.cases.values() for told in case.told.values()),
            events=counts.events,
            steps=counts.calls,
            again=counts.again,
            commands=dict(sorted((+commands).items())),
            plant=self._what.plant,
            kept=str(self._folder) if self._kept else None,
        )


async def _check_plugin(client: Client, daemon: Daemon) -> None:
    """Raises DaemonFailed when the daemon has not loaded the torturer's workflows."""
    if all(workflow.name != WORKFLOW for workflow in await client.workflows()):
        raise DaemonFailed(f"the daemon has not loaded {PLUGINS}: {daemon.last_words()}")
