"""Circles: runs that wait for one another's locks, so that none of them ever goes on. A pure function finds them.

What is looked at are not runs but their tickets, because branches of one run go on by themselves: that a branch waits
keeps only those locks from being given back whose block it stands in, or that are the run's own. A lock is also kept
by a block in which a child run is waited for, if that one, or a child of its own, waits for a lock.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jivsd.store.lockbook import Claim, Kin, Tangle


class Link(NamedTuple):
    """A run waits for another one: for a lock (`key`) that it has or waits for before it, or for it to end (None)."""

    run_id: str
    key: str | None
    path: str
    on: str


class Circle(NamedTuple):
    """Runs that wait for one another, each for the next one. `tickets`: those by which it is recognised."""

    links: tuple[Link, ...]
    tickets: tuple[tuple[str, int], ...] = ()


def find(tangle: Tangle) -> list[Circle]:
    """The circles, a shortest one of each knot of tickets that wait for one another."""
    edges = _edges(tangle)
    found: list[Circle] = []
    for knot in _knots(edges):
        cycle = min((_shortest(edges, claim, knot) for claim in sorted(knot)), key=len)
        found.append(_circle(cycle, {one.run_id: one for one in tangle.kin}))
    return sorted(found, key=lambda circle: [_place(link) for link in circle.links])


def _edges(tangle: Tangle) -> dict[Claim, list[Claim]]:
    """What each ticket cannot do without: one that waits, those before it; one that holds, what its block waits for."""
    edges: dict[Claim, list[Claim]] = {}
    ahead: defaultdict[str, list[Claim]] = defaultdict(list)
    waiting: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in sorted(tangle.claims):
        edges[claim] = ahead[claim.key][-1:]
        ahead[claim.key].append(claim)
        if not claim.holds:
            waiting[claim.run_id].append(claim)
    parents = {one.run_id: one for one in tangle.kin}
    inside: defaultdict[str, list[tuple[str, Claim]]] = defaultdict(list)
    for run_id, claims in waiting.items():
        inside[run_id] += [(claim.path, claim) for claim in claims]
        child = parents.get(run_id)
        while child is not None:
            inside[child.parent] += [(child.path, claim) for claim in claims]
            child = parents.get(child.parent)
    for claim in edges:
        if claim.holds:
            edges[claim] += [other for path, other in inside[claim.run_id] if _keeps(claim.path, path)]
    return edges


def _keeps(held: str, path: str) -> bool:
    """Whether a lock is not given back as long as the code waits at a path: the run's own is not, nor one taken in the
    same branch, or in one that this branch has started."""
    branch = held.rpartition("/")[0]
    return not branch or path.startswith(f"{branch}/")


def _knots(edges: Mapping[Claim, Sequence[Claim]]) -> list[set[Claim]]:
    """The sets of tickets that can be reached from one another (Tarjan's algorithm, without recursion)."""
    order: dict[Claim, int] = {}
    low: dict[Claim, int] = {}
    stack: list[Claim] = []
    on_stack: set[Claim] = set()
    found: list[set[Claim]] = []
    for root in edges:
        if root in order:
            continue
        walk = [(root, iter(edges[root]))]
        while walk:
            claim, following = walk[-1]
            if claim not in order:
                order[claim] = low[claim] = len(order)
                stack.append(claim)
                on_stack.add(claim)
            for other in following:
                if other not in order:
                    walk.append((other, iter(edges[other])))
                    break
                if other in on_stack:
                    low[claim] = min(low[claim], order[other])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[claim])
                if low[claim] == order[claim]:
                    knot = _popped(stack, claim)
                    on_stack -= knot
                    if len(knot) > 1:
                        found.append(knot)
    return found


def _popped(stack: list[Claim], claim: Claim) -> set[Claim]:
    knot: set[Claim] = set()
    while claim not in knot:
        knot.add(stack.pop())
    return knot


def _shortest(edges: Mapping[Claim, Sequence[Claim]], start: Claim, knot: set[Claim]) -> list[Claim]:
    """A shortest way from a ticket back to itself."""
    came: dict[Claim, Claim] = {}
    line = deque([start])
    while line:
        claim = line.popleft()
        for other in edges[claim]:
            if other == start:
                way = [claim]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            if other in knot and other not in came:
                came[other] = claim
                line.append(other)
    raise AssertionError("a knot has no way back")


def _circle(cycle: Sequence[Claim], parents: Mapping[str, Kin]) -> Circle:
    """A circle in the words of runs, beginning with the first of them."""
    links: list[Link] = []
    for claim, following in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
        if not claim.holds:
            links.append(Link(claim.run_id, claim.key, claim.path, following.run_id))
        elif claim.run_id != following.run_id:
            links += _lineage(following.run_id, claim.run_id, parents)
    first = links.index(min(links, key=_place))
    tickets = sorted((claim.key, claim.ticket) for claim in cycle if not claim.holds)
    return Circle((*links[first:], *links[:first]), tuple(tickets))


def _place(link: Link) -> tuple[str, str, str, str]:
    """Where a link stands among others, also among those of its run that wait for a child, which have no key."""
    return link.run_id, link.key or "", link.path, link.on


def _lineage(run_id: str, ancestor: str, parents: Mapping[str, Kin]) -> Iterable[Link]:
    """From an ancestor down to a run: each waits for the next one's end."""
    links: list[Link] = []
    while run_id != ancestor:
        kin = parents[run_id]
        links.append(Link(kin.parent, None, kin.path, run_id))
        run_id = kin.parent
    return links[::-1]
