"""Who should have which shards: from any state, whoever comes and goes, all end with an even share, and rest."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jivsd.cluster.plan import Moves, moves, shares

NAMES = ["a", "b", "c", "d", "e"]


class World:
    """Nodes and shards. A shard of a dead node is free; what is handed over is free at once."""

    def __init__(self, owners, alive):
        self.owners = dict(enumerate(owners))
        self.takers = dict.fromkeys(alive)
        self.held = {name: {shard for shard, owner in self.owners.items() if owner == name} for name in alive}
        self.moved = 0

    def plan(self, me, seen=None):
        owners, takers = seen or (self.owners, self.takers)
        free = {shard for shard, owner in owners.items() if owner not in self.held}
        return moves(me, takers=list(takers), owners=owners, free=free, held=self.held.get(me, set()), busy={})

    def seen(self):
        return dict(self.owners), dict(self.takers)

    def do(self, me, planned):
        for shard in planned.claim:
            if self.owners[shard] not in self.held or self.owners[shard] == me:  # the database gives it to one
                self.moved += self.owners[shard] != me
                self.owners[shard] = me
                self.held[me].add(shard)
        for shard in planned.hand_over:
            self.owners[shard] = ""
            self.held[me].discard(shard)

    def settle(self):
        """Let everybody act in turn until nobody has anything to do; return how many rounds that took."""
        for rounds in range(20):
            for name in self.held.keys() - self.takers.keys():
                if not self.held[name]:
                    del self.held[name]  # it has left
            plans = {name: self.plan(name) for name in self.held}
            if all(planned == Moves([], []) for planned in plans.values()):
                return rounds
            for name in self.held:
                self.do(name, self.plan(name))
        raise AssertionError("it does not come to rest")

    def check(self):
        assert all(owner in self.takers for owner in self.owners.values())
        counts = Counter(self.owners.values())
        assert max(counts[name] for name in self.takers) - min(counts[name] for name in self.takers) <= 1


owners = st.lists(st.sampled_from(["", *NAMES, "dead"]), min_size=1, max_size=20)
alive = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


@given(owners, alive)
def test_from_any_state_it_comes_to_rest_with_even_shares_and_few_moves(owners, alive):
    world = World(owners, alive)
    counts = dict.fromkeys(alive, 0) | {name: len(shards) for name, shards in world.held.items()}
    wanted = shares(counts, len(owners))
    assert sum(wanted.values()) == len(owners)
    least = sum(max(0, wanted[name] - counts[name]) for name in alive)
    assert world.settle() <= 4
    world.check()
    assert world.moved == least


@given(owners, alive, st.data())
def test_nodes_come_and_go_and_act_on_what_was_so_a_moment_ago(owners, alive, data):
    world = World(owners, alive)
    views = {name: world.seen() for name in NAMES}
    for _ in range(data.draw(st.integers(0, 25))):
        name = data.draw(st.sampled_from(NAMES))
        match data.draw(st.sampled_from(["act", "act", "look", "come", "leave", "die"])):
            case "act" if name in world.held:
                planned = world.plan(name, views[name])
                if name not in views[name][1]:
                    assert planned.claim == [], "who is leaving takes nothing"
                for shard in planned.claim:
                    owner = views[name][0][shard]
                    assert owner == name or owner not in world.held, "what a live node has is not claimed"
                assert set(planned.hand_over) <= world.held[name]
                world.do(name, planned)
            case "look":
                views[name] = world.seen()
            case "come":
                world.held.setdefault(name, set())
                world.takers[name] = None
            case "leave" if len(world.takers) > 1:
                world.takers.pop(name, None)
            case "die" if len(world.takers) > 1:
                world.takers.pop(name, None)
                world.held.pop(name, None)
            case _:
                pass
    world.settle()
    world.check()


def test_those_go_first_in_which_the_least_is_under_way():
    owners = dict.fromkeys(range(6), "a")
    planned = moves("a", takers=["a", "b"], owners=owners, free=set(), held=set(owners), busy={0: 2, 1: 1, 3: 5})
    assert planned == Moves([], [2, 4, 5])
    leaving = moves("a", takers=["b"], owners=owners, free=set(), held=set(owners), busy={0: 2, 1: 1, 3: 5})
    assert leaving == Moves([], [2, 4, 5, 1, 0, 3])
    assert moves("a", takers=[], owners=owners, free=set(), held=set(owners), busy={}) == Moves([], [])


def test_what_i_own_without_having_it_is_claimed_before_anything_else():
    owners = {0: "a", 1: "a", 2: "a", 3: ""}
    planned = moves("a", takers=["a", "b"], owners=owners, free={3}, held={0}, busy={})
    assert planned.claim == [1, 2], "whatever my share is"


def test_all_who_see_the_same_take_different_shards():
    owners = dict.fromkeys(range(10), "")
    taken = [moves(me, takers=NAMES, owners=owners, free=set(owners), held=set(), busy={}).claim for me in NAMES]
    assert sorted(shard for claim in taken for shard in claim) == list(range(10))
