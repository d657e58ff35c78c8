"""What the programs' steps do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd import Retry, StepContext, Transaction, step
from jivsd.proof.torture.language import Expire, Late, Ledger, Program, Result, Stuck, Work

from . import world

if TYPE_CHECKING:
    from jivsd import Step

HANG_S: Final = 600.0
"""What hangs is always cut short: by its timeout, or by its scope."""
THREAD_S: Final = 0.4
"""A thread cannot be cut short: that it ends later than its scope is enough."""
ATTEMPTS: Final = 2
"""How often a stuck step is tried before that is an incident, and a doomed transaction before it has failed."""
PATIENT: Final = 20
"""How often another transaction is tried: one that a busy machine holds up for 100 ms is refused."""


class Shaky(Exception):
    """An attempt fails."""


class Misled(Exception):
    """An attempt is told by a heartbeat what none before it has said."""


class Broken(Exception):
    """A transaction fails."""


class Job(msgspec.Struct, frozen=True):
    """What a step is to do. `detail` is the same in every attempt, whatever happens."""

    world: str
    name: str
    amount: int = 0
    fails: int = 0
    ms: int = 0
    detail: str = ""
    beats: bool = False


def policy(attempts: int, pause_ms: int = 10) -> Retry:
    """So many attempts, the second after a pause of about that length, the later ones no later than that."""
    return Retry(attempts=attempts, first=pause_ms / 1000, factor=1)


def _note(ctx: StepContext, job: Job) -> None:
    world.call(job.world, ctx, job.detail)
    if job.beats:
        _beat(ctx)


def _beat(ctx: StepContext) -> None:
    """What an attempt before it has said is there, or what it has said itself before its process was killed."""
    told = ctx.last_details()
    if told not in (ctx.attempt, ctx.attempt - 1 or None):
        raise Misled(f"attempt {ctx.attempt} of {ctx.path} was told {told}")
    ctx.heartbeat(ctx.attempt, done=ctx.attempt)


def _judge(ctx: StepContext, job: Job) -> int:
    if ctx.attempt <= job.fails:
        raise Shaky(f"attempt {ctx.attempt} of {job.name} fails")
    return job.amount


@step
async def work(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    await trio.sleep(job.ms / 1000)
    return _judge(ctx, job)


@step
async def work_undoable(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    await trio.sleep(job.ms / 1000)
    return _judge(ctx, job)


@step
def plain(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    time.sleep(job.ms / 1000)
    return _judge(ctx, job)


@step
def plain_undoable(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    time.sleep(job.ms / 1000)
    return _judge(ctx, job)


@step
async def hang(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    await trio.sleep(HANG_S)
    return 0


@step
async def hang_undoable(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    await trio.sleep(HANG_S)
    return 0


@work_undoable.compensate(retry=policy(4))
async def undo_work(ctx: StepContext, result: int | None, job: Job) -> None:
    _undo(ctx, result, job)


@plain_undoable.compensate(retry=policy(4))
def undo_plain(ctx: StepContext, result: int | None, job: Job) -> None:
    _undo(ctx, result, job)


@hang_undoable.compensate(retry=policy(4))
async def undo_hang(ctx: StepContext, result: int | None, job: Job) -> None:
    _undo(ctx, result, job)


def _undo(ctx: StepContext, result: int | None, job: Job) -> None:
    """Undoing has its own troubles: at every third amount the first attempt fails."""
    world.call(job.world, ctx, undone_with(result, unknown=ctx.outcome_unknown))
    if job.amount % 3 == 1 and ctx.attempt == 1:
        raise Shaky(f"the first attempt to undo {job.name} fails")


def undone_with(result: Any, *, unknown: bool) -> str:
    """How the world notes what a compensation was told."""
    return "unknown" if unknown else msgspec.json.encode(result).decode()


@step
async def stuck(ctx: StepContext, job: Job) -> int:
    _note(ctx, job)
    if not world.is_mended(job.world, ctx.run_id, job.name):
        raise Shaky(f"{job.name} is broken")
    return job.amount


@step
async def undo_child(ctx: StepContext, result: Result | None, program: Program) -> None:
    counter = None if result is None else result.counter
    world.call(program.world, ctx, undone_with(counter, unknown=ctx.outcome_unknown))


INSERT = "INSERT INTO torture_ledger (run_id, name, amount) VALUES (?, ?, ?)"
COUNT = """
INSERT INTO torture_counter (run_id, entries, sum) VALUES (?, 1, ?)
ON CONFLICT (run_id) DO UPDATE SET entries = torture_counter.entries + 1, sum = torture_counter.sum + excluded.sum
"""


async def _enter(tx: Transaction, run_id: str, name: str, amount: int) -> None:
    await tx.execute(INSERT, (run_id, name, amount))
    await tx.execute(COUNT, (run_id, amount))


@step
async def ledger(tx: Transaction, run_id: str, name: str, amount: int, doomed: bool) -> int:
    await _enter(tx, run_id, name, amount)
    if doomed:
        raise Broken(f"{name} is rolled back")
    return amount


@step
async def ledger_undoable(tx: Transaction, run_id: str, name: str, amount: int, doomed: bool) -> int:
    await _enter(tx, run_id, name, amount)
    if doomed:
        raise Broken(f"{name} is rolled back")
    return amount


@ledger_undoable.compensate(retry=policy(PATIENT))
async def undo_ledger(tx: Transaction, result: int | None, run_id: str, name: str, amount: int, doomed: bool) -> None:
    await _enter(tx, run_id, f"{name}!undo", -amount)


def step_of(node: Work | Ledger | Late | Expire | Stuck) -> Step[..., Any]:
    """The step that a node asks for, under the node's name."""
    match node:
        case Work(how="plain"):
            found = plain_undoable if node.undo else plain
            return found.options(name=node.name, retry=policy(node.attempts, node.pause))
        case Work():
            found = work_undoable if node.undo else work
            cancel = "wait" if node.how == "patient" else "abandon"
            return found.options(name=node.name, retry=policy(node.attempts, node.pause), cancel=cancel)
        case Ledger():
            found = ledger_undoable if node.undo else ledger
            return found.options(name=node.name, retry=policy(ATTEMPTS if node.doomed else PATIENT))
        case Late():
            found = hang_undoable if node.undo else hang
            return found.options(name=node.name, retry=policy(1), timeout=node.ms / 1000)
        case Expire(hold="plain"):
            return (plain_undoable if node.undo else plain).options(name=node.name)
        case Expire():
            found = hang_undoable if node.undo else hang
            return found.options(name=node.name, cancel="wait" if node.hold == "patient" else "abandon")
        case Stuck():
            return stuck.options(name=node.name, retry=policy(ATTEMPTS), on_exhausted="incident")
