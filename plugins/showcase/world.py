"""The outside world: an SQLite file of its own, in which ordinary steps do things.

A step's work may be done more than once: when its process dies before the outcome is recorded, it is done again. So
every call is noted, and takes effect only the first time that its idempotency key is seen, as a payment provider
would do it.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jivsd import StepContext

assert __package__
_create = files(__package__).joinpath("world.sql").read_text(encoding="utf-8")
PATIENCE_S = 30.0


def call(world: str | None, ctx: StepContext) -> None:
    """Do the step's work in the world; there is nothing to do when no world is named.

    Raises:
        FileNotFoundError: there is no such file; it is not made here.
    """
    if world is None:
        return
    if not Path(world).is_file():
        raise FileNotFoundError(f"there is no world {world}: make an empty file")
    now = time.time_ns() // 1000
    with closing(sqlite3.connect(world, timeout=PATIENCE_S)) as db:
        db.executescript(_create)
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO call VALUES (?, ?, ?, ?, ?)", (ctx.run_id, ctx.path, ctx.attempt, ctx.idempotency_key, now)
            )
            db.execute("INSERT OR IGNORE INTO effect VALUES (?, ?, ?)", (ctx.idempotency_key, ctx.run_id, ctx.path))
