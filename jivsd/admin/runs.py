"""The routes of runs: start, look, and every action on one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Protocol
from urllib.parse import quote

import msgspec

from jivsd import attributes
from jivsd.admin.access import Role, need, only_looks
from jivsd.admin.actwire import FilterFields
from jivsd.admin.filtering import where_of
from jivsd.admin.http import (
    Route,
    answer,
    body_of,
    caller,
    once_key,
    operation,
    patience,
    query_of,
    wait_seconds,
)
from jivsd.admin.masks import Masks
from jivsd.admin.problems import Problem
from jivsd.admin.wire import (
    API,
    MAX_PAGE,
    QueryBody,
    ReasonBody,
    RunPage,
    RunView,
    SignalBody,
    StartBody,
    StartView,
    TimelinePage,
    WhyView,
)
from jivsd.engine.api import Answer, Receipt, Start, Timeline, Updated
from jivsd.records import ENDED, Run, Status, new_id
from jivsd.store.api import Plugin, Runs

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine

Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    wait: str | None = None


class ListQuery(FilterFields, frozen=True, forbid_unknown_fields=True):
    attribute: list[str] = msgspec.field(default_factory=list[str])
    limit: Limit = 50
    cursor: str | None = None


class TimelineQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    limit: Limit = 100
    reveal: bool = False


class Action(Protocol):
    """Pause, resume, cancel, terminate or retry: methods of the engine that have one shape."""

    async def __call__(self, ref: str, *, by: str, reason: str = "") -> Run: ...


class RunRoutes:
    """Answers everything under /runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._masks = Masks(engine)

    def routes(self) -> list[Route]:
        return [
            ("POST", "/runs", self.start),
            ("GET", "/runs", self.page),
            ("GET", "/runs/<ref>", self.show),
            ("GET", "/runs/<ref>/timeline", self.timeline),
            ("GET", "/runs/<ref>/result", self.result),
            ("GET", "/runs/<ref>/why", self.why),
            ("GET", "/runs/<ref>/code", self.code),
            ("POST", "/runs/<ref>/signals/<name>", self.signal),
            ("POST", "/runs/<ref>/updates/<name>", self.update),
            ("POST", "/runs/<ref>/queries/<name>", self.query),
            ("POST", "/runs/<ref>/pause", self.pause),
            ("POST", "/runs/<ref>/resume", self.resume),
            ("POST", "/runs/<ref>/cancel", self.cancel),
            ("POST", "/runs/<ref>/terminate", self.terminate),
            ("POST", "/runs/<ref>/retry", self.retry),
        ]

    @operation(query=WaitQuery, body=StartBody, required=True, answers={200: StartView, 202: StartView})
    async def start(self) -> Response:
        """Start a run: 202, or 200 if it has ended, which `?wait=5s` waits for."""
        seconds = wait_seconds(query_of(WaitQuery).wait)
        body = await body_of(StartBody)
        options = body.options()
        key = once_key(options.idempotency_key, "idempotency_key")
        if key != options.idempotency_key:
            options = msgspec.structs.replace(options, idempotency_key=key)
        start = await self._engine.start(body.workflow, bytes(body.input), options, by=caller())
        if seconds and (start.run.status not in ENDED or start.run.status is Status.CONTINUED):
            start = Start(await self._ended(start.run.run_id, seconds), start.existing)
        start = Start(await self._masks.run(start.run), start.existing)
        return answer(StartView.of(start), _status_of(start.run), {"Location": _location(start.run)})

    @operation(query=ListQuery, answers={200: RunPage})
    async def page(self) -> Response:
        """List runs, newest first."""
        query = query_of(ListQuery)
        where = where_of(query, _attributes(query.attribute))
        page = await self._engine.runs(where, query.limit, query.cursor)
        return answer(RunPage.of(Runs(await self._masks.runs(page.items), page.next)))

    @operation(answers={200: RunView})
    async def show(self, ref: str) -> Response:
        """Show a run, and how far its steps say that they are."""
        run = await self._engine.show(ref)
        progress = [] if run.status in ENDED else await self._engine.progress(run.run_id)
        progress = await self._masks.progress(run, progress)
        return answer(RunView.of(await self._masks.run(run), progress=progress))

    @operation(query=TimelineQuery, answers={200: TimelinePage})
    async def timeline(self, ref: str) -> Response:
        """List a run's events.

        `reveal=true` shows what is secret in them too, as a replay needs it; that takes the role admin.
        """
        query = query_of(TimelineQuery)
        page = await self._engine.timeline(ref, query.after, query.limit)
        if query.reveal:
            need(Role.ADMIN)
        elif page.items:
            page = Timeline(await self._masks.events(page.items[0].run_id, page.items), page.next)
        return answer(TimelinePage.of(page))

    @operation(query=WaitQuery, answers={200: RunView, 202: RunView})
    async def result(self, ref: str) -> Response:
        """The run: 200 if it has ended, 202 if it has not after `?wait=`."""
        run = await self._ended(ref, wait_seconds(query_of(WaitQuery).wait))
        return answer(RunView.of(await self._masks.run(run)), _status_of(run))

    @operation(answers={200: WhyView})
    async def why(self, ref: str) -> Response:
        """Say what a run waits for."""
        return answer(WhyView.of(await self._masks.why(await self._engine.why(ref))))

    @operation(answers={200: Plugin})
    async def code(self, ref: str) -> Response:
        """The source of the plugin that the run goes by."""
        run = await self._engine.show(ref)
        stored = await self._engine.store.plugin(run.code_hash)
        if stored is None:
            raise Problem(404, "not_found", f"the code of run {run.run_id} is not kept", {"code_hash": run.code_hash})
        return answer(stored)

    @operation(body=SignalBody, answers={202: Receipt})
    async def signal(self, ref: str, name: str) -> Response:
        """Send a message; the header Idempotency-Key is another way to give its id."""
        body = await body_of(SignalBody, required=False)
        message_id = once_key(body.message_id, "message_id")
        receipt = await self._engine.signal(ref, name, bytes(body.payload), message_id=message_id, by=caller())
        return answer(receipt, 202)

    @operation(query=WaitQuery, body=SignalBody, answers={200: Updated, 202: Updated})
    async def update(self, ref: str, name: str) -> Response:
        """Send an update: 200 with its answer, 202 if `?wait=` is over before there is one."""
        seconds = wait_seconds(query_of(WaitQuery).wait)
        body = await body_of(SignalBody, required=False)
        message_id = once_key(body.message_id, "message_id") or new_id()
        send = partial(self._engine.update, ref, name, bytes(body.payload), message_id=message_id, by=caller())
        updated = None
        with patience().wait():
            updated = await send(wait=seconds)
        updated = updated or await send()
        if updated.answered:
            value = await self._masks.answer(updated.run_id, "update", name, updated.value)
            updated = msgspec.structs.replace(updated, value=value)
        return answer(updated, 200 if updated.answered else 202)

    @only_looks
    @operation(body=QueryBody, answers={200: Answer})
    async def query(self, ref: str, name: str) -> Response:
        """Ask a run; it is not woken for that."""
        body = await body_of(QueryBody, required=False)
        found = await self._engine.query(ref, name, bytes(body.payload))
        return answer(Answer(await self._masks.answer(ref, "query", name, found.value), found.seq))

    @operation(body=ReasonBody, answers={200: RunView})
    async def pause(self, ref: str) -> Response:
        """Let running steps end and start nothing more."""
        return await self._act(self._engine.pause, ref)

    @operation(body=ReasonBody, answers={200: RunView})
    async def resume(self, ref: str) -> Response:
        """Let a paused run go on."""
        return await self._act(self._engine.resume, ref)

    @operation(body=ReasonBody, answers={200: RunView})
    async def cancel(self, ref: str) -> Response:
        """Ask a run to cancel: it compensates."""
        return await self._act(self._engine.cancel, ref)

    @operation(body=ReasonBody, answers={200: RunView})
    async def terminate(self, ref: str) -> Response:
        """End a run without compensating."""
        return await self._act(self._engine.terminate, ref)

    @operation(body=ReasonBody, answers={200: RunView})
    async def retry(self, ref: str) -> Response:
        """Reset a failed run to its last good event: a new run."""
        return await self._act(self._engine.retry, ref)

    async def _ended(self, ref: str, seconds: float) -> Run:
        """The run when it has ended, or as it stands when the time is up or the server is to stop."""
        with patience().wait():
            return await self._engine.result(ref, seconds)
        return await self._engine.result(ref, 0)

    async def _act(self, action: Action, ref: str) -> Response:
        body = await body_of(ReasonBody, required=False)
        run = await action(ref, by=caller(), reason=body.reason)
        return answer(RunView.of(await self._masks.run(run)), headers={"Location": _location(run)})


def _attributes(given: list[str]) -> dict[str, str]:
    try:
        return dict(attributes.parse(one) for one in given)
    except ValueError as error:
        raise Problem(422, "invalid", f"the field `attribute` does not fit: {error}", {"field": "attribute"}) from None


def _status_of(run: Run) -> int:
    return 200 if run.status in ENDED else 202


def _location(run: Run) -> str:
    return f"{API}/runs/{quote(run.run_id, safe='')}"
