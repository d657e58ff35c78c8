"""`python -m jivsd.proof.size --runs N`: what a database full of ended runs costs.

How long looking takes, whatever is looked for; how fast new runs are beside an empty database; and what pruning half of
the old ones costs them meanwhile. What is compared takes turns in one process, because a machine's speed varies.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd.proof import bench
from jivsd.proof.engines import engine_on
from jivsd.proof.fill import fill
from jivsd.proof.past import REGIONS, WORKFLOWS, YEAR
from jivsd.records import Status
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.engine.engine import Engine
    from jivsd.records import Run

TURNS: Final = 5
LOOKS: Final = 5
"""How often each question is asked."""
PAGE: Final = 50


class Look(msgspec.Struct, frozen=True):
    """A question, and how long it took: milliseconds, the median and the longest."""

    what: str
    ms: float
    worst_ms: float


class SizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `share`: steps/s on the full database, as a part of those on the empty one; `pruning_share`:
    steps/s on the full database while it is pruned, as a part of those without."""

    runs: int
    bytes: int
    looks: list[Look]
    steps_per_s: float
    steps_per_s_empty: float
    share: float
    steps_per_s_pruning: float
    pruning_share: float
    pruned: int
    pruned_per_s: float
    wal_bytes: int

    @property
    def slowest(self) -> Look:
        return max(self.looks, key=lambda look: look.ms)


def size(
    *,
    runs: int,
    db: Path | None = None,
    steps: int = 10,
    work: int = 2_000,
    tell: Callable[[str], None] = lambda _: None,
) -> SizeReport:
    """Measure on a database with so many ended runs.

    Args:
        runs: how many ended runs there are.
        db: a database that `jivsd.proof.fill` has made; half of its runs will be removed. By default one is made.
        steps: how many steps the ended runs have that are made.
        work: how many new runs of 10 steps are run in each turn.
        tell: told what is done next.
    """
    return trio.run(partial(_size, runs, db, steps, work, tell))


async def _size(runs: int, db: Path | None, steps: int, work: int, tell: Callable[[str], None]) -> SizeReport:
    with tempfile.TemporaryDirectory(prefix="jivsd-size-") as folder:
        path = db or Path(folder) / "full.db"
        if db is None:
            tell(f"filling a database with {runs:,} runs")
            fill(path, runs, steps=steps)
        async with AsyncExitStack() as stack:
            full = await stack.enter_async_context(engine_on(path))
            empty = await stack.enter_async_context(engine_on(Path(folder) / "empty.db"))
            tell("looking")
            looks = await _looks(full)
            tell("running beside an empty database")
            pairs = [(await _speed(full, work), await _speed(empty, work)) for _ in range(TURNS)]
            tell("running while half is pruned")
            pruning = await _while_pruning(full, path, work)
        return SizeReport(
            runs=runs,
            bytes=_bytes(path),
            looks=looks,
            steps_per_s=round(median(one for one, _ in pairs)),
            steps_per_s_empty=round(median(other for _, other in pairs)),
            share=round(median(one / other for one, other in pairs), 3),
            **pruning,
        )


async def _speed(engine: Engine, runs: int) -> float:
    """Steps a second of new runs."""
    began = time.perf_counter()
    await bench.many(engine, runs, 10, 1000)
    return runs * 10 / (time.perf_counter() - began)


async def _while_pruning(engine: Engine, path: Path, work: int) -> dict[str, Any]:
    """Take turns with and without pruning of the older half."""
    old = RunFilter(ended_before=time.time_ns() // 1000 - YEAR // 2)
    wal = Path(f"{path}-wal")
    pairs: list[tuple[float, float]] = []
    seconds, largest = 0.0, 0
    before = await _left(engine, old)
    await _speed(engine, work)
    for _ in range(TURNS):
        without = await _speed(engine, work)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.prune, old)
            speed = await _speed(engine, work)
            nursery.cancel_scope.cancel()
        seconds += time.perf_counter() - began
        largest = max(largest, _bytes(wal))
        pairs.append((speed, without))
    pruned = before - await _left(engine, old)
    return {
        "steps_per_s_pruning": round(median(one for one, _ in pairs)),
        "pruning_share": round(median(one / other for one, other in pairs), 3),
        "pruned": pruned,
        "pruned_per_s": round(pruned / seconds, 1),
        "wal_bytes": largest,
    }


async def _left(engine: Engine, where: RunFilter) -> int:
    return sum(count.runs for count in await engine.count_prunable(where))


def _bytes(path: Path) -> int:
    return path.stat().st_size


async def _looks(engine: Engine) -> list[Look]:
    found: list[Look] = []
    for what, ask in (await _questions(engine)).items():
        took: list[float] = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            await ask()
            took.append((time.perf_counter() - began) * 1000)
        found.append(Look(what, round(median(took), 2), round(max(took), 2)))
    return found


async def _questions(engine: Engine) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Everything that people look for, alone and together; the rare, the frequent, and what is not there."""
    now = time.time_ns() // 1000
    some = (await engine.runs(RunFilter(ended_before=now - YEAR // 3), 50)).items
    child = next((run for run in some if run.options.parent is not None), None)
    known = next((run for run in some if run.options.correlation_id is not None), some[0])
    filters = {"all": RunFilter(), **_alone(now, some[0], child, known), **_together(now, some[0], child, known)}
    questions: dict[str, Callable[[], Awaitable[Any]]] = {
        f"list {what}": partial(engine.runs, where, PAGE) for what, where in filters.items()
    }
    questions["list all, 1,000 pages on"] = partial(engine.runs, RunFilter(), PAGE, f"{now - YEAR // 2}-0")
    questions["show"] = partial(engine.show, some[0].run_id)
    questions["show by workflow id"] = partial(engine.show, f"{some[0].workflow}:{some[0].workflow_id}")
    questions["timeline"] = partial(engine.timeline, some[0].run_id)
    questions["status"] = engine.status
    questions["statistics of a day"] = partial(engine.statistics, now - YEAR // 365)
    return questions


def _alone(now: int, some: Run, child: Run | None, known: Run) -> dict[str, RunFilter]:
    return {
        "by workflow": RunFilter(workflow=WORKFLOWS[2]),
        "by a workflow that is not there": RunFilter(workflow="nobody's"),
        "by status": RunFilter(statuses=[Status.FAILED]),
        "by a status that no run has": RunFilter(statuses=[Status.TIMED_OUT]),
        "by statuses": RunFilter(statuses=[Status.FAILED, Status.COMPENSATED]),
        "open": RunFilter(open_only=True),
        "by id": RunFilter(workflow_id=some.workflow_id),
        "by parent": RunFilter(parent=child.options.parent if child else "nobody"),
        "by correlation id": RunFilter(correlation_id=known.options.correlation_id or "none"),
        "created before": RunFilter(created_before=now - YEAR // 2),
        "created between": RunFilter(created_after=now - YEAR // 2, created_before=now - YEAR // 2 + 10**9),
        "ended before": RunFilter(ended_before=now - YEAR // 2),
        "ended after": RunFilter(ended_after=now - YEAR // 2),
        "by a frequent attribute": RunFilter(attributes={"region": REGIONS[0]}),
        "by a rare attribute": RunFilter(attributes={"customer": "c5"}),
    }


def _together(now: int, some: Run, child: Run | None, known: Run) -> dict[str, RunFilter]:
    half, workflow = now - YEAR // 2, WORKFLOWS[1]
    parent = child.options.parent if child else "nobody"
    return {
        "by workflow and status": RunFilter(workflow=workflow, statuses=[Status.FAILED]),
        "by workflow and statuses, ended before": RunFilter(
            workflow=workflow, statuses=[Status.FAILED, Status.COMPENSATED], ended_before=half
        ),
        "by workflow, created and ended between": RunFilter(
            workflow=workflow, created_after=half, created_before=half + 10**12, ended_before=half + 10**12
        ),
        "by status, ended long after it began": RunFilter(
            statuses=[Status.COMPLETED], created_before=half, ended_after=half + YEAR // 4
        ),
        "by parent and status": RunFilter(parent=parent, statuses=[Status.COMPLETED]),
        "by id and status": RunFilter(workflow_id=some.workflow_id, statuses=[Status.FAILED], ended_before=now),
        "by correlation id and workflow": RunFilter(correlation_id=known.options.correlation_id, workflow=workflow),
        "by attributes": RunFilter(attributes={"region": REGIONS[0], "customer": "c0"}),
        "by attribute and status": RunFilter(attributes={"region": REGIONS[0]}, statuses=[Status.FAILED]),
        "by attribute and open": RunFilter(attributes={"region": REGIONS[0]}, open_only=True),
        "by attribute and workflow, ended before": RunFilter(
            attributes={"region": REGIONS[1]}, workflow=WORKFLOWS[0], ended_before=half
        ),
    }


def main() -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.size", description="What a full database costs.")
    parser.add_argument("--runs", type=int, default=1_000_000, metavar="N", help="ended runs; 1,000,000")
    parser.add_argument("--db", type=Path, metavar="FILE", help="made by jivsd.proof.fill; half of it is removed")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of the ended runs that are made; 10")
    parser.add_argument("--work", type=int, default=2_000, metavar="N", help="new runs in each turn; 2,000")
    given = parser.parse_args()

    def tell(what: str) -> None:
        sys.stderr.write(f"{what}\n")

    report = size(runs=given.runs, db=given.db, steps=given.steps, work=given.work, tell=tell)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
