"""Keeping what a node has: its row and its keys are renewed; what cannot be renewed in time is lost.

A node that cannot reach Redis says in its row that it holds its shards by that row alone, before its keys are over, so
that nobody takes them. When Redis is back it sets its keys first, and says then that they hold. (DESIGN.md section 6.)
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import trio

from jivsd import logs
from jivsd.cluster.leases import LeasesAway
from jivsd.cluster.trust import Trust, boottime
from jivsd.store.api import StoreError
from jivsd.store.sharing import NOTHING, POSTGRESQL, REDIS, NameTaken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from jivsd.cluster.leases import Leases
    from jivsd.metrics import Metrics
    from jivsd.store.sharing import Sharing

log = logs.get(__name__)

RENEW_KEYS: Final = 1 / 3
RENEW_ROW: Final = 1 / 4
"""Parts of a lease after which it is renewed."""
ANSWER: Final = 1 / 4
"""Parts of the lease within which Redis has to answer: what comes later is of little use."""
AWAY: Final = 1 / 2
"""Parts of the lease without an answer after which a node holds its shards by its row: before others take them."""
TICK: Final = 0.5
"""The longest time between two looks, in seconds."""
FAREWELL: Final = 2.0
"""Seconds for giving everything up at the end."""


class Times(NamedTuple):
    """How long what is good, in seconds."""

    lease: float = 5.0
    """Keys in Redis."""
    postgresql_lease: float = 20.0
    """A node's row."""
    handover: float = 3.0
    """What steps under way get to end, when their shard goes to another node."""


class Shardholder(Protocol):
    """Where shards live: the engine."""

    on_fenced: Callable[[int], None]
    """Called when the journal has said that a shard has another owner."""

    def take(self, epochs: Mapping[int, int]) -> None:
        """These are ours from now on, under these epochs: bring back what lives there."""
        ...

    async def hand_over(self, shards: Collection[int], grace: float) -> set[int]:
        """Let shards go: when it returns, nothing of those that it returns lives here, or is written here any more.

        Steps under way get `grace` seconds to end. Those that it does not return stay here.
        """
        ...

    def lose(self, shards: Collection[int]) -> None:
        """Shards are not ours any more: stop what lives there, at once."""
        ...

    def busy(self) -> Mapping[int, int]:
        """How many steps are under way in each shard."""
        ...


class Keeper:
    """What a node has, and the tasks that keep it."""

    def __init__(
        self,
        name: str,
        sharing: Sharing,
        holder: Shardholder,
        leases: Leases | None,
        times: Times,
        *,
        metrics: Metrics,
        full: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = boottime,
    ) -> None:
        """Prepare.

        Args:
            name: of the node.
            sharing: what the database knows.
            holder: where shards live.
            leases: locks on shards in Redis; None: there is no Redis.
            times: how long what is good.
            metrics: to count in.
            full: whether the node takes no starts from outside just now.
            now: seconds by a clock that nobody sets.
        """
        self.name = name
        self.held: dict[int, int] = {}
        """The shards that are ours, and their epochs; those included that are being handed over."""
        self.moving: dict[int, trio.CancelScope | None] = {}
        """Shards that are being handed over, and how to stop that."""
        self.given: set[int] = set()
        """Shards that have been handed over since whoever looks began to."""
        self.by = NOTHING
        """What our shards are held by, as our row says."""
        self.leaving = False
        self.tick = min(TICK, (times.postgresql_lease if leases is None else times.lease) / 10)
        """Seconds between two looks."""
        self._sharing = sharing
        self._holder = holder
        self._leases = leases
        self._times = times
        self._metrics = metrics
        self._full = full
        self._now = now
        self._trust = Trust(times.lease, times.postgresql_lease)
        self._row = trio.Lock()
        self._keys = trio.Lock()
        """Held while keys are renewed or given up: what is given up must not be renewed by a request on its way."""
        self._answered = now()
        """When Redis was asked the last time that it answered."""
        self._unwanted: set[int] = set()
        """Shards whose keys may be ours without need."""
        self._ending = trio.Event()
        self._troubled = False
        self._said_full = False

    @property
    def is_good(self) -> bool:
        """Whether the row is renewed in time."""
        return self._trust.row > self._now()

    # ---- the child

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what the node has until `end` is called; then give it up and leave.

        Raises:
            NameTaken: another node has this one's name, and has lived while this one did not.
        """
        await self._beat_or_say()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beats)
            nursery.start_soon(self._guard)
            if self._leases is not None:
                nursery.start_soon(self._renewals, self._leases)
            task_status.started()
            await self._ending.wait()
            nursery.cancel_scope.cancel()
        with suppress(StoreError), trio.move_on_after(FAREWELL):
            await self.give_up(set(self.held))
            await self._sharing.leave()

    def end(self) -> None:
        """Have `run` end."""
        self._ending.set()

    # ---- for the one that decides which shards are ours

    async def beat(self, by: str) -> None:
        """Renew the row, in which is said what shards are held by from now on. Raises StoreError."""
        async with self._row:
            asked, full = self._now(), self._full()
            lease = self._times.postgresql_lease
            await self._sharing.beat(lease, by=by, leaving=self.leaving, full=full)
            if by != self.by:
                log.info("shards are held by something else from now on", by=by, before=self.by or "nothing")
            self.by, self._said_full = by, full
            self._trust.renewed_row(asked)
            self._troubled = False

    async def keep_word(self) -> None:
        """Say at once that there is no room for starts any more, or is again. Raises StoreError."""
        if self._full() != self._said_full:
            await self.beat(self.by)

    async def join(self) -> None:
        """Say that the node takes shards. Raises StoreError."""
        await self.beat(POSTGRESQL if self._leases is None or await self.keys(()) is None else REDIS)

    async def keys(self, shards: Collection[int]) -> Collection[int] | None:
        """Of which shards somebody has the key; None: that is not known just now."""
        if self._leases is None:
            return None
        asked = self._now()
        try:
            with trio.fail_after(self._times.lease * ANSWER):
                found = await self._leases.holders(shards or (0,))
        except (LeasesAway, trio.TooSlowError):
            return None
        self._answered = max(asked, self._answered)
        return found

    async def claim(self, shards: Mapping[int, int]) -> None:
        """Take shards that are free, seen at these epochs, and have them brought to life. Raises StoreError."""
        wanted = set(shards)
        if self.by == REDIS and self._leases is not None:
            wanted = await self._take_keys(self._leases, wanted)
        if not wanted:
            return
        try:
            taken = await self._sharing.claim({shard: shards[shard] for shard in wanted})
        except StoreError:
            await self._release_keys(wanted)
            raise
        except BaseException:
            self._unwanted |= wanted
            raise
        self.held |= taken
        self._metrics.leases_held.set(len(self.held))
        if taken:
            log.info("shards taken", shards=sorted(taken), node=self.name)
            self._holder.take(taken)
            self._check()
        if missed := wanted - taken.keys():
            await self._release_keys(missed)

    async def hand_over(self, shards: Collection[int]) -> set[int]:
        """Let shards go; return those that are anybody's now. Lost ones among them are lost, whatever is under way."""
        going = {shard for shard in shards if shard in self.held and shard not in self.moving}
        gone: set[int] = set()
        try:
            with trio.CancelScope() as scope:
                self.moving |= dict.fromkeys(going, scope)
                gone = await self._holder.hand_over(going, self._times.handover)
            self.moving |= dict.fromkeys(going)
            if lost := going - self.held.keys():
                self._holder.lose(lost)
            gone &= self.held.keys()
            await self.give_up(gone)
        finally:
            self.given |= going
            for shard in going:
                del self.moving[shard]
        return gone

    async def give_up(self, shards: Collection[int]) -> None:
        """Shards, of which nothing lives here, are anybody's from now on."""
        epochs = {shard: self.held.pop(shard) for shard in shards}
        self._metrics.leases_held.set(len(self.held))
        if not epochs:
            return
        await self._release_keys(set(epochs))
        await self._sharing.release(epochs)

    def lose(self, shards: Collection[int], why: str) -> None:
        """Shards are not ours any more: stop what lives there."""
        lost = [shard for shard in shards if self.held.pop(shard, None) is not None]
        if not lost:
            return
        log.warning("shards lost", shards=sorted(lost), why=why, node=self.name)
        self._metrics.lease_lost.inc(len(lost))
        self._metrics.leases_held.set(len(self.held))
        self._unwanted.update(lost)
        going = {shard: scope for shard in lost if (scope := self.moving.get(shard)) is not None}
        for scope in going.values():
            scope.cancel()
        self._holder.lose([shard for shard in lost if shard not in going])

    # ---- the tasks

    async def _beats(self) -> None:
        while True:
            await trio.sleep(self.tick if self._troubled else self._times.postgresql_lease * RENEW_ROW)
            await self._beat_or_say()

    async def _beat_or_say(self) -> None:
        try:
            await self.beat(self.by)
        except NameTaken:
            self.lose(list(self.held), "another node has this one's name")
            raise
        except StoreError as error:
            self._trouble("the node's lease cannot be renewed", error)

    async def _guard(self) -> None:
        while True:
            await trio.sleep(self.tick / 2)
            self._check()

    def _check(self) -> None:
        """Lose what could not be renewed in time."""
        now = self._now()
        over = [shard for shard in self.held if self._trust.until(shard, self.by) <= now]
        if over:
            self.lose(over, "its lease could not be renewed in time")

    async def _renewals(self, leases: Leases) -> None:
        while True:
            try:
                good = await self._renew(leases)
            except NameTaken:
                raise
            except StoreError as error:
                self._trouble("it cannot be said what shards are held by", error)
                good = False
            await trio.sleep(self._times.lease * RENEW_KEYS if good else self.tick)

    async def _renew(self, leases: Leases) -> bool:
        """Renew the keys; return whether Redis has answered."""
        async with self._keys:
            shards, asked = set(self.held), self._now()
            try:
                with trio.fail_after(self._times.lease * ANSWER):
                    mine = await leases.hold(shards) if shards else set[int]()
                    if not shards:
                        await leases.holders((0,))
            except (LeasesAway, trio.TooSlowError):
                mine = None
        if mine is None:
            if self.by == REDIS and self._now() - self._answered > self._times.lease * AWAY:
                await self.beat(POSTGRESQL)
            return False
        self._answered = asked
        self._trust.renewed_keys(mine, asked)
        if self.by == REDIS:
            self.lose((shards - mine) & self.held.keys(), "another node has its lock")
        elif self.by == POSTGRESQL and self.held.keys() <= mine:
            await self.beat(REDIS)
        if unwanted := self._unwanted - self.held.keys():
            await self._release_keys(unwanted)
        return True

    async def _take_keys(self, leases: Leases, shards: set[int]) -> set[int]:
        async with self._keys:
            asked = self._now()
            self._unwanted -= shards
            try:
                with trio.fail_after(self._times.lease * ANSWER):
                    mine = await leases.hold(shards)
            except (LeasesAway, trio.TooSlowError):
                self._unwanted |= shards
                return set()
        self._trust.renewed_keys(mine, asked)
        return mine

    async def _release_keys(self, shards: set[int]) -> None:
        self._trust.forget(shards)
        if self._leases is None:
            return
        async with self._keys:
            with suppress(LeasesAway), trio.move_on_after(self._times.lease * ANSWER):
                await self._leases.release(shards)
                self._unwanted -= shards

    def _trouble(self, what: str, error: StoreError) -> None:
        """Say once in a row what goes wrong."""
        (log.debug if self._troubled else log.warning)(what, why=str(error), node=self.name)
        self._troubled = True
