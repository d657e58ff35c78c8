"""The workflows: each holds a lock, and writes into a table of its own when it enters and when it leaves.

What is written commits together with the step's record, so that each line stands there once; and what was written
before the lock was given back stands before what the next holder writes.
"""

from __future__ import annotations

from jivsd import Context, Retry, Transaction, step, workflow

NAME = "locking_proof"
PATIENT = Retry(attempts=100, first="20ms", factor=1.5, limit="1s")
"""On a machine that is busy with killing, a transaction may be refused for its time."""


@step(retry=PATIENT)
async def note(tx: Transaction, run_id: str, key: str, what: str, fence: int) -> None:
    await tx.execute(
        "INSERT INTO lock_ledger (run_id, key, what, fence) VALUES ($1, $2, $3, $4)", (run_id, key, what, fence)
    )


async def _pass(ctx: Context, key: str, pause: float) -> None:
    async with ctx.lock(key) as lock:
        await ctx.step(note, ctx.run_id, key, "enter", lock.fence)
        if pause:
            await ctx.sleep(pause)
        await ctx.step(note, ctx.run_id, key, "leave", lock.fence)


@workflow("guarded", lock_key="{key}")
async def guarded(ctx: Context, key: str, pause: float) -> None:
    """Has the lock from its start: those of one key come in the order of their starts."""
    await _pass(ctx, key, pause)


@workflow("guarded-block")
async def guarded_block(ctx: Context, key: str, pause: float) -> None:
    """Asks for the lock in its code."""
    await _pass(ctx, key, pause)
