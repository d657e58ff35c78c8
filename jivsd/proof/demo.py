"""`jivsd demo`: jivsd's promise, kept in front of your eyes.

A real daemon moves a database, sells things and sends letters, and is killed with -9 while it does. At the end the
databases themselves are asked what was lost, and what was recorded twice.
"""

from __future__ import annotations

import time
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from jivsd.proof import recount, stage
from jivsd.proof.recount import Count
from jivsd.proof.stage import FolderNotEmpty
from jivsd.proof.trial import Kill, Plan, Scene, Trial

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Count", "DemoReport", "FolderNotEmpty", "Kill", "Scene", "Watcher", "demo"]

LOOK = 0.1
"""Seconds between two pictures that a watcher gets."""


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a demo. `holds`: nothing was lost, nothing recorded twice, everything ended as it should.

    `rows`: how many the migration moved. `again`: steps that were done once more, since they were killed before they
    were recorded. `runs`: how many, by workflow and status. `kept`: where the databases are.
    """

    holds: bool
    kills: int
    rows: int
    lost: int
    recorded_twice: int
    wrong: int
    again: int
    seconds: float
    seed: int
    runs: dict[str, int]
    killed: list[Kill]
    counts: list[Count]
    kept: str | None


class Watcher(Protocol):
    """Who is told what happens meanwhile."""

    def scene(self, scene: Scene) -> None:
        """How things stand; ten times a second."""
        ...

    def killed(self, kill: Kill) -> None:
        """The daemon was killed, and is up again."""
        ...


def demo(keep: Path | None = None, *, seed: int | None = None, watcher: Watcher | None = None) -> DemoReport:
    """Run the demo; it takes less than a minute.

    Args:
        keep: a new or empty folder to leave the databases in, with `recount.sql`, which counts again.
        seed: for what is random; by default another one each time.
        watcher: who is told what happens meanwhile.

    Raises:
        FolderNotEmpty, DaemonFailed, OSError.
    """
    plan = Plan(seed=SystemRandom().randrange(1 << 32) if seed is None else seed)
    with stage.folder(keep, "demo") as folder, stage.one_error():
        return trio.run(_demo, folder, plan, watcher, keep)


async def _demo(folder: Path, plan: Plan, watcher: Watcher | None, keep: Path | None) -> DemoReport:
    began = time.perf_counter()
    trial = Trial(folder, plan, on_kill=watcher.killed if watcher else lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.interrupt_on_sigterm)
        if watcher is not None:
            nursery.start_soon(_show, trial, watcher)
        await trial.run()
        nursery.cancel_scope.cancel()
    found = await trio.to_thread.run_sync(recount.recount, trial.databases)
    if keep is not None:
        (folder / "recount.sql").write_text(recount.script(trial.databases, found.counts), encoding="utf-8")
    return DemoReport(
        holds=found.holds and found.rows >= plan.rows and len(trial.kills) >= plan.kills,
        kills=len(trial.kills),
        rows=found.rows,
        lost=found.total("lost"),
        recorded_twice=found.total("twice"),
        wrong=found.total("wrong"),
        again=found.again,
        seconds=round(time.perf_counter() - began, 2),
        seed=plan.seed,
        runs=found.runs,
        killed=trial.kills,
        counts=found.counts,
        kept=str(folder) if keep is not None else None,
    )


async def _show(trial: Trial, watcher: Watcher) -> None:
    while True:
        watcher.scene(trial.scene)
        await trio.sleep(LOOK)
