"""A typed client of the daemon's HTTP API, for trio.

    async with Client.connect() as client:
        start = await client.start("nap", 2.5, wait="10s")
        print(start.run.status)

Its methods are named like the engine's and return the same records.
"""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import msgspec
import trio

from jivsd import jsonguard
from jivsd.actclient import ActCalls
from jivsd.admin import incidentwire, lockwire, nodewire, publications, wire
from jivsd.asking import (
    PATIENCE,
    Body,
    ClientError,
    ConnectionLost,
    DaemonNotRunning,
    Kind,
    errno_of,
    json_of,
    understood,
)
from jivsd.clock import SECOND, Duration, as_datetime, microseconds
from jivsd.codeclient import CodeCalls
from jivsd.door import Door
from jivsd.engine.api import Answer, GroupDecision, PluginState, Receipt, StartOptions, StartResult, Updated
from jivsd.feedclient import FeedCalls
from jivsd.pruneclient import PruneCalls
from jivsd.records import ENDED, encode, new_id
from jivsd.statclient import StatisticsCalls
from jivsd.store.api import Plugin, RunFilter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

    from jivsd.asking import Parameters
    from jivsd.engine.api import (
        EngineStatus,
        GroupAction,
        Incidents,
        Locks,
        NewStart,
        Outbox,
        Start,
        Timeline,
        Why,
        WorkflowInfo,
    )
    from jivsd.records import Incident, IncidentGroup, Progress, Run
    from jivsd.store.api import Runs
    from jivsd.store.sharing import NodeState

BULK_PATIENCE: Final = 60.0
"""Seconds that a call with many starts may take."""
CLEAR_PATIENCE: Final = 3600.0
GROUP_PATIENCE: Final = 300.0
CONNECT_PATIENCE: Final = 5.0
POLL: Final = 30.0
"""Seconds that one request waits for a result; longer waits are several requests."""
REFUSED_PAUSE: Final = 0.2
"""Seconds before a look-up that nobody accepted is tried once more: the daemon may be taking up its socket."""


NO_OPTIONS: Final = StartOptions()


class Client(ActCalls, CodeCalls, FeedCalls, PruneCalls, StatisticsCalls):
    """A connection to a daemon; get one from `connect`.

    A `ref` is a run id, or "workflow:workflow_id" for the open run of that workflow id, or else its newest. Inputs,
    payloads and values are given as JSON in bytes or as anything that msgspec encodes.

    Every method raises `ClientError`, `DaemonNotRunning` or `ConnectionLost`.
    """

    def __init__(self, http: httpx.AsyncClient, place: str, remedy: str, door: Door | None = None) -> None:
        self._http = http
        self._door = door
        self._place = place
        self._remedy = remedy

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        data_dir: Path | str | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        by: str | None = None,
    ) -> AsyncGenerator[Client]:
        """Return a client of the daemon of a data folder (by default the user's own), or of the one at a URL.

        Args:
            data_dir: where the daemon's socket is.
            url: `http://host:port`, instead of a data folder.
            token: if the daemon asks for one.
            by: on whose behalf this program calls, for the record; on a socket the daemon knows the user anyway.

        Raises:
            ConfigError: the data folder's path is too long for a socket in it.
        """
        door = Door.of(data_dir, url, token)
        headers = {"Content-Type": "application/json", "Accept": "application/json", **door.headers}
        if by is not None:
            headers[wire.BY_HEADER] = by
        base = (url or "http://jivsd").rstrip("/") + wire.API
        transport = door.transport()
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers, trust_env=False) as http:
            yield cls(http, door.place, door.remedy, door)

    # ---- runs

    async def start(
        self,
        workflow: str,
        input: Any = None,
        options: StartOptions = NO_OPTIONS,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        wait: Duration | None = None,
    ) -> Start:
        """Start a run; when this returns, it is durable.

        Args:
            workflow: its name.
            input: as the workflow's parameters want it.
            options: what else may be said about a start.
            id: the workflow id, instead of the options' one.
            idempotency_key: a start with the same key and input is answered with the first one's run.
            wait: return only when the run has ended, or after this long.
        """
        named = {name: getattr(options, name) for name in StartOptions.__struct_fields__}
        if id is not None:
            named["id"] = id
        if idempotency_key is not None:
            named["idempotency_key"] = idempotency_key
        body = wire.StartBody(workflow=workflow, input=json_of(input), **named)
        seconds = 0.0 if wait is None else microseconds(wait) / SECOND
        deadline = trio.current_time() + seconds
        first = min(seconds, POLL)
        query = {"wait": _seconds(first)} if seconds else None
        start = (await self._post("/runs", wire.StartView, body, query=query, patience=PATIENCE + first)).record()
        left = deadline - trio.current_time()
        if left > 0 and seconds > POLL and start.run.status not in ENDED:
            run = await self.result(start.run.run_id, left)
            return msgspec.structs.replace(start, run=run)
        return start

    async def start_many(self, wanted: Iterable[NewStart]) -> list[StartResult]:
        """Start runs, each by itself; return what became of each, in order.

        They are sent in calls of up to 1,000; when one call fails, those before it have been made. With idempotency
        keys all can be sent again.
        """
        results: list[StartResult] = []
        for body in wire.bulks((one.workflow, json_of(one.input), one.options) for one in wanted):
            results += (await self._post("/runs/bulk", wire.BulkView, body, patience=BULK_PATIENCE)).items
        return results

    async def signal(self, ref: str, name: str, payload: Any = None, *, message_id: str | None = None) -> Receipt:
        """Send a signal; when this returns, it is durable. Sent again with the same message id, it is taken once."""
        body = wire.SignalBody(json_of(payload), message_id)
        return await self._post(f"{_run(ref)}/signals/{_segment(name, 'signal')}", Receipt, body)

    async def update(
        self, ref: str, name: str, payload: Any = None, *, message_id: str | None = None, wait: Duration = "1m"
    ) -> Updated:
        """Send an update and return with its answer, or after some time without (see `answered`).

        Sent again with the same message id, it is applied once and answered as it was.

        Raises:
            ClientError: code "invalid" or "update_failed": it was refused, or failed.
        """
        body = wire.SignalBody(json_of(payload), message_id or new_id())
        deadline = trio.current_time() + microseconds(wait) / SECOND
        path = f"{_run(ref)}/updates/{_segment(name, 'update')}"
        first: Updated | None = None
        while True:
            seconds = min(max(deadline - trio.current_time(), 0.0), POLL)
            query = {"wait": _seconds(seconds)}
            updated = await self._post(path, Updated, body, query=query, patience=PATIENCE + seconds)
            first = first or updated
            if updated.answered or trio.current_time() >= deadline:
                return msgspec.structs.replace(updated, duplicate=first.duplicate)

    async def query(self, ref: str, name: str, payload: Any = None) -> Answer:
        """Ask a run a question; an ended one answers too, as it stood at its end.

        So does one that was continued as new: "workflow:workflow id" asks the run in which it goes on.
        """
        body = wire.QueryBody(json_of(payload))
        return await self._post(f"{_run(ref)}/queries/{_segment(name, 'query')}", Answer, body)

    async def pause(self, ref: str, *, reason: str = "") -> Run:
        """Let running steps end, and start nothing more."""
        return await self._act(ref, "pause", reason)

    async def resume(self, ref: str, *, reason: str = "") -> Run:
        """Let a paused run go on."""
        return await self._act(ref, "resume", reason)

    async def cancel(self, ref: str, *, reason: str = "") -> Run:
        """Ask a run to stop and to undo what it did."""
        return await self._act(ref, "cancel", reason)

    async def terminate(self, ref: str, *, reason: str = "") -> Run:
        """End a run; nothing is undone."""
        return await self._act(ref, "terminate", reason)

    async def retry(self, ref: str, *, reason: str = "") -> Run:
        """Reset a failed run to its last good event; returns the new run."""
        return await self._act(ref, "retry", reason)

    async def result(self, ref: str, timeout: float) -> Run:
        """The run when it has ended, or as it stands after `timeout` seconds."""
        deadline = trio.current_time() + timeout
        while True:
            wait = min(max(deadline - trio.current_time(), 0.0), POLL)
            query = {"wait": _seconds(wait)}
            view = await self._get(f"{_run(ref)}/result", wire.RunView, query, patience=PATIENCE + wait)
            if view.status in ENDED or trio.current_time() >= deadline:
                return view.record()

    async def show(self, ref: str) -> Run:
        """One run."""
        return (await self._get(_run(ref), wire.RunView)).record()

    async def progress(self, ref: str) -> list[Progress]:
        """How far the steps of a run have said that they are, with `ctx.heartbeat`; by path."""
        view = await self._get(_run(ref), wire.RunView)
        return [] if view.progress is msgspec.UNSET else [one.record() for one in view.progress]

    async def timeline(self, ref: str, after: int = 0, limit: int = 100, *, reveal: bool = False) -> Timeline:
        """A page of a run's events, those after the seq `after`; `reveal`: with what is secret, for admins."""
        query = {"after": str(after), "limit": str(limit), "reveal": "true" if reveal else None}
        return (await self._get(f"{_run(ref)}/timeline", wire.TimelinePage, query)).record()

    async def why(self, ref: str) -> Why:
        """What a run waits for."""
        return (await self._get(f"{_run(ref)}/why", wire.WhyView)).record()

    async def code(self, ref: str) -> Plugin:
        """The source of the plugin that a run goes by."""
        return await self._get(f"{_run(ref)}/code", Plugin)

    async def runs(self, where: RunFilter | None = None, limit: int = 50, cursor: str | None = None) -> Runs:
        """A page of runs, newest first, without their inputs and outputs: those are null and None here."""
        where = where or RunFilter()
        query = {
            "workflow": where.workflow,
            "id": where.workflow_id,
            "status": ",".join(where.statuses) or None,
            "attribute": [f"{name}={value}" for name, value in where.attributes.items()] or None,
            "open": "true" if where.open_only else None,
            "paused": None if where.paused is None else str(where.paused).lower(),
            "parent": where.parent,
            "correlation_id": where.correlation_id,
            "created_after": _text(where.created_after),
            "created_before": _text(where.created_before),
            "ended_after": _text(where.ended_after),
            "ended_before": _text(where.ended_before),
            "limit": str(limit),
            "cursor": cursor,
        }
        return (await self._get("/runs", wire.RunPage, query)).record()

    async def nodes(self) -> list[NodeState]:
        """The nodes that have the database, and the shards of each."""
        return [one.record() for one in (await self._get("/nodes", nodewire.NodePage)).items]

    # ---- outbox

    async def outbox(self, after: int = 0, limit: int = 100, topic: str | None = None) -> Outbox:
        """A page of what runs have published, of one topic or of all, with a number above `after`."""
        query = {"after": str(after), "limit": str(limit), "topic": topic}
        return (await self._get("/outbox", publications.OutboxPage, query)).record()

    async def clear_outbox(self, before: int) -> int:
        """Remove what was published before a time (microseconds); returns how many there were."""
        body = publications.ClearBody(before=wire.moment(before))
        return (await self._post("/outbox/prune", publications.Cleared, body, patience=CLEAR_PATIENCE)).removed

    # ---- locks

    async def lock_queues(
        self, key: str | None = None, limit: int = 50, cursor: str | None = None, *, waiters: int = 20
    ) -> Locks:
        """A page of the lock keys that somebody holds (or one), with those who wait; and who waits in a circle."""
        query = {"key": key, "limit": str(limit), "cursor": cursor, "waiters": str(waiters)}
        return (await self._get("/locks", lockwire.LockPage, query)).record()

    # ---- incidents

    async def incidents(
        self,
        state: str | None = "OPEN",
        ref: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        fingerprint: str | None = None,
    ) -> Incidents:
        """A page of incidents, of all runs, of one, or of one group; `state` None is any."""
        query = {
            "state": state or "ALL",
            "run": ref,
            "limit": str(limit),
            "cursor": cursor,
            "fingerprint": fingerprint,
        }
        return (await self._get("/incidents", incidentwire.IncidentPage, query)).record()

    async def incident_groups(self, state: str | None = "OPEN", limit: int = 100) -> list[IncidentGroup]:
        """Incidents by fingerprint, those that were seen last first."""
        query = {"state": state or "ALL", "limit": str(limit)}
        return (await self._get("/incidents/groups", incidentwire.GroupPage, query)).record()

    async def incident(self, incident_id: str) -> Incident:
        """One incident."""
        return (await self._get(_incident(incident_id), incidentwire.IncidentView)).record()

    async def acknowledge_incident(self, incident_id: str, *, reason: str = "") -> Incident:
        """Say that somebody looks after it; it stays open."""
        return await self._decide(_incident(incident_id), "acknowledge", reason)

    async def retry_incident(self, incident_id: str, *, reason: str = "") -> Incident:
        """Let what the incident holds be tried again."""
        return await self._decide(_incident(incident_id), "retry", reason)

    async def resolve_incident(self, incident_id: str, value: Any = msgspec.UNSET, *, reason: str = "") -> Incident:
        """Decide the incident: the value stands in for the result that could not be had; what holds none needs none."""
        body = incidentwire.ResolveBody(
            value=msgspec.UNSET if value is msgspec.UNSET else json_of(value), reason=reason
        )
        return (await self._post(f"{_incident(incident_id)}/resolve", incidentwire.IncidentView, body)).record()

    async def skip_incident(self, incident_id: str, *, reason: str = "") -> Incident:
        """Let the run go on without the step's result, if its type allows None."""
        return await self._decide(_incident(incident_id), "skip", reason)

    async def decide_group(
        self, fingerprint: str, action: GroupAction, value: Any = msgspec.UNSET, *, reason: str = ""
    ) -> GroupDecision:
        """Do the same about all open incidents of one fingerprint; the answer has a result for each."""
        body = incidentwire.ResolveBody(
            value=msgspec.UNSET if value is msgspec.UNSET else json_of(value), reason=reason
        )
        path = f"/incidents/groups/{_segment(fingerprint, 'group')}/{action}"
        return await self._post(path, GroupDecision, body, patience=GROUP_PATIENCE)

    async def quarantine_workflow(self, workflow: str, *, reason: str = "") -> Incident:
        """Refuse new starts of a workflow and let its open runs rest, until that is lifted."""
        return await self._decide(f"/workflows/{_segment(workflow, 'workflow')}", "quarantine", reason)

    async def lift_quarantine(self, workflow: str, *, reason: str = "") -> Incident:
        """Let a quarantined workflow run again."""
        return await self._decide(f"/workflows/{_segment(workflow, 'workflow')}", "lift", reason)

    # ---- the daemon

    async def workflows(self) -> list[WorkflowInfo]:
        """The workflow types that can be started."""
        return [view.record() for view in (await self._get("/workflows", wire.WorkflowPage)).items]

    async def plugins(self) -> list[PluginState]:
        """The plugins that the daemon found, those too that do not load."""
        return (await self._get("/plugins", wire.PluginPage)).items

    async def status(self) -> EngineStatus:
        """The daemon in one record."""
        return (await self._get("/status", wire.StatusView)).record()

    # ---- asking

    async def _decide(self, place: str, action: str, reason: str) -> Incident:
        return (await self._post(f"{place}/{action}", incidentwire.IncidentView, wire.ReasonBody(reason))).record()

    async def _act(self, ref: str, action: str, reason: str) -> Run:
        return (await self._post(f"{_run(ref)}/{action}", wire.RunView, wire.ReasonBody(reason))).record()

    def _name(self, text: str, what: str) -> str:
        return _segment(text, what)

    async def _post(
        self,
        path: str,
        kind: type[Kind],
        body: msgspec.Struct,
        *,
        query: Parameters | None = None,
        patience: float = PATIENCE,
    ) -> Kind:
        content = encode(body)
        if len(content) > jsonguard.MAX_BYTES:
            raise ClientError(
                413, "too_large", f"the request is too large: {len(content):,} bytes, at most {jsonguard.MAX_BYTES:,}"
            )
        request = self._request("POST", path, query, patience, content)
        try:
            return understood(await self._http.send(request), kind)
        except httpx.TransportError as error:
            raise self._explained(error) from None

    async def _get(
        self,
        path: str,
        kind: type[Kind],
        query: Parameters | None = None,
        *,
        patience: float = PATIENCE,
    ) -> Kind:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        request = partial(self._request, "GET", path, given, patience)
        try:
            try:
                response = await self._http.send(request())
            except httpx.ConnectError as error:
                if errno_of(error) != errno.ECONNREFUSED:
                    raise
                await trio.sleep(REFUSED_PAUSE)
                response = await self._http.send(request())
        except httpx.TransportError as error:
            raise self._explained(error) from None
        return understood(response, kind)

    def _request(
        self,
        method: str,
        path: str,
        query: Parameters | None,
        patience: float,
        content: bytes | None = None,
    ) -> httpx.Request:
        timeout = httpx.Timeout(patience, connect=CONNECT_PATIENCE)
        try:
            request = self._http.build_request(method, path, params=query, content=content, timeout=timeout)
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise ClientError(422, "invalid", "a name or a reference is not one that can be sent") from None
        if content is not None:
            request.stream = Body(content)
        return request

    def _explained(self, error: httpx.TransportError) -> Exception:
        number = errno_of(error)
        if number in (errno.EACCES, errno.EPERM):
            return ClientError(
                403, "forbidden", f"you may not use the {self._place}: its mode lets its owner and group do so"
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return DaemonNotRunning(f"no daemon answers at {self._place}; {self._remedy}")
        if isinstance(error, httpx.TimeoutException):
            return ClientError(503, "timeout", f"the daemon at {self._place} did not answer in time")
        return ConnectionLost(f"the daemon at {self._place} went away before it answered; {self._remedy}")


def _seconds(length: float) -> str:
    return f"{round(length * 1000)}ms"


def _text(at: int | None) -> str | None:
    return None if at is None else as_datetime(at).isoformat()


def _run(ref: str) -> str:
    return f"/runs/{_segment(ref, 'run')}"


def _incident(incident_id: str) -> str:
    return f"/incidents/{_segment(incident_id, 'incident')}"


def _segment(text: str, what: str) -> str:
    """A name as one segment of a path.

    Raises:
        ClientError: it is empty.
    """
    if not text:
        raise ClientError(404, "not_found", f"there is no {what} without a name")
    if not text.strip("."):
        return text.replace(".", "%2E")  # "." and ".." would be resolved before they are sent
    return quote(text, safe="", errors="replace")
