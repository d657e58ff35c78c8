"""Which runs a request means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.http import moment_of
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jivsd.admin.actwire import FilterFields


def where_of(said: FilterFields, attributes: Mapping[str, str]) -> RunFilter:
    """The filter that is meant.

    Raises:
        Problem: a time has no time zone (422).
    """
    return RunFilter(
        workflow=said.workflow,
        workflow_id=said.id,
        statuses=said.status,
        open_only=said.open,
        paused=said.paused,
        parent=said.parent,
        correlation_id=said.correlation_id,
        created_after=moment_of(said.created_after, "created_after"),
        created_before=moment_of(said.created_before, "created_before"),
        ended_after=moment_of(said.ended_after, "ended_after"),
        ended_before=moment_of(said.ended_before, "ended_before"),
        attributes=dict(attributes),
    )
