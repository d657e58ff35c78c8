"""The ledger: a table of this plugin's in jivsd's own database, written by transaction steps.

An entry is committed together with the record of its step, so there is exactly one for each, whatever is killed
when. See `migrations/` for the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jivsd import Transaction

_insert = "INSERT INTO showcase_ledger (run_id, what, item, amount) VALUES (?, ?, ?, ?)"


async def enter(tx: Transaction, run_id: str, what: str, item: str, amount: int) -> None:
    """Add one entry."""
    await tx.execute(_insert, (run_id, what, item, amount))
