"""Lists of runs: whatever is asked for is right, and read off an index in its order."""

from __future__ import annotations

from itertools import combinations, product
from random import Random

import apsw
import pytest

from jivsd.records import ENDED, Status
from jivsd.store import listing
from jivsd.store.api import RunChange, RunFilter
from jivsd.store.listing import Path, Place, index_of
from jivsd.store.sqlite.database import MEMORY
from jivsd.store.sqlite.listing import selects
from jivsd.store.sqlite.store import SqliteStore
from jivsd.store.statements import migrations
from store.builders import Journal, append, end, new_run, start

ATTRIBUTE = Path("attribute", "run_created_at", by_status=False, attribute="tier")
PARENTS = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002")
CHOICES = {
    "workflow": ["nap", "order"],
    "workflow_id": ["id3", "id4"],
    "statuses": [[Status.COMPLETED], [Status.FAILED, Status.RUNNING, Status.WAITING]],
    "open_only": [True],
    "parent": list(PARENTS),
    "correlation_id": ["c1", "c2"],
    "created_after": [5],
    "created_before": [40],
    "ended_after": [45],
    "ended_before": [70],
    "attributes": [{"tier": "gold"}],
}


def filters():
    """Every combination of the fields of a filter, with the first choice for each."""
    for count in range(len(CHOICES) + 1):
        for fields in combinations(CHOICES, count):
            chosen = {field: CHOICES[field][0] for field in fields}
            yield chosen
            if count < 2:
                yield {**chosen, "paused": True}
                yield {**chosen, "paused": False}


def matches(run, *, workflow_id=None, statuses=(), open_only=False, **rest):
    times = (("created_at", "created"), ("ended_at", "ended"))
    for field, name in times:
        after, before = rest.pop(f"{name}_after", None), rest.pop(f"{name}_before", None)
        time = getattr(run, field)
        if (after is not None or before is not None) and time is None:
            return False
        if (after is not None and time < after) or (before is not None and time >= before):
            return False
    if workflow_id is not None and run.workflow_id != workflow_id:
        return False
    if (statuses and run.status not in statuses) or (open_only and run.status in ENDED):
        return False
    found = {"workflow": run.workflow, "parent": run.options.parent, "paused": run.paused}
    found["correlation_id"] = run.options.correlation_id
    if any(run.attributes.get(name) != value for name, value in rest.pop("attributes", {}).items()):
        return False
    return all(found[name] == value for name, value in rest.items())


def order(where):
    """Newest first, or the last one that ended: by the end alone goes what has nothing rarer."""
    by_end = {"ended_after", "ended_before"} & where.keys()
    if where.get("paused"):
        return "created_at"
    rare = {"workflow_id", "parent", "correlation_id", "attributes"} & where.keys()
    return "ended_at" if by_end and not rare else "created_at"


@pytest.mark.parametrize(("statement", "ended"), [("list_runs", False), ("list_prunable", True)])
def test_every_list_is_read_off_an_index_in_its_order(statement, ended):
    database = apsw.Connection(MEMORY)
    for migration in migrations("sqlite"):
        database.execute(migration.sql)
    asked = {}
    for fields, after in product(filters(), (None, Place(50, 7))):
        where = RunFilter(**fields)
        for path in (index_of(where, ended=ended), ATTRIBUTE):
            if path is not ATTRIBUTE or where.attributes:
                few = path.by_end and bool(where.attributes)  # which are sorted
                asked |= {sql: (given, few) for sql, given in selects(statement, where, path, after, ended=ended)}
    assert len(asked) > 300
    for sql, (parameters, few) in asked.items():
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", {**parameters, "limit": 10})]
        bad = [step for step in plan if ("TEMP B-TREE" in step and not few) or step.startswith("SCAN")]
        bad = [step for step in bad if step != "SCAN run USING INDEX run_paused"]  # which has paused ones alone
        assert not bad, (sql, plan)


async def populated(j):
    """Runs with random fields and times that are often equal, created in another order than that of their times."""
    random = Random(3)
    runs = []
    for number in range(120):
        options = {
            "parent": random.choice([None, *PARENTS]),
            "correlation_id": random.choice([None, "c1", "c2"]),
        }
        workflow, workflow_id = random.choice(CHOICES["workflow"]), f"id{number % 6}"
        if any((run.workflow, run.workflow_id) == (workflow, workflow_id) and run.ended_at is None for run in runs):
            continue
        run = new_run(workflow, workflow_id, at=random.randrange(0, 60, 3), **options)
        run.attributes = random.choice([{}, {"tier": "gold"}, {"tier": "gold", "region": "eu"}, {"tier": "tin"}])
        await j.write(start(run))
        run.status = random.choice([Status.COMPLETED, Status.FAILED, Status.RUNNING, Status.WAITING, Status.CANCELLED])
        if run.status in ENDED:
            run.ended_at = run.created_at + random.randrange(0, 60, 3)
            await j.one(end(run, 2, run.status, at=run.ended_at))
        elif run.status is Status.WAITING:
            await j.one(append(run, 2, change=RunChange(status=Status.WAITING)))
        elif number % 2:
            run.paused = True
            await j.one(append(run, 2, change=RunChange(paused=True)))
        runs.append(run)
    return runs


@pytest.mark.parametrize("few", [2000, 10])
async def test_every_combination_of_filters_gives_the_right_pages(monkeypatch, few):
    """Whatever leads: attributes with up to a few runs do, and otherwise what is rare."""
    monkeypatch.setattr(listing, "FEW", few)
    async with SqliteStore(MEMORY, threaded=False) as store:
        j = Journal(store, await store.open("node"))
        runs = await populated(j)
        numbers = {run.run_id: number for number, run in enumerate(runs)}
        full = 0
        for fields in filters():
            key = order(fields)
            expected = [run for run in runs if matches(run, **fields)]
            expected.sort(key=lambda run: (getattr(run, key), numbers[run.run_id]), reverse=True)
            found, cursor = [], None
            while True:
                page = await store.runs(RunFilter(**fields), 7, cursor)
                found += page.items
                if (cursor := page.next) is None:
                    break
            assert [run.run_id for run in found] == [run.run_id for run in expected], fields
            assert await store.count(RunFilter(**fields), 5) == min(len(expected), 5), fields
            full += bool(found)
        assert full > 100
