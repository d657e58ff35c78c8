"""`jivsd torture`: random workflows while the daemon is killed, and a count of what came of it."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from jivsd.proof import stage
from jivsd.proof.daemons import Daemon, DaemonFailed
from jivsd.proof.torture.account import Account
from jivsd.proof.torture.driver import Driver
from jivsd.proof.torture.evidence import looking
from jivsd.proof.torture.faults import TAKE_OVER, Faults
from jivsd.proof.torture.fleet import Fleet, Node
from jivsd.proof.torture.found import Violation
from jivsd.proof.torture.language import WORKFLOW
from jivsd.proof.torture.nodefaults import NodeFaults, Redis
from jivsd.proof.torture.orders import Orders, a_redis, place, shared_by
from jivsd.proof.torture.planted import STALE_WRITER, PlantedDaemon
from jivsd.proof.torture.recovery import Recovery
from jivsd.proof.torture.verdict import check_all, check_runs
from jivsd.proof.torture.workflows import world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.client import Client
    from jivsd.proof.torture.grounds import Ground


PATIENCE: Final = 60.0
"""Seconds in which something is acknowledged, once nothing is done to the daemon any more, until all have ended."""
LOOK: Final = 0.5
"""Seconds between two glances that a watcher gets."""
GOES_ON_WITHIN: Final = 10.0
"""Seconds in which something is acknowledged once everything is whole again."""
LOOK_FOR_PLANT: Final = 1.0
"""Seconds between two looks for a bug that was built in."""
IN_MEMORY: Final = ("1ms", "50ms", "500ms", "10s")
"""How long a run waits in memory before it leaves that: the seed decides."""
PLUGINS: Final = Path(__file__).parent / "workflows"


class Glance(NamedTuple):
    """How things stand."""

    second: float
    starts: int
    open: int
    faults: int


class TortureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `runs` counts child runs too, `steps` what was carried out, `again` those attempts that were
    carried out once more because a fault came before their record, `commands` what the programs asked for, by kind.
    `progress_s`: by fault, the longest time from when all was whole again until something was acknowledged, in seconds;
    `taken_over_s`: by what was done to a node, the longest time until others had all its shards.
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
    store: str
    progress_s: dict[str, float]
    nodes: int
    taken_over_s: dict[str, float]
    plant: str | None
    kept: str | None


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
        self._world = folder / "world.sqlite"
        self._recovery = Recovery()
        self._account = Account(folder / "account.sqlite", self._went_on)
        self._patience = trio.CancelScope()
        self._ground: Ground
        self._redis: Redis | None = None
        self._taken_over: dict[str, float] = {}
        self._planted: list[Violation] = []
        """What a planted bug has led to, as it was found first."""

    async def run(self, watch: Callable[[Glance], None]) -> TortureReport:
        began = time.perf_counter()
        world.make(str(self._world))
        async with place(self._what, self._folder, self._state) as self._ground, a_redis(self._what) as self._redis:
            fleet = Fleet([self._node(name) for name in self._ground.environments], self._what.seed)
            try:
                await fleet.start()
                await self._work(fleet, watch)
            finally:
                self._account.close()
            seconds = round(time.perf_counter() - began, 2)
            violations = [*self._account.complaints, *await self._judge()]
            return self._report(seconds, violations, await self._ground.journal())

    def _node(self, name: str) -> Node:
        return Node(name, self._daemon(name), may_end=bool(self._ground.faults))

    def _daemon(self, name: str) -> Daemon:
        what, ground = self._what, self._ground
        state, log = self._state, self._folder / "daemon.log"
        settings = {**ground.environments[name]}
        if what.nodes > 1:
            state, log = state / name, self._folder / f"{name}.log"
            settings |= shared_by(what, self._redis)
        if what.plant is not None:
            return PlantedDaemon(state, log, PLUGINS, what.plant, settings)
        settings["JIVSD_LIMITS__PASSIVATE_AFTER"] = IN_MEMORY[what.seed % len(IN_MEMORY)]
        return Daemon(state, log, ["--plugins", str(PLUGINS), "--log-level", "warning"], settings)

    async def _work(self, fleet: Fleet, watch: Callable[[Glance], None]) -> None:
        """Drive runs while faults happen, until all have ended; stop the daemons. A planted bug ends it when found."""
        what = self._what
        until = trio.current_time() + what.seconds
        self._patience.deadline = until + PATIENCE
        try:
            faults, kinds = await self._faults(fleet)
            async with fleet.client() as client:
                await _check_plugin(client, fleet)
                driver = Driver(client, self._account, seed=what.seed, world=str(self._world))
                with self._patience:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stage.interrupt_on_sigterm)
                        nursery.start_soon(self._watch, watch)
                        nursery.start_soon(faults.run, kinds, until)
                        if what.plant is not None:
                            nursery.start_soon(self._look_for_plant, nursery.cancel_scope, until)
                        await driver.work(what.workers, until)
                        nursery.cancel_scope.cancel()
            if what.plant is None:
                await self._put_away(fleet)
        finally:
            await fleet.aclose()

    async def _faults(self, fleet: Fleet) -> tuple[Faults | NodeFaults, Sequence[str]]:
        """Who commits the faults, and which."""
        what, ground, parts = self._what, self._ground, (self._account, self._recovery, self._what.seed)
        if what.nodes == 1 or ground.ownership is None:
            (node,) = fleet.nodes
            kinds = (TAKE_OVER,) if what.plant == STALE_WRITER else what.faults
            return Faults(node, ground, *parts, lambda: self._daemon(node.name)), kinds
        await ground.ownership.watch()
        faults = NodeFaults(
            fleet, ground, ground.ownership, *parts, leases=what.leases, redis=self._redis, world=self._world
        )
        self._taken_over = faults.taken_over
        return faults, what.faults if what.plant != STALE_WRITER else ("stop",)

    def _went_on(self) -> None:
        self._recovery.progress()
        self._patience.deadline = max(self._patience.deadline, trio.current_time() + PATIENCE)

    async def _put_away(self, fleet: Fleet) -> None:
        """Stop the daemons; they hold nothing but what they need, and then nothing; nodes share evenly until then."""
        ground, complain = self._ground, self._account.complain
        if self._what.nodes > 1 and ground.ownership is not None:
            for line in await ground.ownership.uneven([node.name for node in fleet.nodes]):
                complain("uneven", "", line)
        found = await ground.left_open(serving=True)
        for name, code in (await fleet.stop()).items():
            if code != 0:
                complain("died", "", f"{name or 'the daemon'} was asked to end, and has ended with exit code {code}")
        for line in [*found, *await ground.left_open(serving=False)]:
            complain("left open", "", line)

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
                found = await self._wrong_runs()
                if any(wrong.path for wrong in found):
                    self._planted = found  # who writes without a fence may write over it yet
        scope.cancel()

    async def _wrong_runs(self) -> list[Violation]:
        stale = await self._stale()
        with looking(await self._ground.journal(), self._world, self._account.stopped) as evidence:
            return [*stale, *check_runs(evidence, self._account)]

    async def _stale(self) -> list[Violation]:
        """What nodes have written to which it was not theirs to write."""
        ownership = self._ground.ownership
        if self._what.nodes == 1 or ownership is None:
            return []
        return [Violation("stale", *found) for found in await ownership.stale()]

    async def _judge(self) -> list[Violation]:
        """Compare everything with the model; with a bug built in, which has ended it early, only the runs."""
        if self._what.plant is not None:
            return self._planted or await self._wrong_runs()
        with looking(await self._ground.journal(), self._world, self._account.stopped) as evidence:
            found = [*await self._stale(), *check_all(evidence, self._account)]
        found += [Violation("store", "", "", line) for line in await self._ground.check()]
        for kind, seconds in self._recovery.worst.items():
            if seconds > GOES_ON_WITHIN:
                line = f"{seconds:.1f} s after {kind} was over nothing had been acknowledged yet"
                found.append(Violation("progress", "", "", line))
        return found

    def _report(self, seconds: float, violations: list[Violation], journal: Path) -> TortureReport:
        account = self._account
        commands: Counter[str] = Counter()
        for case in account.cases.values():
            commands.update(case.plan.commands)
        with looking(journal, self._world) as evidence:
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
            store=self._ground.name,
            progress_s=dict(sorted(self._recovery.worst.items())),
            nodes=self._what.nodes,
            taken_over_s=dict(sorted(self._taken_over.items())),
            plant=self._what.plant,
            kept=str(self._folder) if self._kept else None,
        )


async def _check_plugin(client: Client, fleet: Fleet) -> None:
    """Raises DaemonFailed when a daemon has not loaded the torturer's workflows."""
    if all(workflow.name != WORKFLOW for workflow in await client.workflows()):
        raise DaemonFailed(f"the daemon has not loaded {PLUGINS}: {fleet.nodes[0].daemon.last_words()}")
