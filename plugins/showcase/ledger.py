"""The ledger: a table in jivsd's own database, written by transaction steps.

An entry is committed together with the record of its step, so there is exactly one for each, whatever is killed
when. Nothing in the table keeps doubles out: if there were any, they could be counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jivsd import Transaction

_create = """
CREATE TABLE IF NOT EXISTS showcase_ledger (
    entry INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    what TEXT NOT NULL,
    item TEXT NOT NULL,
    amount INTEGER NOT NULL
) STRICT
"""
_insert = "INSERT INTO showcase_ledger (run_id, what, item, amount) VALUES (?, ?, ?, ?)"


async def enter(tx: Transaction, run_id: str, what: str, item: str, amount: int) -> None:
    """Add one entry."""
    await tx.execute(_create)
    await tx.execute(_insert, (run_id, what, item, amount))
