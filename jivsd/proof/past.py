"""Runs that have ended, as if a daemon had run them: rows, journals with right checksums, and what they left behind.

Several workflows and statuses, correlation ids, children, attributes, failures with their attempts, incidents that
somebody has resolved, published events. Those that completed replay on the code of `jivsd.proof.shop`.
"""

from __future__ import annotations

import time
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from jivsd import attributes
from jivsd.records import (
    AttemptFailed,
    Decision,
    Ended,
    ErrorRecord,
    Event,
    Incident,
    IncidentState,
    Kind,
    Options,
    Publication,
    Run,
    Started,
    Status,
    StepDone,
    StepFailed,
    encode,
    hash_of,
    shard_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKFLOWS: Final = ("sale", "mailing", "export", "invoice", "signup")
STATUSES: Final = (
    *((Status.COMPLETED,) * 900 + (Status.FAILED,) * 50 + (Status.COMPENSATED,) * 30),
    *((Status.CANCELLED,) * 15 + (Status.TERMINATED,) * 4 + (Status.TIMED_OUT,)),
)
UNSUCCESSFUL: Final = (Status.FAILED, Status.COMPENSATED)
REGIONS: Final = ("eu", "us", "asia")
CUSTOMERS: Final = 5000
DAY: Final = 24 * 3600 * 1_000_000
YEAR: Final = 365 * DAY
CODE: Final = "f111ed"

_ERROR: Final = ErrorRecord("ConnectionError", "no route to the warehouse")


class Past(NamedTuple):
    """A run that has ended, and what it left behind."""

    run: Run
    events: list[Event]
    incident: Incident | None
    publication: Publication | None

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        """Its attributes: run id, name, value as text."""
        for name, value in self.run.attributes.items():
            yield self.run.run_id, name, attributes.text(value)


def past(runs: int, steps: int, *, seed: int = 1, span: int = YEAR, code: str = CODE) -> Iterator[Past]:
    """So many runs, in the order in which they began, evenly over the last `span` microseconds.

    Every third that failed has had an incident, every tenth has published something, every fifth has attributes.
    """
    random = Random(seed)
    end = time.time_ns() // 1000
    parent: Run | None = None
    for number in range(runs):
        at = end - span + span * number // max(1, runs) - 60_000_000
        run = _run(number, at, random, parent if number % 10 == 1 else None, steps, code)
        if number % 10 == 0:
            parent = run
        incident = _incident(run, random) if run.status is Status.FAILED and number % 3 == 0 else None
        yield Past(run, _journal(run, steps, random), incident, _published(run) if number % 10 == 5 else None)


def chunks(items: Iterator[Past], size: int) -> Iterator[Sequence[Past]]:
    """So many at a time."""
    chunk: list[Past] = []
    for one in items:
        chunk.append(one)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _run(number: int, at: int, random: Random, parent: Run | None, steps: int, code: str) -> Run:
    run_id = _uuid7(at, random)
    workflow_id = f"{number:08}-{random.randrange(10**6):06}" if number % 2 else run_id
    status = random.choice(STATUSES)
    options = Options(correlation_id=f"batch-{number // 50}" if number % 4 == 0 else None)
    if parent is not None:
        options = msgspec.structs.replace(
            options, parent=parent.run_id, parent_path="part",
            parent_workflow=parent.workflow, parent_workflow_id=parent.workflow_id,
        )  # fmt: skip
    run = Run(
        run_id=run_id,
        workflow=WORKFLOWS[number % len(WORKFLOWS)],
        workflow_id=workflow_id,
        code_hash=code,
        shard=shard_of(workflow_id),
        status=status,
        input=msgspec.Raw(encode({"customer": number % CUSTOMERS, "items": steps, "express": bool(number % 3)})),
        created_at=at,
        started_at=at,
        ended_at=at + random.randrange(1_000_000, 60_000_000),
        output=msgspec.Raw(b'{"sent":true}') if status is Status.COMPLETED else None,
        error=_ERROR if status in UNSUCCESSFUL else None,
        options=options,
    )
    if number % 5 == 0:
        run.attributes = {"region": REGIONS[number % 3], "customer": f"c{number % CUSTOMERS}"}
    return run


def _journal(run: Run, steps: int, random: Random) -> list[Event]:
    """The last step of those that failed has failed for good; then the one before it is left out."""
    assert run.ended_at is not None
    started = Started(run.input, run.code_hash, f"{random.getrandbits(64):016x}", run.options)
    journal = [Event(run.run_id, 1, Kind.STARTED, "", encode(started), run.created_at)]
    each = (run.ended_at - run.created_at) // (steps + 1)
    done = steps - 2 if run.status in UNSUCCESSFUL and steps > 1 else steps
    for step in range(1, steps + 1):
        at = run.created_at + each * step
        if step <= done:
            kind, path, payload, attempt = Kind.STEP_DONE, _path(step), _done(step), 1
        else:
            attempt = step - done
            kind, path, payload = _failing(done + 1, attempt, at)
        journal.append(Event(run.run_id, step + 1, kind, path, payload, at, attempt))
    ended = Ended(run.status, run.output or msgspec.Raw(b"null"), run.error)
    journal.append(Event(run.run_id, steps + 2, Kind.ENDED, "", encode(ended), run.ended_at))
    return journal


@cache
def _path(step: int) -> str:
    return "reserve" if step == 1 else f"reserve#{step}"


@cache
def _done(step: int) -> bytes:
    result = msgspec.Raw(b'{"stock":%d,"place":"shelf %d"}' % (step * 7, step))
    return encode(StepDone(hash_of(b"[%d]" % step), result))


def _failing(step: int, attempt: int, at: int) -> tuple[Kind, str, bytes]:
    """The first attempt failed, and the second one for good."""
    args = hash_of(b"[%d]" % step)
    if attempt == 1:
        return Kind.ATTEMPT_FAILED, _path(step), encode(AttemptFailed(args, _ERROR, at + 1000))
    return Kind.STEP_FAILED, _path(step), encode(StepFailed(args, _ERROR))


def _incident(run: Run, random: Random) -> Incident:
    assert run.ended_at is not None
    return Incident(
        incident_id=_uuid7(run.ended_at, random),
        kind="step",
        message=f"step reserve of order {random.randrange(10**6)} failed: {_ERROR.message}",
        at=run.created_at + 1000,
        run_id=run.run_id,
        workflow=run.workflow,
        path=_path(1 + random.randrange(3)),
        details={"error": f"{_ERROR.type}: {_ERROR.message}", "attempts": 2},
        state=IncidentState.RESOLVED,
        resolution="retry",
        resolved_by="ann",
        resolved_why="the warehouse is there again",
        resolved_at=run.ended_at,
        history=[Decision("retry", "ann", "the warehouse is there again", run.ended_at)],
    )


def _published(run: Run) -> Publication:
    assert run.ended_at is not None
    topic, payload = f"{run.workflow}.ended", msgspec.Raw(encode({"id": run.workflow_id}))
    names: dict[str, Any] = {"run_id": run.run_id, "workflow": run.workflow, "workflow_id": run.workflow_id}
    return Publication(path="emit", topic=topic, payload=payload, at=run.ended_at, **names)


def _uuid7(at: int, random: Random) -> str:
    """The id that a run would have got at that time."""
    return str(
        UUID(int=at // 1000 << 80 | 0x7 << 76 | random.getrandbits(12) << 64 | 0b10 << 62 | random.getrandbits(62))
    )
