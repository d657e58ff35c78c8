"""Mending: a failed run is tried again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from jivsd.engine.admission import nothing
from jivsd.engine.api import Conflict
from jivsd.engine.reset import held, reset
from jivsd.records import ENDED, Run, Status
from jivsd.store.api import NewRun

if TYPE_CHECKING:
    from jivsd.engine.admission import Admission
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking


FAILED: Final = ENDED - {Status.COMPLETED, Status.CONTINUED}
"""What can be retried."""


class Mending:
    """Retries of the runs of a host."""

    def __init__(self, host: Host, looking: Looking, admission: Admission) -> None:
        self._host = host
        self._looking = looking
        self._admission = admission

    async def retry(self, ref: str, by: str) -> Run:
        """See `Engine.retry`."""
        self._admission.check()
        run = await self._looking.show(ref)
        if run.status is Status.CONTINUED and (following := await self._host.store.continued(run.run_id)) is not None:
            what = f"goes on in run {following.run_id}, which is {following.status}"
            remedy = "; retry that one" if following.status in FAILED else ""
            raise Conflict(f"run {run.run_id} {what}{remedy}", run_id=following.run_id)
        if run.status not in FAILED:
            raise Conflict(f"run {run.run_id} is {run.status}; only a failed one is retried", run_id=run.run_id)
        self._host.quarantine.check(run.workflow)
        workflow = await self._looking.code_of(run)
        events = await self._host.store.events(run.run_id)
        now, gate = self._host.clock.now(), self._host.gate
        new, journal = await reset(workflow, run, events, run_id=self._host.ids(), now=now, by=by)
        arrive = partial(gate.arrive, workflow.name)
        if not gate.enter(workflow):
            arrive = nothing
            new, journal = held(new, journal)
        await self._admission.commit(NewRun(new), journal, arrive)
        return new
