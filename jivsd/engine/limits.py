"""How much may go on at once, in all and of one workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jivsd.authoring.workflows import Workflow


class Own(msgspec.Struct, frozen=True):
    """The limits of one workflow; None leaves what its code says, and where that says nothing there is none."""

    active_runs: int | None = None
    running_steps: int | None = None


class Limits(msgspec.Struct, frozen=True):
    """The limits of a daemon, and those of workflows that the configuration gives instead of their code's."""

    active_runs: int = 10_000
    running_steps: int = 2_000
    workflows: dict[str, Own] = {}

    def runs_of(self, workflow: Workflow[..., Any]) -> int | None:
        """How many runs of a workflow may be active, if it has a limit of its own."""
        given = self.workflows.get(workflow.name)
        return workflow.active_runs if given is None or given.active_runs is None else given.active_runs

    def steps_of(self, workflow: Workflow[..., Any]) -> int | None:
        """How many steps of a workflow may run at once, if it has a limit of its own."""
        given = self.workflows.get(workflow.name)
        return workflow.running_steps if given is None or given.running_steps is None else given.running_steps
