"""PostgreSQL reads what it is asked for off an index, in its order, though nobody has said how full its tables are."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest
from databases import NEWEST

from jivsd.proof.million.filling import fill
from jivsd.proof.past import DAY, REGIONS, WORKFLOWS
from jivsd.records import Status, new_id
from jivsd.store import listing
from jivsd.store.api import RunFilter
from jivsd.store.incidents import those_of
from jivsd.store.postgres import PostgresStore
from jivsd.store.postgres.connections import COMMON, sql_of
from jivsd.store.postgres.listing import merged, path_of
from jivsd.store.postgres.reading import numbered
from store.builders import Journal
from store.test_listing import filters, matches, order, populated

RUNS = 20_000
SPAN = 10 * DAY
LARGE = {"run", "event", "attribute", "incident", "outbox", "inbox"}
SQL = sql_of("jivsd")
HALF = time.time_ns() // 1000 - SPAN // 2
HOUR = 3_600_000_000


def lists():
    """What is looked for, alone and together: what many runs have, and what few have or none."""
    alone = [
        {},
        {"workflow": WORKFLOWS[1]},
        {"statuses": [Status.COMPLETED]},
        {"statuses": [Status.FAILED, Status.TIMED_OUT]},
        {"open_only": True},
        {"paused": True},
        {"paused": False},
        {"workflow_id": "nobody's"},
        {"parent": new_id()},
        {"correlation_id": "batch-2"},
        {"created_after": HALF},
        {"created_after": HALF, "created_before": HALF + HOUR},
        {"ended_before": HALF},
        {"ended_after": HALF, "ended_before": HALF + HOUR},
        {"attributes": {"region": REGIONS[0]}},
        {"attributes": {"customer": "c5"}},
        {"attributes": {"region": REGIONS[0], "customer": "c5"}},
    ]
    return [RunFilter(**{**one, **other}) for place, one in enumerate(alone) for other in alone[place:]]


OTHERS = {
    "run": [[new_id()]],
    "current_run": [WORKFLOWS[0], "nobody's"],
    "newest_ids": [[WORKFLOWS[0]], ["nobody's"]],
    "open_ids": [[WORKFLOWS[0]], ["nobody's"]],
    "chain_ends": [[new_id()]],
    "open_runs": [new_id(), 100, None],
    "wakes": [0, new_id(), 100, None],
    "called_runs": [None, None],
    "events": [new_id(), 0, 100],
    "count_paused": [],
    "count_incidents": [],
    "count_unread": [],
    "statistics_counts": [HALF, None, HALF + HOUR],
    "statistics_endings": [[WORKFLOWS[0]], ["COMPLETED"], HALF, 100],
    "statistics_incidents": [HALF, None],
    "failed_attempts": [[new_id()], 100],
    "outbox": [0, None, 100],
    "event_counts": [[new_id()]],
    "removable": [[new_id()]],
}


@pytest.fixture(scope="module")
def full(postgres):
    """A database in which nothing was ever analysed, and what says how it would be asked."""
    url = postgres(NEWEST).fresh()
    asyncio.run(_say(url, "ALTER SYSTEM SET autovacuum = off"))  # it analyses too, where filling takes a minute
    asyncio.run(fill(url, RUNS, steps=1, span=SPAN, code="c0de"))
    yield url
    asyncio.run(_say(url, "ALTER SYSTEM RESET autovacuum"))


async def _say(url, statement):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def explained(url, work):
    """What `work` returns, given a session like those of the store."""

    async def run():
        connection = await asyncpg.connect(url, server_settings=COMMON)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


async def plans_of(connection, sql, arguments):
    """The plan for these values, and the one for any, that is kept when a session has asked a few times."""
    for options in ("FORMAT JSON", "FORMAT JSON, GENERIC_PLAN"):
        found = await connection.fetchval(f"EXPLAIN ({options}) {sql}", *arguments)
        yield json.loads(found)[0]["Plan"]


def nodes(plan):
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def wrong(plan, *, ordered):
    """The steps of a plan that read more than they should. Few runs have a workflow id, and may be sorted."""
    for node in nodes(plan):
        kind, table, indexes = node["Node Type"], node.get("Relation Name"), [*indexes_of(node)]
        sorts = ordered and "Sort" in kind and not set(indexes) <= {"run_workflow_id", "run_parent", "run_correlation"}
        if (kind == "Seq Scan" and table in LARGE) or kind.startswith("Bitmap") or sorts:
            yield f"{kind} of {table or indexes}"


def indexes_of(plan):
    return (name for node in nodes(plan) if (name := node.get("Index Name")))


def test_lists_are_read_off_an_index_in_its_order(full):
    async def plans(connection):
        cursor = listing.Place(HALF, 7)
        for where in lists():
            path = await path_of(connection, SQL, where)
            for after in (None, cursor):
                sql, arguments = merged(SQL, "list_runs", where, path, after, 51)
                if sql:
                    async for plan in plans_of(connection, sql, arguments):
                        yield where, path, plan

    async def look(connection):
        return [
            (where, list(wrong(plan, ordered=not (path.by_end and where.attributes))))
            async for where, path, plan in plans(connection)
        ]

    found = explained(full, look)
    assert len(found) > 400
    assert [str(one) for one in found if one[1]] == []


def test_so_is_everything_else(full):
    asked = [(name, SQL[name], given) for name, given in OTHERS.items()]
    for state in ("OPEN", "RESOLVED", None):
        arguments = []
        sql, values = those_of(SQL["list_incidents"], 51, state=state)
        asked.append((f"incidents {state}", numbered(sql, values, arguments), arguments))

    async def look(connection):
        return [
            (name, step)
            for name, sql, given in asked
            async for plan in plans_of(connection, sql, given)
            for step in wrong(plan, ordered=False)
        ]

    assert explained(full, look) == []


@pytest.mark.parametrize("few", [2000, 10])
async def test_whatever_is_asked_for_is_right(postgres, monkeypatch, few):
    """As `test_listing` has it of SQLite, of everything alone and by twos."""
    monkeypatch.setattr(listing, "FEW", few)
    async with PostgresStore(postgres(NEWEST).clean()) as store:
        j = Journal(store, await store.open("node"))
        runs = await populated(j)
        numbers = {run.run_id: number for number, run in enumerate(runs)}
        for fields in (fields for fields in filters() if len(fields) < 4):
            key = order(fields)
            expected = [run for run in runs if matches(run, **fields)]
            expected.sort(key=lambda run: (getattr(run, key), numbers[run.run_id]), reverse=True)
            page = await store.runs(RunFilter(**fields), 20)
            found = page.items + ((await store.runs(RunFilter(**fields), 200, page.next)).items if page.next else [])
            assert [run.run_id for run in found] == [run.run_id for run in expected], fields
