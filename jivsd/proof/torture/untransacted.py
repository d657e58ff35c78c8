"""Programs without transaction steps, for a store that has none yet."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from jivsd.proof.torture.programs import Scenario, draw


def draw_without(seed: int, number: int) -> Scenario:
    """The scenario of a number, in which a transaction step is an ordinary one, and a part under a lock a saga."""
    drawn = msgspec.json.decode(msgspec.json.encode(draw(seed, number)))
    return msgspec.convert(_changed(drawn), Scenario)


def _changed(value: Any) -> Any:
    if isinstance(value, list):
        return [_changed(one) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    found = {name: _changed(one) for name, one in cast("dict[str, Any]", value).items()}
    if found.get("do") == "lock":
        return {"do": "saga", "nodes": found["nodes"]}
    if found.get("do") == "ledger":
        doomed = found.pop("doomed", False)
        return {**found, "do": "work", **({"fails": 2, "attempts": 2} if doomed else {})}
    return found
