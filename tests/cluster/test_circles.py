"""Circles of runs that wait for one another: found, all of them, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jivsd.cluster.circles import Circle, Link, find
from jivsd.store.lockbook import Claim, Kin, Tangle


def tangle(*queues, kin=()):
    """Queues as texts: "k1: A B C" is a key, who holds it, and who waits; "A@load/lock" is at a path."""
    claims = []
    for queue in queues:
        key, names = queue.split(": ")
        for ticket, name in enumerate(names.split(), 1):
            run_id, _, path = name.partition("@")
            claims.append(Claim(key, ticket, run_id, path or f"lock {key}", ticket == 1))
    return Tangle(claims, list(kin))


def said(found):
    return [" ".join(f"{link.run_id}-{link.key or 'child'}->{link.on}" for link in circle.links) for circle in found]


def test_two_runs_that_take_two_locks_in_different_order():
    (circle,) = find(tangle("k1: A B", "k2: B A"))
    assert circle == Circle((Link("A", "k2", "lock k2", "B"), Link("B", "k1", "lock k1", "A")), (("k1", 2), ("k2", 2)))


def test_waiting_alone_is_no_circle():
    assert find(tangle("k1: A B C D", "k2: B E", "k3: C")) == []
    assert find(Tangle([], [])) == []


def test_longer_ones_and_several():
    assert said(find(tangle("k1: A C", "k2: B A", "k3: C B"))) == ["A-k2->B B-k3->C C-k1->A"]
    two = find(tangle("k1: A B", "k2: B A", "k3: C D", "k4: D C"))
    assert said(two) == ["A-k2->B B-k1->A", "C-k4->D D-k3->C"]


def test_who_waits_before_another_is_waited_for_too():
    """B is not first in k1, but A waits behind it there, and B waits for A."""
    assert said(find(tangle("k1: X B A", "k2: A B"))) == []
    assert said(find(tangle("k1: X B A", "k2: A X"))) == ["A-k1->B B-k1->X X-k2->A"]


def test_branches_of_a_run_that_do_not_keep_its_locks():
    both = tangle("k1: A@n[1]/lock B", "k2: B A@n[2]/lock")
    assert find(both) == []  # the first branch gives k1 back, whatever the second one waits for
    assert said(find(tangle("k1: A@n[1]/lock B", "k2: B A@n[1]/m[3]/lock"))) == ["A-k2->B B-k1->A"]
    assert said(find(tangle("k1: A@lock B", "k2: B A@n[2]/lock"))) == ["A-k2->B B-k1->A"]


def test_a_runs_own_lock_is_kept_by_all_its_branches():
    own, other = Claim("k", 1, "A", "", True), Claim("k", 2, "B", "lock", False)
    claims = [own, other, Claim("m", 1, "B", "n[1]/lock", True), Claim("m", 2, "A", "n[2]/lock", False)]
    assert find(Tangle(claims, [])) == []  # B gives m back, in a branch of its own
    claims[1] = other._replace(path="n[1]/lock#2")
    assert said(find(Tangle(claims, []))) == ["A-m->B B-k->A"]


def test_a_parent_that_waits_for_a_child_that_waits_for_its_lock():
    assert said(find(tangle("k: P C", kin=[Kin("C", "P", "child")]))) == ["C-k->P P-child->C"]
    grand = [Kin("C", "P", "child"), Kin("G", "C", "n[1]/child")]
    assert said(find(tangle("k: P G", kin=grand))) == ["C-child->G G-k->P P-child->C"]
    elsewhere = [Kin("C", "P", "n[2]/child")]
    assert find(tangle("k: P@n[1]/lock C", kin=elsewhere)) == []
    between = tangle("k: P Q", "m: Q C", kin=[Kin("C", "P", "child")])
    assert said(find(between)) == ["C-m->Q Q-k->P P-child->C"]


def test_a_run_that_stands_twice_in_a_circle_with_a_lock_and_with_a_child():
    twice = tangle("j: P@n[1]/lock C", "m: D P@n[1]/lock", "k: P@n[2]/lock D", kin=[Kin("C", "P", "n[2]/child")])
    assert said(find(twice)) == ["C-j->P P-m->D D-k->P P-child->C"]


PATHS = ("", "lock", "a/lock", "b/lock", "a/c/lock")


@st.composite
def tangles(draw):
    """Queues of up to five runs; each run has one ticket at most for a key, and children come after their parents."""
    runs = "ABCDE"
    claims = []
    for key in ("k1", "k2", "k3", "k4"):
        line = draw(st.lists(st.sampled_from(runs), unique=True, max_size=4))
        claims += [
            Claim(key, ticket, run, f"{draw(st.sampled_from(PATHS))}{key}", ticket == 1)
            for ticket, run in enumerate(line, 1)
        ]
    kin = [
        Kin(child, draw(st.sampled_from(runs[:place])), f"{draw(st.sampled_from(PATHS))}child")
        for place, child in enumerate(runs)
        if place and draw(st.booleans())
    ]
    return Tangle(claims, kin)


def branch(path):
    return path.split("/")[:-1]


def stuck(tangle):
    """What is left when everybody who can goes on: blocks are left, and those who waited enter and leave theirs, in
    which nothing has begun that waits already."""
    parents = {one.run_id: one for one in tangle.kin}
    left = sorted(tangle.claims)
    while True:
        first = {}
        for claim in left:
            first.setdefault(claim.key, claim)
        waits = []
        for claim in left:
            if first[claim.key] is not claim:
                waits.append((claim.run_id, claim.path))
                run = claim.run_id
                while run in parents:
                    waits.append((parents[run].parent, parents[run].path))
                    run = parents[run].parent
        free = [
            claim
            for claim in first.values()
            if not claim.holds
            or not any(
                run == claim.run_id and branch(path)[: len(branch(claim.path))] == branch(claim.path)
                for run, path in waits
            )
        ]
        if not free:
            return left
        left = [claim for claim in left if claim not in free]


@given(tangles())
def test_a_circle_is_found_exactly_when_not_everybody_can_go_on(tangle):
    found = find(tangle)
    assert bool(found) == bool(stuck(tangle))
    for circle in found:
        assert len(circle.links) >= 2 or circle.links[0].run_id == circle.links[0].on
        for link, following in zip(circle.links, (*circle.links[1:], circle.links[0]), strict=True):
            assert link.on == following.run_id
        assert set(circle.tickets) <= {(claim.key, claim.ticket) for claim in tangle.claims if not claim.holds}
