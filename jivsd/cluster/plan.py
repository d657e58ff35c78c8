"""Who should have which shards: a pure function of what a node sees. Every node decides for itself, by the same rule.

A node that has more than its share hands over what is above it; one that has less takes what is free. Shares differ by
one at most; the larger ones belong to those who have the most already, so that as few shards move as can be. All who
see the same take different shards; what two want to take all the same, the database gives to one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Set


class Moves(NamedTuple):
    """What a node is to do now."""

    claim: list[int]
    hand_over: list[int]
    """Those first in which the least is under way."""


def shares(owned: Mapping[str, int], shards: int) -> dict[str, int]:
    """How many shards each of some nodes should have, those first that have the most already."""
    base, extra = divmod(shards, len(owned))
    ranked = sorted(owned, key=lambda node: (-owned[node], node))
    return {node: base + (place < extra) for place, node in enumerate(ranked)}


def moves(
    me: str,
    *,
    takers: Collection[str],
    owners: Mapping[int, str],
    free: Set[int],
    held: Set[int],
    busy: Mapping[int, int],
) -> Moves:
    """What a node is to do.

    Args:
        me: the node.
        takers: the nodes among which the shards are shared: alive, and not leaving.
        owners: the node that owns each shard, as the database says; "" for those that are being handed over.
        free: shards that may be taken, whoever has owned them.
        held: shards that are mine, and live here. What I own besides, I took in another life, or lost: it is claimed
            again first, whatever my share.
        busy: how much is under way in shards that are held.
    """
    calm = sorted(held, key=lambda shard: (busy.get(shard, 0), shard))
    if me not in takers:
        return Moves([], calm if takers else [])
    mine = {shard for shard, owner in owners.items() if owner == me} | held
    owned = dict.fromkeys(takers, 0) | {me: len(mine)}
    for shard, owner in owners.items():
        if owner in owned and owner != me and shard not in free:
            owned[owner] += 1
    left = sorted(free - mine)
    claim = sorted(mine - held)
    share = shares(owned, len(owners))
    for node, wanted in share.items():
        count = max(0, wanted - owned[node])
        if node == me:
            claim += left[:count]
            break
        left = left[count:]
    return Moves(claim, calm[: max(0, owned[me] - share[me])])
