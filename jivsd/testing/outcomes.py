"""What has come of runs: how they ended and what each of their paths was settled with, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.engine.replay import START, UNDO
from jivsd.records import ENDED, Event, Kind, Run, Status, payload_of
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.api import Store

_SETTLED: Final = frozenset(
    {Kind.STEP_DONE, Kind.STEP_FAILED, Kind.STEP_CANCELLED, Kind.CHILD_ENDED, Kind.MARKER, Kind.TIMER_FIRED}
)


class Outcome(msgspec.Struct):
    """What has come of one run. `paths`: what settled each. `doubtful`: steps in which a process may have died."""

    name: str
    status: Status
    output: str
    error: str
    paths: dict[str, str]
    doubtful: set[str]
    twice: list[str]
    """Paths that were settled twice."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Outcomes(msgspec.Struct):
    """What has come of all runs, by run id."""

    runs: dict[str, Outcome]

    def differences(self, found: Outcomes) -> list[str]:
        """How what was found differs from this, which is what should be; a sentence each."""
        missing = [f"{run.name} is missing" for run_id, run in self.runs.items() if run_id not in found.runs]
        beyond = [f"{run.name} is one too many" for run_id, run in found.runs.items() if run_id not in self.runs]
        doubt = any(run.doubtful for run in found.runs.values())
        between = [
            f"{run.name}: {difference}"
            for run_id, run in self.runs.items()
            if run_id in found.runs
            for difference in _differences(run, found.runs[run_id], doubt=doubt)
        ]
        return [*missing, *beyond, *between]


def _differences(wanted: Outcome, found: Outcome, *, doubt: bool) -> list[str]:
    result = [f"{path} is recorded twice" for path in found.twice]
    if not wanted.ended:
        return result
    undone = {path for path in found.paths if path.endswith(UNDO) and path not in wanted.paths}
    status = _plain(found.status, doubt=bool(undone))
    if status != _plain(wanted.status, doubt=bool(undone)):
        result.append(f"it is {found.status} instead of {wanted.status}")
    if found.output != wanted.output:
        result.append(f"its output is {found.output} instead of {wanted.output}")
    if _plain(found.error, doubt=doubt) != _plain(wanted.error, doubt=doubt):
        result.append(f"its error is {found.error} instead of {wanted.error}")
    for path in sorted({*wanted.paths, *found.paths}):
        if path == START or path.removesuffix(UNDO) in found.doubtful:  # it had to wait for room this time, or did not
            continue
        before, after = wanted.paths.get(path, "nothing"), found.paths.get(path, "nothing")
        if _plain(before, doubt=doubt) != _plain(after, doubt=doubt):
            result.append(f"{path} has {after} instead of {before}")
    return result


def _plain(text: str, *, doubt: bool) -> str:
    """Where a step is in doubt, a run that fails compensates it, and says so."""
    return text.replace(Status.COMPENSATED, Status.FAILED) if doubt else text


async def outcomes_of(store: Store, normal: Callable[[str], str]) -> Outcomes:
    """What has come of all runs in a store; `normal` takes out of recorded texts what is not to be compared."""
    found: dict[str, Outcome] = {}
    cursor: str | None = None
    while True:
        page = await store.runs(RunFilter(), 1000, cursor)
        for run in page.items:
            found[run.run_id] = _outcome(run, await store.events(run.run_id), normal)
        if (cursor := page.next) is None:
            return Outcomes(found)


def _outcome(run: Run, events: list[Event], normal: Callable[[str], str]) -> Outcome:
    outcome = Outcome(
        name=f"{run.workflow} {run.workflow_id}",
        status=run.status,
        output=normal(bytes(run.output or b"nothing").decode()),
        error=normal(msgspec.json.encode(run.error).decode()),
        paths={},
        doubtful=set(),
        twice=[],
    )
    for event in events:
        if event.kind == Kind.RECOVERED:
            outcome.doubtful.update(payload_of(event).paths)
        elif event.kind in _SETTLED:
            _settle(outcome, event, normal)
    return outcome


def _settle(outcome: Outcome, event: Event, normal: Callable[[str], str]) -> None:
    if event.path in outcome.paths:
        outcome.twice.append(event.path)
    if event.kind == Kind.STEP_CANCELLED and payload_of(event).started != "no":
        outcome.doubtful.add(event.path)
    outcome.paths[event.path] = f"{event.kind} {normal(event.payload.decode())}"
