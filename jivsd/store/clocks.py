"""A node's clock and the database's: how far apart they may be, and what is said when they are further.

Times in the journal, timers and deadlines go by the node's clock. So a node whose clock is off takes no shards over,
and somebody has to be told.
"""

from __future__ import annotations

from typing import Final

from jivsd.records import Incident, new_id

LIMIT: Final = 1.0
"""Seconds that the two may differ."""
KIND: Final = "clock"


def is_off(seconds: float) -> bool:
    """Whether the database's clock differs from the node's by too many seconds (ahead; negative: behind)."""
    return abs(seconds) > LIMIT


def sentence(node: str, seconds: float) -> str:
    """What is wrong, and what would be right."""
    how = "behind" if seconds > 0 else "ahead of"
    return f"the clock of node {node} is {abs(seconds):.1f} s {how} the database's: set both by NTP"


def incident(node: str, seconds: float, at: int) -> Incident:
    """The incident of a clock that is off; all of one node have one fingerprint."""
    details = {"error": "the clock differs from the database's", "seconds": round(seconds, 1)}
    return Incident(new_id(), KIND, sentence(node, seconds), at, path=node, details=details)


def fingerprint_of(node: str) -> str:
    """The fingerprint of the incidents of a node's clock."""
    return incident(node, 0, 0).fingerprint
