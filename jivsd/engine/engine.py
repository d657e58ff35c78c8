"""The engine: a front of few lines over its parts. Doors call its methods.

Runs live on the host (`jivsd.engine.host`); admission lets them in, messages reach them, looking answers questions
about them, mending helps those that cannot go on.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jivsd.engine import bulk
from jivsd.engine.acting import Acting
from jivsd.engine.admission import Admission
from jivsd.engine.adoption import Adoption
from jivsd.engine.api import EngineStatus, PluginState, StartOptions, Which, WorkflowInfo
from jivsd.engine.deciding import Deciding
from jivsd.engine.looking import Looking
from jivsd.engine.mending import Mending
from jivsd.engine.messages import Messages
from jivsd.engine.plugins import Plugins
from jivsd.engine.tidying import Tidying
from jivsd.engine.updating import Updating
from jivsd.records import IncidentState
from jivsd.store.api import StoreError
from jivsd.store.sharing import ALONE, Member, NodeState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio import TaskStatus

    from jivsd.cluster.circles import Circle
    from jivsd.engine.api import (
        Act,
        Acted,
        Acts,
        Answer,
        GroupAction,
        GroupDecision,
        Incidents,
        Locks,
        Moves,
        NewStart,
        Outbox,
        Receipt,
        Reloaded,
        Start,
        StartResult,
        Switched,
        Timeline,
        Updated,
        Why,
    )
    from jivsd.records import Incident, IncidentGroup, Progress, Run
    from jivsd.store.api import RunFilter, Runs
    from jivsd.store.statistics import Statistics

NO_OPTIONS = StartOptions()
ALL = Which()


VERSION: Final = version("jivsd")
COUNTED_WITHIN: Final = 1.0
"""Seconds that a scrape waits for the database."""


class Engine(Tidying):
    """All open runs of this node and what can be asked of them.

    `ref` is a run id, or "workflow:workflow_id" for its open run or else its newest. Every method raises
    `jivsd.engine.api.EngineError`s that people can read; NotFound where there is nothing of the name.
    """

    @cached_property
    def _looking(self) -> Looking:
        return Looking(self)

    @cached_property
    def _admission(self) -> Admission:
        return Admission(self)

    @cached_property
    def _messages(self) -> Messages:
        return Messages(self, self._looking)

    @cached_property
    def _updating(self) -> Updating:
        return Updating(self, self._looking, self._messages)

    @cached_property
    def _mending(self) -> Mending:
        return Mending(self, self._looking, self._admission)

    @cached_property
    def _acting(self) -> Acting:
        return Acting(self, self._looking, self._messages, self._mending)

    @cached_property
    def _reloading(self) -> Plugins:
        return Plugins(self)

    @cached_property
    def _deciding(self) -> Deciding:
        return Deciding(self, self._looking)

    @cached_property
    def _adoption(self) -> Adoption:
        return Adoption(self, self._looking)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Host.run`."""
        self.forwarding.handlers |= {
            "switch": self._messages.switch_here,
            "terminate": self._messages.terminate_here,
            "decide": self._deciding.decide_for,
            "adopt": self._adoption.move_here,
        }
        await super().run(task_status=task_status)

    # ---- starting

    async def start(self, workflow: str, input: bytes, options: StartOptions = NO_OPTIONS, *, by: str = "") -> Start:
        """Start a run; when this returns, it is durable.

        Raises:
            NotFound: no such workflow. Invalid: the input or an option does not fit. Conflict: the workflow id is
            open, the key belongs to another input, the lock is held. Gone. Unavailable.
        """
        return await self._admission.start(workflow, input, options, by)

    async def start_many(self, wanted: Sequence[NewStart], *, by: str = "") -> list[StartResult]:
        """Start runs, each by itself; return what became of each, in order. Those accepted are durable then.

        Those for which there is no room wait for it together, and are refused in the end.
        """
        return await bulk.start_many(self, wanted, by)

    # ---- messages

    async def signal(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, by: str = ""
    ) -> Receipt:
        """Send a signal; when this returns, it is durable and will be applied once.

        Raises:
            NotFound (no such run, or its code takes no signal of that name), Conflict (ended), Invalid (the payload
            does not fit), Unavailable.
        """
        return await self._messages.signal(ref, name, payload, message_id, by)

    async def update(
        self, ref: str, name: str, payload: bytes, *, message_id: str | None = None, wait: float = 0, by: str = ""
    ) -> Updated:
        """Send an update, and wait up to so many seconds for its answer; when this returns, the update is durable.

        Sent again with the same message id, it is not applied again: the answer is the first one's, as soon as there
        is one, also after the run has ended.

        Raises:
            NotFound: no such run or update. Invalid: the payload does not fit, or the validator refuses it.
            UpdateFailed: its handler raised. Conflict: the run has ended, or ended before it answered. Gone.
            Unavailable.
        """
        return await self._updating.update(ref, name, payload, message_id, wait, by)

    async def cancel(self, ref: str, *, by: str, reason: str = "", message_id: str | None = None) -> Run:
        """Ask a run to cancel: it compensates and ends CANCELLED. Asked again with one message id, it is asked once."""
        return await self._messages.cancel(ref, by, reason, message_id)

    async def terminate(self, ref: str, *, by: str, reason: str = "") -> Run:
        """End a run without compensating."""
        return await self._messages.terminate(ref, by, reason)

    async def pause(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Let running steps end and start nothing more. Raises Conflict when the run is paused already."""
        return await self._messages.switch(ref, by, reason, paused=True)

    async def resume(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Go on. Raises Conflict when the run is not paused; of two at once, one succeeds."""
        return await self._messages.switch(ref, by, reason, paused=False)

    async def act_on(self, act: Act, refs: Sequence[str], *, by: str, dry_run: bool = False) -> list[Acted]:
        """Do the same to some runs, each by itself; return what came of each, in order."""
        return await self._acting.on_named(act, refs, by, dry_run=dry_run)

    async def act_on_all(
        self,
        act: Act,
        where: RunFilter,
        *,
        by: str,
        limit: int = 100,
        cursor: str | None = None,
        dry_run: bool = False,
    ) -> Acts:
        """Do the same to a page of the runs of a filter, for a few seconds at most; the answer says where to go on.

        Only those are looked at to which it can be done at all: a retry looks at failed runs, a pause at open ones
        that are not paused, and so on. A retry leaves out what a later run of the same workflow id has made good.

        Raises:
            Invalid: the filter names only statuses to which it cannot be done.
        """
        return await self._acting.on_page(act, where, by, limit, cursor, dry_run=dry_run)

    async def pause_all(
        self, workflow: str | None = None, *, by: str, reason: str = "", cursor: str | None = None
    ) -> Switched:
        """Pause all open runs (of a workflow), for a few seconds at most; the answer says where to go on.

        Those too that are started by runs that are paused only later. Runs that others start afterwards are not held:
        for that a workflow is quarantined.
        """
        return await self._acting.switch_all(workflow, by, reason, cursor, paused=True)

    async def resume_all(
        self, workflow: str | None = None, *, by: str, reason: str = "", cursor: str | None = None
    ) -> Switched:
        """Let all paused runs (of a workflow) go on, for a few seconds at most; the answer says where to go on."""
        return await self._acting.switch_all(workflow, by, reason, cursor, paused=False)

    # ---- looking

    async def show(self, ref: str) -> Run:
        """The row of a run."""
        return await self._looking.show(ref)

    async def runs(self, where: RunFilter, limit: int = 50, cursor: str | None = None) -> Runs:
        """A page of runs, newest first."""
        return await self.store.runs(where, limit, cursor)

    async def timeline(self, ref: str, after: int = 0, limit: int = 100) -> Timeline:
        """A page of a run's events, those with a seq above `after`."""
        return await self._looking.timeline(ref, after, limit)

    async def result(self, ref: str, timeout: float) -> Run:
        """The run once it has ended, or as it stands after `timeout` seconds."""
        return await self._looking.result(ref, timeout)

    async def query(self, ref: str, name: str, payload: bytes = b"null") -> Answer:
        """Ask a run: the live one, or a throwaway replay of its journal. Activates nothing.

        A run that was continued as new answers as it stood at its end, though messages to it go to the run in which it
        goes on: who wants the answer of that one asks "workflow:workflow id".

        Raises:
            NotFound: no such run or query. Invalid: the payload does not fit, or the query's code raised.
        """
        return await self._looking.query(ref, name, payload)

    async def why(self, ref: str) -> Why:
        """What a run waits for."""
        return await self._looking.why(ref)

    async def progress(self, ref: str) -> list[Progress]:
        """How far the steps of a run have said that they are, with heartbeats; by path, none of those that settled.

        Of a run that is not in memory: what was written last.
        """
        return await self._looking.progress(ref)

    async def outbox(self, after: int = 0, limit: int = 100, topic: str | None = None) -> Outbox:
        """A page of what runs have published with `ctx.emit`, in the order in which it was recorded."""
        return await self._looking.outbox(after, limit, topic)

    async def lock_queues(
        self, key: str | None = None, limit: int = 50, cursor: str | None = None, *, waiters: int = 20
    ) -> Locks:
        """Who holds lock keys (or one) and who waits for them, so many of each; and who waits for whom in a circle."""
        return await self._looking.lock_queues(key, limit, cursor, waiters)

    async def lock_circles(self, since: int) -> list[Circle]:
        """Runs that have waited for one another's locks since a time (microseconds), and will for ever."""
        return await self._looking.lock_circles(since)

    async def statistics(self, since: int, workflow: str | None = None) -> Statistics:
        """What has become of the runs of all workflows, or of one, since a time (microseconds), and how many are open.

        Raises:
            NotFound: there is no such workflow, and no run of one.
        """
        found = await self.store.statistics(since, self.clock.now(), workflow)
        if workflow is not None and not found.items:
            self.workflow(workflow)
        return found

    def workflows(self) -> list[WorkflowInfo]:
        """The workflow types that new runs can have."""
        return [
            WorkflowInfo(
                name=workflow.name,
                plugin=plugin.name,
                code_hash=workflow.code_hash,
                description=workflow.description,
                input_schema=workflow.signature.schema(),
                signals=sorted({*workflow.signals, *workflow.messages}),
                updates=sorted(workflow.updates),
                queries=sorted(workflow.queries),
                lock_key=workflow.lock_key,
                timeout=workflow.timeout,
                active_runs=self.gate.limits.runs_of(workflow),
                running_steps=self.gate.limits.steps_of(workflow),
                quarantined=held.incident_id if (held := self.quarantine.of(workflow.name)) else None,
            )
            for plugin in self.code.plugins
            for workflow in plugin.workflows.values()
        ]

    async def status(self) -> EngineStatus:
        """The daemon in one record."""
        counts = await self.store.counts()
        del counts["unread"]
        return EngineStatus(
            node=self.node,
            version=VERSION,
            started_at=self.started_at,
            store=self.store_url,
            incidents=counts.pop("incidents", 0),
            paused=counts.pop("paused", 0),
            runs=counts,
            actors=len(self.actors),
            steps_running=self.slots.used,
            limits=self.gate.states(),
            journal_pending=self.committer.pending,
            store_away=self.committer.away,
            plugins=self._plugins(),
            children=self.children(),
        )

    async def scrape(self) -> bytes:
        """What Prometheus scrapes, with what the database counts as far as it can be asked now."""
        with trio.move_on_after(COUNTED_WITHIN), suppress(StoreError):
            self.gauges.counted(await self.store.counts())
        return self.metrics.render()

    async def nodes(self) -> list[NodeState]:
        """The nodes that have the database, and the shards of each."""
        if self.neighbours is not None:
            return await self.neighbours.nodes()
        me = Member(self.node, "", self.started_at, inf, ALONE, self.stopping, full=False, version=VERSION)
        epochs = self.committer.epochs
        return [NodeState(self.node, me, [(one, epochs[one], self.started_at) for one in sorted(self.holding.shards)])]

    def _plugins(self) -> list[PluginState]:
        loaded = [PluginState(one.name, one.code_hash, sorted(one.workflows)) for one in self.code.plugins]
        return [*loaded, *(PluginState(one.plugin, "", [], str(one)) for one in self.code.problems)]

    # ---- code

    async def reload_plugins(self, *, by: str) -> Reloaded:
        """Load the plugins again, for new runs; open runs stay on the code that they began with.

        A plugin that cannot be used as it is now is an incident, and its version in use stays. New migrations are
        applied.

        Raises:
            Unavailable: the store is away; nothing has changed.
        """
        return await self._reloading.reload(by)

    async def adopt_code(
        self,
        plugin: str,
        which: Which = ALL,
        *,
        by: str,
        dry_run: bool = False,
        additions: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Moves:
        """Move open runs of a plugin to its newest code, where that does what theirs has done (rule 13); a page.

        Old and new code are run over the journal of each and must ask for the same commands (path, kind, hash of the
        arguments), which must stand in the same state. Can be repeated; runs that are moved already are left out.

        Args:
            plugin: its name.
            which: only these runs.
            by: who says so; it is recorded.
            dry_run: only say what would become of each.
            additions: also move runs for which the new code asks for more, as long as all else is the same; that is
                then started.
            limit: the most runs of a page.
            cursor: the `next` of the page before.

        Raises:
            NotFound: no such plugin or run. Conflict: the one run has ended or is not of the plugin.
        """
        return await self._adoption.adopt(
            plugin, which, dry_run=dry_run, additions=additions, limit=limit, cursor=cursor, by=by
        )

    # ---- mending

    async def retry(self, ref: str, *, by: str, reason: str = "") -> Run:
        """Reset a failed run to its last good event: a new run with the same workflow id.

        Raises:
            Conflict: it has not ended, or has completed, or its workflow id is open again.
        """
        return await self._mending.retry(ref, by)

    async def incidents(
        self,
        state: str | None = IncidentState.OPEN,
        ref: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        fingerprint: str | None = None,
    ) -> Incidents:
        """A page of incidents, newest first."""
        return await self._deciding.incidents(state, ref, limit, cursor, fingerprint)

    async def incident_groups(self, state: str | None = IncidentState.OPEN, limit: int = 100) -> list[IncidentGroup]:
        """Incidents by fingerprint, those that were seen last first."""
        return await self._deciding.groups(state, limit)

    async def incident(self, incident_id: str) -> Incident:
        """One incident."""
        return await self._deciding.incident(incident_id)

    async def acknowledge_incident(self, incident_id: str, *, by: str, why: str = "") -> Incident:
        """Say that somebody looks after an incident; it stays open. Raises Conflict when it is resolved."""
        return await self._deciding.decide("acknowledge", incident_id, None, by, why)

    async def retry_incident(self, incident_id: str, *, by: str, why: str) -> Incident:
        """Try again what an incident holds: the step afresh, or the run from its journal.

        A step that is stuck is stopped, and tried again if its policy says so; a quarantine is lifted.

        Raises:
            Conflict: it is resolved, or holds nothing that could be tried.
        """
        return await self._deciding.decide("retry", incident_id, None, by, why)

    async def resolve_incident(self, incident_id: str, value: bytes | None, *, by: str, why: str) -> Incident:
        """Decide an incident: `value` becomes the result of the step that it holds; others are closed as seen.

        Raises:
            Conflict: it is resolved, or the run cannot go on by a value. Invalid: the value does not fit the step.
        """
        return await self._deciding.decide("resolve", incident_id, value, by, why)

    async def skip_incident(self, incident_id: str, *, by: str, why: str) -> Incident:
        """Let the run go on without the result of the step that an incident holds: it is None.

        Raises:
            Conflict: it is resolved, or holds no step. Invalid: the step's result type does not allow None.
        """
        return await self._deciding.decide("skip", incident_id, None, by, why)

    async def decide_group(
        self,
        fingerprint: str,
        action: GroupAction,
        value: bytes | None = None,
        *,
        by: str,
        why: str = "",
        limit: int = 1000,
    ) -> GroupDecision:
        """Do the same about up to `limit` open incidents of one fingerprint; the answer has a result for each.

        Raises:
            NotFound: there is none.
        """
        return await self._deciding.decide_group(fingerprint, action, value, by, why, limit)

    async def quarantine_workflow(self, workflow: str, *, by: str, why: str = "") -> Incident:
        """Refuse new starts of a workflow and let its open runs rest, until that is lifted.

        Raises:
            NotFound: there is no such workflow. Conflict: it is quarantined already.
        """
        return await self.quarantine.begin(workflow, by=by, why=why)

    async def lift_quarantine(self, workflow: str, *, by: str, why: str = "") -> Incident:
        """Let a workflow run again. Raises NotFound when it is not quarantined."""
        return await self.quarantine.lift(workflow, by=by, why=why)
