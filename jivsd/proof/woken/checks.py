"""What must hold of what was noted in a migration's target; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RIGHT: Final = re.compile(r"jivsd migration (?:claim|epoch (\d+)), fence (\d+)")


class Line(NamedTuple):
    """A transaction that has written for a run, in the order of their commits."""

    node: str
    """Who has connected: each node does it as a user of its own."""
    said: str
    """By what right, as the session's name says."""
    run: str


def stale(lines: Iterable[Line], shards: Mapping[str, int], owners: Mapping[tuple[int, int], str]) -> list[str]:
    """What is wrong with what was written into a target: a sentence each, none if all is well.

    Args:
        lines: what was written.
        shards: where each run lives.
        owners: the node to which the journal has given a shard under an epoch: which is the fence of what lives there.
    """
    found: list[str] = []
    highest: dict[str, tuple[int, str]] = {}
    for node, said, run in lines:
        right = _RIGHT.fullmatch(said)
        if right is None:
            found.append(f"{node} has written for run {run} without a right: {said!r}")
            continue
        fence = int(right[2])
        owner = owners.get((shards[run], fence))
        if owner != node:
            found.append(f"{node} has written for run {run} by fence {fence}, which was {owner or 'nobody'}'s")
        last, by = highest.get(run, (fence, node))
        if fence < last:
            found.append(
                f"{node} has written for run {run} by fence {fence} after {by} had gone on with it by fence {last}"
            )
        else:
            highest[run] = fence, node
    return list(dict.fromkeys(found))
