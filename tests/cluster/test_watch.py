"""Whose shards may be taken, when, and among whom they are shared."""

from __future__ import annotations

import pytest

from jivsd.cluster.watch import Watch
from jivsd.store.sharing import ALONE, NOTHING, POSTGRESQL, REDIS, Member, Owner, View


def member(node, by, left=15.0, *, leaving=False, instance="1"):
    return Member(node, instance, 0, left, by, leaving, False, "1")


class Looks:
    """One node's looks at what `b` has: shard 0."""

    def __init__(self):
        self.watch = Watch("a", lease=5.0, postgresql_lease=20.0)

    def free(self, now, *members, owner="b", keys=()):
        return self.look(now, *members, owner=owner, keys=keys).free == {0}

    def look(self, now, *members, owner="b", keys=()):
        return self.watch.look(now, View([Owner(0, 1, owner)], list(members)), keys)


@pytest.fixture
def looks():
    return Looks()


def test_what_belongs_to_nobody_or_to_somebody_who_has_left_is_free(looks):
    assert looks.free(0, owner="")
    assert looks.free(0, owner="gone", keys=[0]), "an orphan key says nothing; who wants it has to set his own"
    assert not looks.free(0, owner="a"), "one's own is another matter"


def test_a_key_has_to_be_gone_for_longer_than_a_renewal_takes(looks):
    assert not looks.free(0, member("b", REDIS, 15), keys=[0])
    assert not looks.free(1, member("b", REDIS, 14))
    assert not looks.free(3.9, member("b", REDIS, 11))
    assert looks.free(4.1, member("b", REDIS, 10.9))
    assert not looks.free(4.2, member("b", REDIS, 10.8), keys=[0]), "it is set again"
    assert not looks.free(5, member("b", REDIS, 10))
    assert not looks.free(7.9, member("b", REDIS, 7))


def test_who_renews_its_row_lives_though_its_keys_are_gone(looks):
    assert not looks.free(0, member("b", REDIS, 15))
    assert not looks.free(2, member("b", REDIS, 19))
    assert not looks.free(4.9, member("b", REDIS, 16.1)), "counted from when it was renewed"
    assert looks.free(5.1, member("b", REDIS, 15.9))


def test_without_redis_the_row_counts(looks):
    assert not looks.free(0, member("b", POSTGRESQL, 0.1))
    assert looks.free(1, member("b", POSTGRESQL, -0.1))
    assert not looks.free(0, member("b", REDIS, 0.1), keys=None), "who cannot ask Redis knows nothing"
    assert not looks.free(9, member("b", REDIS, 0.1), keys=None)
    assert looks.free(9, member("b", REDIS, -0.1), keys=None)
    assert not looks.free(10, member("b", REDIS, -0.1), keys=[0]), "it has a key: it will be over in a moment"
    assert looks.free(10.1, member("b", REDIS, -0.2), keys=[])
    assert not looks.free(11, member("b", ALONE, 1))


def test_a_node_that_was_started_again_gets_a_moment_to_take_its_shards_back(looks):
    assert not looks.free(0, member("b", NOTHING, 6, instance="2"))
    assert not looks.free(4.9, member("b", NOTHING, 1, instance="2"))
    assert looks.free(5.1, member("b", NOTHING, 0.8, instance="2"))


def test_shards_are_shared_among_those_who_live_and_take_some(looks):
    me = member("a", REDIS, -1)
    others = [
        *(member("b", REDIS), member("c", POSTGRESQL), member("d", REDIS, leaving=True)),
        *(member("e", NOTHING), member("f", ALONE), member("g", REDIS, -0.1)),
    ]
    assert looks.look(0, me, *others, keys=[0]).takers == ["a", "b", "c"]


def test_nobody_counts_on_a_node_that_says_nothing_or_whose_shards_may_all_be_taken(looks):
    assert looks.look(0, member("b", REDIS, 19), member("c", REDIS, 19), keys=[0]).takers == ["b", "c"]
    seen = looks.look(9.9, member("b", REDIS, 18), member("c", REDIS, 9.1))
    assert (seen.takers, seen.free) == (["b", "c"], set())
    seen = looks.look(13, member("b", REDIS, 15), member("c", REDIS, 6))
    assert (seen.takers, seen.free) == ([], {0})
    assert looks.look(14, member("b", REDIS, 19), member("c", REDIS, 19), keys=[0]).takers == ["b", "c"]
