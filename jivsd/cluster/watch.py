"""What a node sees of the others over time: whose shards may be taken, and among whom they are shared.

FLUSHALL moves no shard: a key in Redis that is gone says something only after a time in which its owner would have set
it again, and only while the owner's row says that it is held by Redis. (DESIGN.md section 6.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jivsd.store.sharing import ALONE, NOTHING, POSTGRESQL, REDIS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jivsd.store.sharing import Member, View

GRACE: Final = 0.6
"""Parts of a lease for which a key has to be gone: more than a renewal takes, its first failure included."""
SILENCE: Final = 0.5
"""Parts of the lease in PostgreSQL after which nobody counts on a node that has not renewed its row."""


class Seen(NamedTuple):
    """What follows from a look."""

    free: set[int]
    """Shards that may be taken; what belongs to the node that looks is not among them."""
    takers: list[str]
    """Nodes that live and take shards."""


class _Pulse(NamedTuple):
    instance: str
    left: float
    at: float
    """When the row was seen renewed last, by the clock of whoever looks."""


class Watch:
    """The looks of one node."""

    def __init__(self, me: str, *, lease: float, postgresql_lease: float) -> None:
        """Begin.

        Args:
            me: who looks.
            lease: seconds that keys in Redis are good.
            postgresql_lease: seconds that a node's row is good.
        """
        self._me = me
        self._grace = lease * GRACE
        self._patience = lease
        self._silence = postgresql_lease * SILENCE
        self._pulses: dict[str, _Pulse] = {}
        self._dead: dict[str, float] = {}
        """Nodes that are dead unless their rows have been renewed since."""
        self._gone: dict[int, tuple[str, float]] = {}
        """Shards without a key: the owner, and since when."""

    def look(self, now: float, view: View, keys: Collection[int] | None) -> Seen:
        """Look once.

        Args:
            now: any clock that does not stand still.
            view: what the database says.
            keys: shards that somebody has a key of; None: that is not known.
        """
        members = {member.node: member for member in view.members}
        self._feel(now, members)
        free: set[int] = set()
        for shard, _, owner, _ in view.owners:
            if owner == self._me:
                self._gone.pop(shard, None)
            elif self._is_free(now, shard, members.get(owner), keys):
                free.add(shard)
        self._find_dead(view, free)
        return Seen(free, [node for node, member in members.items() if self._takes(now, member)])

    def _feel(self, now: float, members: Mapping[str, Member]) -> None:
        """Note whose row was renewed: a lease that has grown, by a clock that is the database's."""
        for node, member in members.items():
            last = self._pulses.get(node)
            renewed = last is None or last.instance != member.instance or member.left > last.left
            self._pulses[node] = _Pulse(member.instance, member.left, now if renewed or last is None else last.at)
        for node in self._pulses.keys() - members.keys():
            del self._pulses[node]
            self._dead.pop(node, None)

    def _find_dead(self, view: View, free: Collection[int]) -> None:
        """Who has shards that may all be taken is dead, until its row is renewed; it will have none in a moment."""
        keeping = {owner for shard, _, owner, _ in view.owners if shard not in free}
        for owner in {owner for _, _, owner, _ in view.owners} - keeping:
            if owner in self._pulses:
                self._dead[owner] = self._pulses[owner].at

    def _is_free(self, now: float, shard: int, owner: Member | None, keys: Collection[int] | None) -> bool:
        if owner is None:  # nobody, or somebody who has left
            self._gone.pop(shard, None)
            return True
        over = owner.left < 0
        if owner.by in (ALONE, POSTGRESQL):
            self._gone.pop(shard, None)
            return over
        if owner.by == REDIS and keys is None:
            self._gone.pop(shard, None)
            return over
        if keys is not None and shard in keys:
            self._gone.pop(shard, None)
            return False
        since = self._gone_since(now, shard, owner)
        return over or now - since > (self._patience if owner.by == NOTHING else self._grace)

    def _gone_since(self, now: float, shard: int, owner: Member) -> float:
        """Since when a shard has had no key; who has renewed the row since then is about to set it."""
        node, since = self._gone.get(shard, ("", now))
        if node != owner.node or (owner.by == REDIS and self._pulses[node].at > since):
            since = now
        self._gone[shard] = owner.node, since
        return since

    def _takes(self, now: float, member: Member) -> bool:
        if member.node == self._me:
            return not member.leaving and member.by in (REDIS, POSTGRESQL)
        renewed = self._pulses[member.node].at
        alive = member.left >= 0 and now - renewed <= self._silence and self._dead.get(member.node) != renewed
        return alive and not member.leaving and member.by in (REDIS, POSTGRESQL)
