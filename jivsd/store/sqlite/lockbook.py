"""The queues for locks in an embedded journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jivsd.store.lockbook import Claim, Tangle
from jivsd.store.rows import kin_of, queues_of
from jivsd.store.sqlite import rows
from jivsd.store.sqlite.database import query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    import apsw

    from jivsd.store.lockbook import LockQueue
    from jivsd.store.tickets import Holder

_sql = statements("sqlite")


def lock_queue(connection: apsw.Connection, key: str | None, limit: int | None) -> list[Holder]:
    """See `LockBook.lock_queue`."""
    first_ones = -1 if limit is None else limit
    if key is None:
        found = query(connection, _sql["lock_queues"], (first_ones,))
    else:
        found = query(connection, _sql["lock_queue"], (key, first_ones))
    return [rows.holder_of(row) for row in found]


def lock_queues(connection: apsw.Connection, key: str | None, limit: int, after: str, places: int) -> list[LockQueue]:
    """See `LockBook.lock_queues`."""
    return queues_of(query(connection, _sql["lock_page"], (after, key, limit, places)))


def tangle(connection: apsw.Connection, since: int) -> Tangle:
    """See `LockBook.tangle`."""
    with together(connection):
        found = query(connection, _sql["claims"], (since,)).fetchall()
        claims = [Claim(key, ticket, run_id, path, bool(holds)) for key, ticket, run_id, path, holds in found]
        ids = json.dumps(sorted({claim.run_id for claim in claims if not claim.holds}))
        return Tangle(claims, [kin_of(row) for row in query(connection, _sql["kin"], (ids,))])
