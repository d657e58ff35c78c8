"""Removing what is old: which runs may go, their journals for an archive, and taking them away in small pieces.

What is removed together goes with one statement a table for many runs: every call into SQLite, and every row read from
it, waits for the interpreter's lock, and the journal's batches wait meanwhile.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.records import Status
from jivsd.store.api import StoreError
from jivsd.store.listing import Place, statuses_of
from jivsd.store.removal import KEYS, PAGE_BYTES, Journal, Journals, PruneCount, RunIds, bytes_of, fitting
from jivsd.store.sqlite import reading, rows
from jivsd.store.sqlite.database import query, together
from jivsd.store.sqlite.listing import path_of, place_of, selects, streams
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import apsw

    from jivsd.store.api import RunFilter

_sql: Final = statements("sqlite")


def prunable(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> RunIds:
    """See `Store.prunable`."""
    with together(connection):
        page, more = _page(connection, where, limit, cursor)
        sizes = dict(query(connection, _sql["event_counts"], (_json([run_id for run_id, _, _ in page]),)).fetchall())
        taken = fitting([sizes[run_id] for run_id, _, _ in page])
    return RunIds([run_id for run_id, _, _ in page[:taken]], _next(page, taken, more=more))


def journals(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> Journals:
    """See `Store.journals`."""
    found: list[Journal] = []
    damaged: list[str] = []
    looked = size = 0
    with together(connection):
        page, more = _page(connection, where, limit, cursor)
        for run_id, _, _ in page:
            try:
                run = reading.run(connection, run_id)
                assert run is not None
                found.append(Journal(run, reading.events(connection, run_id, 0, None)))
            except StoreError as error:
                damaged.append(str(error))
            else:
                size += bytes_of(found[-1])
            looked += 1
            if size >= PAGE_BYTES:
                break
    return Journals(found, damaged, _next(page, looked, more=more))


def _page(connection: apsw.Connection, where: RunFilter, limit: int, cursor: str | None) -> tuple[list[rows.Row], bool]:
    """Up to `limit` rows of runs that may go, and whether there are more."""
    path = path_of(connection, where, ended=True)
    asked = selects("list_prunable", where, path, Place.of(cursor), ended=True)
    with streams(connection, asked, limit + 1) as found:
        page = list(islice(heapq.merge(*found, key=place_of), limit + 1))
    return page[:limit], len(page) > limit


def _next(page: list[rows.Row], taken: int, *, more: bool) -> str | None:
    return str(Place(*page[taken - 1][1:])) if taken and (more or taken < len(page)) else None


def count_prunable(connection: apsw.Connection, where: RunFilter) -> list[PruneCount]:
    """See `Store.count_prunable`."""
    found: list[PruneCount] = []
    statuses = statuses_of(where, ended=True) or []
    with together(connection):
        for workflow, status in query(connection, _sql["count_pairs"]).fetchall():
            if where.workflow not in (None, workflow) or status not in statuses:
                continue
            narrow = msgspec.structs.replace(where, workflow=workflow, statuses=[Status(status)])
            path = path_of(connection, narrow, ended=True)
            for sql, parameters in selects("list_prunable", narrow, path, None, ended=True):
                counting = f"SELECT count(*) FROM ({sql})"
                ((count,),) = query(connection, counting, {**parameters, "limit": -1}).fetchall()
                if count:
                    found.append(PruneCount(workflow, Status(status), count))
    return found


def remove(connection: apsw.Connection, run_ids: Sequence[str]) -> int:
    """See `Store.remove`."""
    with _transaction(connection):
        ids, names = query(connection, _sql["removable"], (_json(run_ids),)).fetchall()[0]
        for statement in _REMOVE:
            query(connection, _sql[statement], (ids,))
        removed = connection.changes()
        query(connection, _sql["delete_messages"], (names,))
    return removed


_REMOVE: Final = (
    "release_payloads",
    "delete_payloads",
    "delete_events",
    "delete_incidents",
    "empty_messages",
    "delete_published",
    "delete_progress",
    "delete_attributes",
    "delete_runs",
)


def old_keys(
    connection: apsw.Connection, before: int, after: tuple[str, str]
) -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    """Of the next idempotency keys those that may go, and the last one that was looked at, if there are more."""
    page = query(connection, _sql["key_page"], (*after, KEYS)).fetchall()
    old = [(workflow, key) for workflow, key, at, outlived in page if outlived and at < before]
    return old, (page[-1][0], page[-1][1]) if len(page) == KEYS else None


def forget_keys(connection: apsw.Connection, before: int, keys: Sequence[tuple[str, str]]) -> int:
    """Forget idempotency keys that still may go; return how many."""
    query(connection, _sql["delete_keys"], (_json(keys), before))
    return connection.changes()


def shrink(connection: apsw.Connection) -> tuple[int, int]:
    """See `Store.shrink`."""
    before = free_pages(connection)
    query(connection, _sql["shrink"]).fetchall()
    left = free_pages(connection)
    ((size,),) = query(connection, "PRAGMA page_size").fetchall()
    return (before - left) * size, left * size if left < before else 0


def free_pages(connection: apsw.Connection) -> int:
    """How many pages of the file hold nothing; the next rows go there."""
    ((count,),) = query(connection, _sql["free_pages"]).fetchall()
    return count


@contextmanager
def _transaction(connection: apsw.Connection) -> Generator[None]:
    query(connection, _sql["begin"])
    try:
        yield
        query(connection, _sql["commit"])
    finally:
        if connection.in_transaction:
            query(connection, _sql["rollback"])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
