"""Carries out what was asked for in SQL, exactly once, in the order of the calls for each workflow id.

A request is a row that was committed together with whatever else its transaction did. Carrying it out and forgetting it
are two commits; a crash in between has it carried out again, to no effect: a start makes the run whose id the request
has, a signal and a cancellation have message ids. What cannot be carried out is put aside with an incident. They are
polled for: LISTEN does not work behind every pooler, and one look into an empty index costs little.
"""

from __future__ import annotations

from collections import ChainMap, Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import jsonguard, logs
from jivsd.clock import SECOND
from jivsd.engine import incidents
from jivsd.engine.api import EngineError, Invalid, Requested, StartOptions, Unavailable
from jivsd.jsonguard import BadJson
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from jivsd.engine.api import StartResult
    from jivsd.engine.engine import Engine
    from jivsd.records import Incident
    from jivsd.store.requests import Request

log = logs.get(__name__)

KEPT: Final = 24 * 60 * 60 * SECOND
"""Microseconds for which is remembered what became of requests that made nothing new."""
RUNS_FIRST: Final = 5.0
"""Seconds for which the recovery of runs goes first."""

Pair = tuple[str, str]
"""A workflow and a workflow id."""


class Config(msgspec.Struct, frozen=True):
    """How requests are looked for. Times in seconds."""

    page: int = 500
    """How many are under way at once."""
    busy: float = 0.02
    """The pause after there were some."""
    idle: float = 0.5
    """The pause after there were none, or the store was away."""
    forget: float = 3600.0
    """Between two times when those are forgotten of which nothing is to be done."""


class Done(msgspec.Struct, frozen=True):
    """A request was carried out. `instead`: the earlier run that answers a start under its idempotency key."""

    instead: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A request cannot be carried out as things are."""

    why: str
    code: str


LATER: Final = "later"
"""It cannot be carried out just now."""
Outcome = Done | Refusal | str


class RequestService:
    """Serves the requests of the shards that are this node's. A supervised child of the daemon."""

    def __init__(
        self,
        engine: Engine,
        config: Config | None = None,
        *,
        owned: Callable[[], Collection[int] | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            engine: who carries them out.
            config: how they are looked for.
            owned: says which shards are this node's (None: all); those of the engine by default.
        """
        self._engine = engine
        self._requests = engine.store.sql_requests
        self._config = config or Config()
        self._owned = owned or (lambda: engine.holding.wanted)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. What is under way then is carried out again, to no effect."""
        task_status.started()
        with trio.move_on_after(RUNS_FIRST):
            await self._engine.recovery.under_way.wait()
        away, forget_at = False, trio.current_time()
        while True:
            found = 0
            try:
                found = await self.run_once()
                if trio.current_time() >= forget_at:
                    await self._requests.forget(self._engine.clock.now() - KEPT)
                    forget_at = trio.current_time() + self._config.forget
                away = False
            except StoreError as error:
                if not away:
                    log.warning("requests cannot be carried out now; trying again", why=str(error))
                away = True
            await trio.sleep(self._config.busy if found else self._config.idle)

    async def run_once(self) -> int:
        """Carry out all that there is now; return how many are settled.

        Raises:
            StoreError: the database cannot be asked; what was carried out may be carried out again, to no effect.
        """
        settled, after = 0, 0
        resting: set[Pair] = set()
        while page := await self._requests.waiting(self._owned(), after, self._config.page):
            settled += await self._carry_out(page, resting)
            after = page[-1].number
            if len(page) < self._config.page:
                break
        return settled

    async def _carry_out(self, page: Sequence[Request], resting: set[Pair]) -> int:
        """Carry out a page: of each workflow id the first one, all of them at once, then the second ones, and so on.

        A workflow id for which something cannot be done now rests, so that what comes after it does not overtake it.
        """
        lines: dict[Pair, deque[Request]] = {}
        for request in page:
            pair = request.workflow, request.workflow_id
            if pair not in resting:
                lines.setdefault(pair, deque()).append(request)
        settled = 0
        while lines:
            wave = [line.popleft() for line in lines.values()]
            outcomes = await self._carry_out_wave(wave)
            await self._record(wave, outcomes)
            for request, outcome in zip(wave, outcomes, strict=True):
                pair = request.workflow, request.workflow_id
                if outcome is LATER:
                    resting.add(pair)
                else:
                    settled += 1
                if outcome is LATER or not lines[pair]:
                    del lines[pair]
        return settled

    async def _carry_out_wave(self, wave: Sequence[Request]) -> list[Outcome]:
        """Carry out requests of different workflow ids: starts together, the others beside each other."""
        found: dict[str, Outcome] = {}

        async def send(request: Request) -> None:
            found[request.id] = await self._tried(request, partial(self._send, request))

        async def start(requests: Sequence[Request]) -> None:
            found.update(await self._start(requests))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, [request for request in wave if request.kind == "start"])
            for request in wave:
                if request.kind != "start":
                    nursery.start_soon(send, request)
        return [found[request.id] for request in wave]

    async def _start(self, requests: Sequence[Request]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        wanted: dict[str, Requested] = {}
        for request in requests:
            try:
                wanted[request.id] = _wanted(request)
            except EngineError as error:
                found[request.id] = _refusal(error)
        if wanted:
            found |= await self._start_all(wanted)
        return found

    async def _start_all(self, wanted: Mapping[str, Requested]) -> dict[str, Outcome]:
        try:
            results = await self._engine.start_many(list(wanted.values()))
        except Exception as error:  # of somebody's code that computes a lock key, perhaps: the others go on
            if len(wanted) > 1:
                alone = [await self._start_all({id: one}) for id, one in wanted.items()]
                return dict(ChainMap(*alone))
            return {id: _failed(id, error) for id in wanted}
        return {id: _of_start(id, result) for id, result in zip(wanted, results, strict=True)}

    async def _send(self, request: Request) -> Outcome:
        payload, by = _json(request.payload, "the payload"), _by(request)
        ref = f"{request.workflow}:{request.workflow_id}"
        if request.kind == "signal":
            await self._engine.signal(ref, request.name, payload, message_id=request.key, by=by)
        else:
            reason = msgspec.json.decode(payload, type=str)
            await self._engine.cancel(ref, by=by, reason=reason, message_id=request.key)
        return Done()

    async def _tried(self, request: Request, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        try:
            return await act()
        except EngineError as error:
            return _refusal(error)
        except StoreError as error:
            log.info("a request has to wait", request=request.id, why=str(error))
            return LATER
        except Exception as error:
            return _failed(request.id, error)

    async def _record(self, wave: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
        """Forget what was carried out, put aside what was refused."""
        done: list[str] = []
        instead: dict[str, str] = {}
        refused: list[tuple[Request, Incident]] = []
        counted: Counter[tuple[str, str]] = Counter()
        now = self._engine.clock.now()
        for request, outcome in zip(wave, outcomes, strict=True):
            match outcome:
                case Done(None):
                    done.append(request.id)
                    counted[request.kind, "done"] += 1
                case Done(str(run_id)):
                    instead[request.id] = run_id
                    counted[request.kind, "done"] += 1
                case Refusal(why, code):
                    refused.append((request, incidents.refused_request(request, why, code, now)))
                    counted[request.kind, "refused"] += 1
                case _:
                    pass
        if done or instead:
            await self._requests.settle(done, instead)
        if refused:
            for incident in await self._requests.refuse(refused):
                log.error("incident", incident=incident.incident_id, what=incident.message)
        for labels, times in counted.items():
            self._engine.metrics.requests.labels(*labels).inc(times)


def _failed(id: str, error: Exception) -> Refusal:
    log.error("a request failed", request=id, exc_info=error)
    return Refusal(f"{type(error).__name__}: {error}", "error")


def _by(request: Request) -> str:
    return f"{request.by} (sql)"


def _json(data: bytes, what: str) -> bytes:
    try:
        jsonguard.check(data)
    except BadJson as error:
        raise Invalid(f"{what} is {error}" if error.code == "too_large" else f"{what}: {error}") from None
    return data


def _wanted(request: Request) -> Requested:
    """The start that was asked for. Raises Invalid."""
    try:
        options = msgspec.json.decode(_json(request.options, "options"), type=StartOptions)
    except msgspec.ValidationError as error:
        raise Invalid(f"options: {error}") from None
    options = msgspec.structs.replace(options, id=request.workflow_id, idempotency_key=request.key)
    input = msgspec.Raw(_json(request.payload, "the input"))
    return Requested(request.workflow, input, options, run_id=request.id, by=_by(request))


def _of_start(id: str, result: StartResult) -> Outcome:
    if result.result == "refused":
        return LATER if result.code == Unavailable.code else Refusal(result.why or "", result.code or "")
    return Done(None if result.run_id == id else result.run_id)


def _refusal(error: EngineError) -> Outcome:
    return LATER if isinstance(error, Unavailable) else Refusal(str(error), error.code)
