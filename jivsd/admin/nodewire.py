"""What the HTTP API and its client say to each other about nodes; see `jivsd.admin.wire`."""

from __future__ import annotations

from datetime import datetime
from math import inf, isfinite

from msgspec import Struct

from jivsd.clock import as_datetime, from_datetime
from jivsd.store.sharing import Member, NodeState


class ShardView(Struct, frozen=True):
    """A shard, its epoch, and since when the node has had it."""

    shard: int
    epoch: int
    since: datetime


class NodeView(Struct, frozen=True, kw_only=True):
    """A node. One that is gone, and whose shards nobody has taken yet, has only `node`, `shards` and `owned`."""

    node: str
    shards: list[int]
    since: datetime | None
    """When it joined."""
    by: str
    """What its shards are held by: redis, postgresql; alone: it does not share; or nothing yet, then it is empty."""
    lease_left: float | None
    """Seconds that its row is good; below 0: so long has it been over. None: there is none."""
    leaving: bool
    full: bool
    """Whether it takes no starts just now."""
    version: str
    instance: str
    owned: list[ShardView]

    @classmethod
    def of(cls, state: NodeState) -> NodeView:
        member = state.member
        left = member.left if member is not None and isfinite(member.left) else None
        return cls(
            node=state.node,
            shards=[shard for shard, _, _ in state.owned],
            since=as_datetime(member.joined_at) if member is not None else None,
            by=member.by if member is not None else "",
            lease_left=round(left, 1) if left is not None else None,
            leaving=member is not None and member.leaving,
            full=member is not None and member.full,
            version=member.version if member is not None else "",
            instance=member.instance if member is not None else "",
            owned=[ShardView(shard, epoch, as_datetime(since)) for shard, epoch, since in state.owned],
        )

    def record(self) -> NodeState:
        member = None
        if self.since is not None:
            left = self.lease_left if self.lease_left is not None else inf
            joined = from_datetime(self.since)
            member = Member(
                self.node, self.instance, joined, left, self.by, self.leaving, full=self.full, version=self.version
            )
        owned = [(one.shard, one.epoch, from_datetime(one.since)) for one in self.owned]
        return NodeState(self.node, member, owned)


class NodePage(Struct, frozen=True):
    """All nodes; there is no next page."""

    items: list[NodeView]
    next: None = None
