"""Looking: lists, pages, counts."""

from __future__ import annotations

import msgspec
import pytest

from jivsd.records import Decision, Incident, IncidentGroup, IncidentState, Status
from jivsd.store import listing
from jivsd.store.api import Entry, Plugin, RunChange, RunFilter, StoreError
from store.builders import append, end, new_run, post, start

one_version = pytest.mark.parametrize("journal", ["sqlite_file", "sqlite_memory", "postgres_18"], indirect=True)
"""For many tests of what every version of a server does alike."""


async def pages(j, where, limit):
    found, cursor = [], None
    while True:
        page = await j.store.runs(where, limit, cursor)
        assert len(page.items) <= limit
        found += [run.run_id for run in page.items]
        if page.next is None:
            return found
        cursor = page.next


async def populated(j):
    """Runs of two workflows in several statuses, oldest first."""
    runs = []
    for number in range(30):
        run = new_run(workflow=("nap", "order")[number % 2], workflow_id=f"id{number}")
        run.attributes = {"third": number % 3, "rare": number == 8}
        await j.write(start(run))
        runs.append(run)
        if number % 3 == 0:
            status = (Status.COMPLETED, Status.FAILED)[number % 2]
            await j.one(end(run, 2, status, at=1000 + number))
            run.status, run.ended_at = status, 1000 + number
        elif number % 5 == 0:
            await j.one(append(run, 2, change=RunChange(status=Status.WAITING)))
            run.status = Status.WAITING
        elif number % 4 == 1:
            await j.one(append(run, 2, change=RunChange(paused=True)))
            run.paused = True
        if number % 7 == 0:
            run.attributes = {"seventh": "yes", "third": number % 3}
            await j.one(Entry(run.run_id, run.shard, change=RunChange(attributes=run.attributes)))
    return runs


FILTERS = [
    (RunFilter(), lambda run: True),
    (RunFilter(workflow="nap"), lambda run: run.workflow == "nap"),
    (RunFilter(workflow="order", statuses=[Status.FAILED]), lambda run: run.status is Status.FAILED),
    (RunFilter(statuses=[Status.WAITING]), lambda run: run.status is Status.WAITING),
    (
        RunFilter(statuses=[Status.WAITING, Status.FAILED, Status.COMPLETED, Status.FAILED]),
        lambda run: run.status is not Status.RUNNING,
    ),
    (RunFilter(open_only=True), lambda run: run.ended_at is None),
    (RunFilter(open_only=True, workflow="nap"), lambda run: run.ended_at is None and run.workflow == "nap"),
    (RunFilter(open_only=True, statuses=[Status.FAILED, Status.WAITING]), lambda run: run.status is Status.WAITING),
    (RunFilter(workflow_id="id7"), lambda run: run.workflow_id == "id7"),
    (RunFilter(ended_before=1010), lambda run: run.ended_at is not None and run.ended_at < 1010),
    (RunFilter(workflow="nobody's"), lambda run: False),
    (RunFilter(attributes={"third": "1"}), lambda run: run.attributes["third"] == 1),
    (RunFilter(attributes={"rare": "true"}), lambda run: run.attributes.get("rare")),
    (RunFilter(attributes={"rare": "true", "third": "2"}), lambda run: run.attributes.get("rare")),
    (RunFilter(attributes={"rare": "true", "third": "1"}), lambda run: False),
    (
        RunFilter(attributes={"third": "0", "seventh": "yes"}, statuses=[Status.COMPLETED, Status.FAILED]),
        lambda run: run.attributes == {"seventh": "yes", "third": 0},
    ),
    (RunFilter(attributes={"seventh": "no"}), lambda run: False),
    (RunFilter(paused=True), lambda run: run.paused),
    (
        RunFilter(paused=True, workflow="order", attributes={"third": "1"}),
        lambda run: run.paused and run.attributes["third"] == 1,
    ),
    (RunFilter(paused=False, open_only=True), lambda run: run.ended_at is None and not run.paused),
]


@one_version
@pytest.mark.parametrize(("where", "matches"), FILTERS)
async def test_lists_are_newest_first_and_come_in_pages(journal, where, matches):
    async with journal() as j:
        runs = await populated(j)
        expected = [run.run_id for run in reversed(runs) if matches(run)]
        for limit in (1, 4, 30, 100):
            assert await pages(j, where, limit) == expected
        assert await j.store.count(where, 100) == len(expected)
        assert await j.store.count(where, 3) == min(len(expected), 3)
        if (cursor := (await j.store.runs(where, 2)).next) is not None:
            assert await j.store.count(where, 100, cursor) == len(expected) - 2


@one_version
@pytest.mark.parametrize(("where", "matches"), FILTERS)
async def test_what_is_frequent_does_not_lead_to_what_is_rare(journal, where, matches, monkeypatch):
    """Whichever condition leads, the list is the same."""
    monkeypatch.setattr(listing, "FEW", 5)
    await test_lists_are_newest_first_and_come_in_pages(journal, where, matches)


async def test_attributes_go_with_their_run(journal):
    async with journal() as j:
        run = new_run()
        run.attributes = {"region": "eu"}
        await j.write(start(run))
        await j.one(end(run, 2))
        assert await j.prune(RunFilter(attributes={"region": "us"}), 10) == 0
        assert await j.prune(RunFilter(attributes={"region": "eu"}), 10) == 1
        other = await j.start()  # may get the number that the first one had
        assert await pages(j, RunFilter(attributes={"region": "eu"}), 10) == []
        assert (await j.store.run(other.run_id)).attributes == {}


async def test_a_list_goes_on_where_it_was_when_runs_come_and_go(journal):
    async with journal() as j:
        runs = await populated(j)
        page = await j.store.runs(RunFilter(), 10)
        await j.start()
        await j.prune(RunFilter(), 100)
        rest = await j.store.runs(RunFilter(), 100, page.next)
        old = [run.run_id for run in reversed(runs[:20]) if run.ended_at is None]
        assert [run.run_id for run in rest.items] == old


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1; DROP TABLE run", "9" * 40, "\u0661"])
async def test_a_cursor_that_is_none(journal, cursor):
    async with journal() as j:
        with pytest.raises(StoreError, match="is not a cursor"):
            await j.store.runs(RunFilter(), 10, cursor)


async def test_the_current_run_is_the_open_one_or_the_newest(journal):
    async with journal() as j:
        assert await j.store.current_run("nap", "a") is None
        first = await j.start(workflow_id="a")
        await j.one(end(first, 2))
        assert (await j.store.current_run("nap", "a")).run_id == first.run_id
        second = await j.start(workflow_id="a")
        assert (await j.store.current_run("nap", "a")).run_id == second.run_id
        await j.one(end(second, 2))
        assert (await j.store.current_run("nap", "a")).run_id == second.run_id
        assert await j.store.current_run("other", "a") is None


async def test_open_runs_by_run_id_for_recovery(journal):
    async with journal() as j:
        runs = await populated(j)
        expected = sorted(run.run_id for run in runs if run.ended_at is None)
        found, after = [], None
        while page := await j.store.open_runs(after, 4):
            found += [run.run_id for run in page]
            after = found[-1]
        assert found == expected


async def test_many_rows_at_once_in_the_order_of_their_ids(journal):
    async with journal() as j:
        first, second = await j.start(), await j.start()
        ids = [second.run_id, "nobody", first.run_id, second.run_id]
        assert await j.store.rows(ids) == [await j.store.run(run_id) for run_id in ids]
        assert await j.store.rows([]) == []


async def test_counts(journal):
    async with journal() as j:
        runs = await populated(j)
        assert (await j.store.counts())["unread"] == 0
        run = next(one for one in runs if one.status is Status.RUNNING)
        await j.write(post(run, "one"), post(run, "two"))
        counts = await j.store.counts()
        assert counts.pop("incidents") == 0
        assert counts.pop("unread") == 2
        assert counts.pop("paused") == sum(run.paused for run in runs)
        assert counts == {status: n for status in Status if (n := sum(run.status is status for run in runs))}


async def test_incidents_are_listed_newest_first_and_by_page(journal):
    async with journal() as j:
        run = await j.start()
        for number in range(7):
            state = (IncidentState.OPEN, IncidentState.RESOLVED)[number % 2]
            owner = run.run_id if number < 3 else None
            await j.store.put_incident(Incident(f"i{number}", "plugin", "broken", number, owner, state=state))
        await j.store.put_incident(Incident("i2", "plugin", "still broken", 2, run.run_id))

        async def names(**where):
            found, cursor = [], None
            while True:
                items, cursor = await j.store.incidents(limit=2, cursor=cursor, **where)
                found += [incident.incident_id for incident in items]
                if cursor is None:
                    return found

        assert await names() == ["i6", "i5", "i4", "i3", "i2", "i1", "i0"]
        assert await names(state="OPEN") == ["i6", "i4", "i2", "i0"]
        assert await names(run_id=run.run_id) == ["i2", "i1", "i0"]
        assert await names(state="RESOLVED", run_id=run.run_id) == ["i1"]
        assert (await j.store.incident("i2")).message == "still broken"
        assert await j.store.incident("none") is None


async def test_plugins_are_kept_under_their_hash(journal):
    async with journal() as j:
        plugin = Plugin("abc", "naps", {"naps/__init__.py": "x = 1\n", "naps/b.py": "\u00e9"}, 5)
        for _ in range(2):
            await j.store.put_plugin(plugin)
        await j.store.put_plugin(Plugin("abc", "other name", {}, 6))
        assert await j.store.plugin("abc") == plugin
        assert await j.store.plugin("none") is None


async def test_prune_removes_ended_runs_and_all_that_was_theirs(journal):
    async with journal() as j:
        runs = await populated(j)
        ended = [run for run in runs if run.ended_at is not None]
        large = b'"' + b"x" * 70_000 + b'"'
        holder = new_run(workflow_id="large")
        entry = start(holder)
        entry.events = [msgspec.structs.replace(entry.events[0], payload=large)]
        await j.one(entry)
        await j.one(end(holder, 2, at=1))
        await j.store.put_incident(Incident("i1", "step", "x", 1, holder.run_id))
        assert await j.prune(RunFilter(ended_before=1000), 10) == 1
        assert await j.store.run(holder.run_id) is None
        assert await j.seqs(holder) == []
        assert await j.store.incident("i1") is None
        assert await j.prune(RunFilter(workflow="nap", statuses=[Status.COMPLETED]), 2) == 2
        assert await j.prune(RunFilter(statuses=[Status.COMPLETED, Status.FAILED]), 100) == len(ended) - 2
        assert await j.prune(RunFilter(), 100) == 0
        assert (await j.store.counts()).keys() == {"RUNNING", "WAITING", "paused", "incidents", "unread"}
        assert await j.store.check() == []


async def test_probe_writes(journal):
    async with journal() as j:
        for _ in range(2):
            await j.store.probe()


async def test_what_it_keeps_in_memory_can_be_given_back(journal):
    async with journal() as j:
        run = await j.start()
        await j.store.trim()
        assert await j.store.run(run.run_id) == run


async def test_incidents_are_grouped_by_fingerprint_the_last_seen_first(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start(workflow_id="other")
        found = [
            Incident(f"i{number}", "step", f"order {number} is lost", number, one.run_id, "nap", f"a[{number}]")
            for number, one in enumerate([run, run, other], 1)
        ]
        found[1].history = [Decision("acknowledge", "ann", "mine", 5)]
        alone = Incident("j1", "step", "the disk is full", 2)
        for incident in [*found, alone]:
            await j.store.put_incident(incident)
        lost = IncidentGroup(
            found[0].fingerprint, "step", "order 3 is lost", "i3", 3, 1, 3, "nap", "a[3]", runs=2, acknowledged=1
        )
        full = IncidentGroup(alone.fingerprint, "step", "the disk is full", "j1", 1, 2, 2)
        assert await j.store.incident_groups() == [lost, full]
        assert await j.store.incident_groups(limit=1) == [lost]
        assert await j.store.incident_groups("RESOLVED") == []
        page, following = await j.store.incidents("OPEN", None, 2, None, lost.fingerprint)
        assert page == [found[2], found[1]]
        rest, following = await j.store.incidents("OPEN", None, 2, following, lost.fingerprint)
        assert (rest, following) == ([found[0]], None)
