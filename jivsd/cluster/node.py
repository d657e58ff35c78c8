"""A node among others: it looks again and again who has which shards, takes its part, and gives up what is too much.

Three things make it: `watch` (what is seen of the others), `plan` (what follows from that) and `keeping` (what this
node has). The database decides whatever they do. (DESIGN.md section 6.)
"""

from __future__ import annotations

from sys import maxsize
from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.cluster import plan
from jivsd.cluster.watch import Watch
from jivsd.store.api import StoreAway, StoreError
from jivsd.store.sharing import NOTHING, NameTaken

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.cluster.keeping import Keeper, Shardholder, Times
    from jivsd.cluster.watch import Seen
    from jivsd.store.sharing import Sharing, View

log = logs.get(__name__)

NUDGE: Final = b"!"
"""What nodes tell each other when shards are free, or somebody has come or gone: look."""
REFUSED: Final = 5.0
"""Seconds before a node that may claim nothing (its clock is off) tries it again."""
KEPT: Final = 30.0
"""Seconds before a shard that could not be let go, as a step there does not end, is tried again: each time it rests."""


class Node:
    """Decides which shards are a node's."""

    def __init__(
        self,
        keeper: Keeper,
        sharing: Sharing,
        holder: Shardholder,
        times: Times,
        *,
        nudge: Callable[[], None] = lambda: None,
        now: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            keeper: what the node has.
            sharing: what the database knows.
            holder: where shards live.
            times: how long what is good.
            nudge: have all nodes look, at best effort.
            now: seconds by a clock that nobody sets.
        """
        self.view: View | None = None
        """What was seen last."""
        self._keeper = keeper
        self._sharing = sharing
        self._holder = holder
        self._times = times
        self._nudge = nudge
        self._now = now
        self._watch = Watch(keeper.name, lease=times.lease, postgresql_lease=times.postgresql_lease)
        self._owners: dict[int, str] = {}
        self._full: set[str] = set()
        self._woken = trio.Event()
        self._draining = False
        self._claim_again = 0.0
        self._kept: dict[int, float] = {}
        """Shards that could not be let go, and when that is tried again."""
        self._troubled = False
        self._nursery: trio.Nursery
        holder.on_fenced = self._fenced

    # ---- for everybody

    def owner(self, shard: int) -> str | None:
        """The node that owns a shard, as far as is known; None: nobody, or that is not known."""
        return self._keeper.name if shard in self._keeper.held else self._owners.get(shard) or None

    def is_full(self, node: str) -> bool:
        """Whether a node has said that it takes no starts just now."""
        return node in self._full

    def wake(self) -> None:
        """Look at once: something has changed."""
        self._woken.set()

    # ---- the child

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until `drain` is called; then hand over everything to those who stay, if there are any."""
        async with trio.open_nursery() as self._nursery:
            await self._look_or_say()
            task_status.started()
            while not self._draining:
                with trio.move_on_after(self._keeper.tick):
                    await self._woken.wait()
                self._woken = trio.Event()
                if not self._draining:
                    await self._look_or_say()
            await self._depart()

    def drain(self) -> None:
        """Have `run` end."""
        self._draining = True
        self.wake()

    # ---- looking

    async def _look_or_say(self) -> None:
        try:
            await self._look()
            self._troubled = False
        except NameTaken:
            raise
        except StoreError as error:
            (log.debug if self._troubled else log.warning)("it cannot be seen who has which shards", why=str(error))
            self._troubled = True

    async def _look(self) -> None:
        """Look once, and do what follows."""
        keeper = self._keeper
        if keeper.by == NOTHING:
            await keeper.join()
            self._nudge()
        if keeper.leaving and self._now() >= self._claim_again and await self._claim({}):
            keeper.leaving = False
            await keeper.beat(keeper.by)
            self._nudge()
        await keeper.keep_word()
        view, seen = await self._see()
        moves = self._moves(seen)
        if moves.claim:
            epochs = {owner.shard: owner.epoch for owner in view.owners}
            await self._claim({shard: epochs[shard] for shard in moves.claim})
        self._hand_over([shard for shard in moves.hand_over if shard not in self._kept])

    async def _see(self) -> tuple[View, Seen]:
        keeper = self._keeper
        keeper.given.clear()
        self.view = view = await self._sharing.view()
        self._owners = {owner.shard: owner.node for owner in view.owners}
        self._full = {member.node for member in view.members if member.full}
        lost = [shard for shard in keeper.held if self._owners[shard] != keeper.name]
        keeper.lose(lost, "another node has claimed it")
        others = [shard for shard, owner in self._owners.items() if owner not in ("", keeper.name)]
        keys = await keeper.keys(others)
        return view, self._watch.look(self._now(), view, keys)

    def _moves(self, seen: Seen) -> plan.Moves:
        keeper = self._keeper
        going = keeper.moving.keys() | keeper.given
        self._kept = {shard: again for shard, again in self._kept.items() if again > self._now()}
        return plan.moves(
            keeper.name,
            takers=[node for node in seen.takers if not (keeper.leaving and node == keeper.name)],
            owners={shard: "" if shard in going else owner for shard, owner in self._owners.items()},
            free=seen.free,
            held=keeper.held.keys() - keeper.moving.keys(),
            busy={**self._holder.busy(), **dict.fromkeys(self._kept, maxsize)},
        )

    async def _claim(self, shards: dict[int, int]) -> bool:
        """Claim shards. A node that may not (its clock is off) leaves them all to others until it may again."""
        keeper = self._keeper
        try:
            await (keeper.claim(shards) if shards else self._sharing.claim(shards))
        except StoreAway:
            raise
        except StoreError as error:
            log.error("this node may claim no shards", why=str(error), node=keeper.name)
            self._claim_again = self._now() + REFUSED
            if not keeper.leaving:
                keeper.leaving = True
                await keeper.beat(keeper.by)
            return False
        return True

    # ---- letting go

    def _hand_over(self, shards: list[int]) -> None:
        """Those first in which nothing is under way: they need not wait for the others."""
        busy = self._holder.busy()
        for group in ([one for one in shards if not busy.get(one)], [one for one in shards if busy.get(one)]):
            if group:
                self._nursery.start_soon(self._let_go, group)

    async def _let_go(self, shards: list[int]) -> None:
        try:
            gone = await self._keeper.hand_over(shards)
        except StoreError as error:
            log.warning("shards that were handed over could not be given up", why=str(error), shards=shards)
            return
        self._kept |= dict.fromkeys((set(shards) - gone) & self._keeper.held.keys(), self._now() + KEPT)
        if gone:
            log.info("shards handed over", shards=sorted(gone), node=self._keeper.name)
            self._nudge()

    async def _depart(self) -> None:
        """Hand over everything, if anybody is there who takes it."""
        self._keeper.leaving = True
        try:
            await self._keeper.beat(self._keeper.by)
            _, seen = await self._see()
        except StoreError as error:
            log.warning("shards are not handed over", why=str(error), node=self._keeper.name)
            return
        self._hand_over(self._moves(seen).hand_over)

    def _fenced(self, shard: int) -> None:
        self._keeper.lose([shard], "the journal says that it has another owner")
        self.wake()
