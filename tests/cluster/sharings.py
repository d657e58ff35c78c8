"""A database that nodes share, without the database: for tests in which time jumps."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import trio

from jivsd.records import SHARDS
from jivsd.store.api import StoreAway
from jivsd.store.postgres.sharing import ANSWER
from jivsd.store.sharing import Member, NameTaken, Owner, View


class Database:
    """What is in it. `now` is its clock, in seconds."""

    def __init__(self, now, shards=SHARDS):
        self.now = now
        self.owners = {shard: Owner(shard, 0, "") for shard in range(shards)}
        self.rows = {}
        """Node to instance, joined_at, until and the rest of its row."""
        self.cut = set()
        """Nodes that cannot reach it, and are told so at once."""
        self.deaf = set()
        """Nodes of which it hears nothing."""
        self.mute = set()
        """Nodes that hear nothing of it. It does what they ask first; then they need a connection, and get none."""
        self.moves = Counter()
        """How often each shard was claimed."""

    def sharing(self, node):
        return Way(self, node)


class Way:
    """A node's way to the database. That nothing comes back is found out when the driver's patience is over."""

    def __init__(self, database, node):
        self._database = database
        self._node = node
        self._sharing = MemorySharing(database, node)

    def __getattr__(self, name):
        async def ask(*arguments, **options):
            answer = None
            if self._node not in self._database.deaf:
                answer = await getattr(self._sharing, name)(*arguments, **options)
            if self._node in self._database.deaf | self._database.mute:
                self._database.deaf.add(self._node)
                await trio.sleep(ANSWER)
                raise StoreAway("the database does not answer in time")
            return answer

        return ask


class MemorySharing:
    """Keeps the contract `Sharing`."""

    def __init__(self, database, node):
        self._database = database
        self._node = node
        self._instance = str(uuid4())
        self._claims = {}

    async def beat(self, lease, *, by, leaving, full):
        now = self._reach()
        instance, joined_at, *_ = self._database.rows.get(self._node, (self._instance, int(now * 1e6)))
        if instance != self._instance:
            raise NameTaken(f"another node of the name {self._node} lives")
        self._database.rows[self._node] = (instance, joined_at, now + lease, by, leaving, full)

    async def view(self):
        now = self._reach()
        members = [
            Member(node, instance, joined_at, until - now, by, leaving, full, "1")
            for node, (instance, joined_at, until, by, leaving, full) in sorted(self._database.rows.items())
        ]
        return View(list(self._database.owners.values()), members)

    async def claim(self, shards):
        now, owners = self._reach(), self._database.owners
        taken = {shard: epoch + 1 for shard, epoch in shards.items() if owners[shard].epoch == epoch}
        for shard, epoch in taken.items():
            owners[shard] = Owner(shard, epoch, self._node, int(now * 1e6))
            self._database.moves[shard] += 1
        self._claims |= taken
        return taken

    async def release(self, shards):
        self._reach()
        owners = self._database.owners
        for shard, epoch in shards.items():
            mine = owners[shard].node == self._node and self._claims.get(shard) == owners[shard].epoch
            if mine and owners[shard].epoch >= epoch:
                owners[shard] = owners[shard]._replace(node="")

    async def leave(self):
        self._reach()
        if self._database.rows.get(self._node, (None,))[0] == self._instance:
            del self._database.rows[self._node]

    def _reach(self):
        if self._node in self._database.cut:
            raise StoreAway("the database is away")
        return self._database.now()
