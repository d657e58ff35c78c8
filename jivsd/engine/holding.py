"""Which shards live on this host. With several nodes they come and go while it runs.

Whoever decides that (`jivsd.cluster`) says so here; the fence in the journal keeps a host that has not heard of it from
writing. (DESIGN.md section 6.)
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine import starts
from jivsd.engine.api import Unavailable
from jivsd.engine.attempts import Exit
from jivsd.engine.ends import ONCE, Glances
from jivsd.records import SHARDS, shard_of
from jivsd.store.api import Entry, Refused, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jivsd.engine.actor import Actor
    from jivsd.engine.api import StartOptions
    from jivsd.engine.host import Host
    from jivsd.journal.committer import Fenced
    from jivsd.records import Event
    from jivsd.store.api import NewRun, Verdict

log = logs.get(__name__)

FENCED: Final = Refused("fenced")
GLANCE: Final = 0.01
"""Seconds between two looks whether a shard is empty."""
CUT: Final = 1.0
"""Seconds that steps get to end after they were cut short."""
GLANCES: Final = Glances(0.02, 0.25)
FIRST_WAIT: Final = 5.0
"""Seconds that a start waits for this node to have any shard."""


class Holding:
    """The shards of a host."""

    def __init__(self, host: Host, *, shared: bool) -> None:
        """`shared`: it has none to begin with; or else it has all, and keeps them."""
        self.shared = shared
        """Whether other nodes may have shards of the same database."""
        self.shards: frozenset[int] = frozenset() if shared else frozenset(range(SHARDS))
        """Those that live here."""
        self.population: Counter[int] = Counter()
        """How many runs of each shard have a task here."""
        self.on_fenced: Callable[[int], None] = lambda shard: None
        """Told of a shard of which the journal has said that it has another owner; it is lost by then."""
        self.owner_is_full: Callable[[int], bool] = lambda shard: False
        """Whether the node that owns a shard says that it takes no starts from outside just now."""
        self._host = host
        self._came = trio.Event()

    @property
    def wanted(self) -> frozenset[int] | None:
        """Of which shards the store is to be asked; None: of all."""
        return self.shards if self.shared else None

    @property
    def glances(self) -> Glances:
        """How often it is looked for what may happen on another node, if there can be one."""
        return GLANCES if self.shared else ONCE

    # ---- what the cluster says

    def take(self, epochs: Mapping[int, int]) -> None:
        """These shards are ours from now on, under these epochs: bring back what lives there."""
        self._host.committer.hold(epochs)
        self.shards |= epochs.keys()
        self._came.set()
        self._host.recovery.later(frozenset(epochs))

    async def hand_over(self, shards: Collection[int], grace: float) -> set[int]:
        """Let shards go, as soon as nothing of them lives here and all is committed.

        Steps under way get `grace` seconds to end, and are cut short then; they run again at the next owner.

        Returns:
            Those that may have another owner now. One whose step does not end (a thread) stays.
        """
        host = self._host
        going = self.shards.intersection(shards)
        self.shards -= going
        gone: set[int] = set()
        try:
            for actor in self._actors(going):
                actor.ask(Exit.STOPPED)
            self._wake_the_suspended(going)
            with trio.move_on_after(grace):
                await self._empty(going)
            for actor in self._actors(going):
                actor.drop()
            with trio.move_on_after(CUT):
                await self._empty(going)
            free = {shard for shard in going if not self.population[shard]}
            await host.committer.flushed(free)
            host.committer.let_go(free)
            gone = free
        finally:
            if kept := going - gone:
                self.take({shard: host.committer.epochs[shard] for shard in kept})  # it may have been raised
        return gone

    def lose(self, shards: Collection[int]) -> None:
        """Shards are not ours any more: stop what lives there, at once."""
        gone = self.shards.intersection(shards)
        self.shards -= gone
        self._host.committer.let_go(gone)
        for actor in self._actors(gone):
            actor.drop()
        self._wake_the_suspended(gone)

    def busy(self) -> Counter[int]:
        """How many steps are under way in each shard."""
        found: Counter[int] = Counter()
        for actor in self._host.actors.values():
            if actor.attempts:
                found[actor.run.shard] += len(actor.attempts)
        return found

    # ---- what the journal says

    def fenced(self, entries: Sequence[Fenced]) -> None:
        """Entries were refused because their shard has another owner; or had, if it is ours again."""
        self._host.metrics.fenced_appends.inc(len(entries))
        epochs = self._host.committer.epochs
        lost = {shard for shard, epoch in entries if shard in self.shards and epochs[shard] == epoch}
        if lost:
            log.warning("shards have another owner", shards=sorted(lost), node=self._host.node)
            self.lose(lost)
            for shard in sorted(lost):
                self.on_fenced(shard)

    # ---- what the engine asks

    def fence(self, shard: int) -> int:
        """The shard under whose fence the start of a run is written: its own, or one that is ours.

        Raises:
            Unavailable: this node has none.
        """
        if shard in self.shards:
            return shard
        if not self.shards:
            raise Unavailable("this node has no part of the work yet; another one has", retry_after=1)
        return next(iter(self.shards))

    def id_for(self, options: StartOptions) -> str:
        """The id of a new run. One whose workflow id it becomes is such that the run lives here."""
        run_id = self._host.ids()
        if self.shared and self.shards and options.id is None:
            while shard_of(run_id) not in self.shards:
                run_id = self._host.ids()
        return run_id

    def placed(self, new: NewRun) -> NewRun:
        """The start of a run, as it has to be written for where it lives."""
        return new if new.run.shard in self.shards else starts.for_another_node(new)

    def submit(self, new: NewRun, journal: Sequence[Event], done: Callable[[Verdict], None]) -> None:
        """Have the start of a run written, and bring it to life, wherever that is; `done` is told after that.

        If the shard that vouches for it is lost meanwhile, another one does.

        Raises:
            Unavailable: this node has no shard.
        """
        placed, run = self.placed(new), new.run
        entry = Entry(run_id=run.run_id, shard=self.fence(run.shard), events=tuple(journal), new=placed)

        births = self._host.births
        births.starting()

        def told(verdict: Verdict) -> None:
            births.started()
            if verdict == FENCED and self.shared and self.shards:
                self.submit(new, journal, done)
                return
            if isinstance(verdict, Written):
                self._host.began(placed.run, entry.events)
            done(verdict)

        self._host.committer.submit(entry, told)

    def check_room(self, new: NewRun) -> None:
        """Whether a start may be accepted for a run that lives on another node.

        Raises:
            Unavailable: that one has no room.
        """
        if self.owner_is_full(new.run.shard):
            self._host.metrics.starts_rejected.inc()
            raise Unavailable("the node on which the run would live has no room for it just now", retry_after=5)

    async def some(self) -> None:
        """Wait until this node has any shard, but not for long."""
        if not self.shards:
            if self._came.is_set():
                self._came = trio.Event()
            with trio.move_on_after(FIRST_WAIT):
                await self._came.wait()

    def _actors(self, shards: Collection[int]) -> list[Actor]:
        return [actor for actor in self._host.actors.values() if actor.run.shard in shards]

    def _wake_the_suspended(self, shards: Collection[int]) -> None:
        for suspension in list(self._host.suspended.values()):
            if suspension.shard in shards:
                suspension.over.set()

    async def _empty(self, shards: Collection[int]) -> None:
        while any(self.population[shard] for shard in shards):  # noqa: ASYNC110 -- a life ends more often than this
            await trio.sleep(GLANCE)
