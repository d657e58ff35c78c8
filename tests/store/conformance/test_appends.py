"""Appending to journals: all or nothing for each entry, each run for itself, nothing twice."""

from __future__ import annotations

import msgspec
import pytest

from jivsd.records import ErrorRecord, Incident, IncidentState, Progress, Status, encode
from jivsd.store.api import Entry, Refused, RunChange, Written
from store.builders import append, event, message, new_run, start


async def test_events_come_back_as_they_were(journal):
    async with journal() as j:
        run = await j.start()
        odd = event(run, 2, payload=b'"\xe2\x82\xac \\u0000 \'; DROP"', attempt=7, by="Zo\u00eb")
        assert await j.one(Entry(run.run_id, run.shard, events=[odd])) == Written()
        assert await j.one(append(run, 3, 4, 5)) == Written()
        stored = await j.store.events(run.run_id)
        assert stored[1] == odd
        assert [event.seq for event in stored] == [1, 2, 3, 4, 5]
        assert [event.seq for event in await j.store.events(run.run_id, after=2, limit=2)] == [3, 4]
        assert await j.store.events("nobody") == []


@pytest.mark.parametrize("size", [65_536, 65_537, 1_048_576])
async def test_large_payloads(journal, size):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        payload = b'"' + b"x" * (size - 2) + b'"'
        large = [event(run, 2, payload), event(run, 3, payload), event(other, 2, payload)]
        for one in large:
            owner = run if one.run_id == run.run_id else other
            assert await j.one(Entry(owner.run_id, owner.shard, events=[one])) == Written()
        assert (await j.store.events(run.run_id))[1:] == large[:2]
        assert (await j.store.events(other.run_id))[1:] == large[2:]
        assert await j.store.check() == []


async def test_a_large_batch_keeps_every_row(journal):
    async with journal() as j:
        runs = [new_run() for _ in range(90)]
        assert await j.write(*[start(run) for run in runs]) == [Written()] * 90
        batch = [append(run, *range(2, 9)) for run in runs]
        assert await j.write(*batch) == [Written()] * 90
        for run in runs:
            assert await j.seqs(run) == list(range(1, 9))


async def test_the_same_entry_again_is_written_and_changes_nothing(journal):
    async with journal() as j:
        run = await j.start()
        assert await j.one(append(run, 2, 3)) == Written()
        assert await j.one(append(run, 2, 3)) == Written()
        assert await j.one(append(run, 3)) == Written()
        assert await j.seqs(run) == [1, 2, 3]


async def test_a_batch_again_leaves_the_row_as_its_last_entry_says(journal):
    """Its answer was lost. The first entry has no event by which it is known again: it is written over the second."""
    parks = RunChange(status=Status.WAITING, wake_at=50, parked=True)
    async with journal() as j:
        run = await j.start()
        for _ in range(2):
            goes_on = append(run, 2, change=RunChange(status=Status.RUNNING))
            assert await j.write(Entry(run.run_id, run.shard, change=parks), goes_on) == [Written()] * 2
            row = await j.store.run(run.run_id)
            assert (row.status, row.parked, row.wake_at) == (Status.RUNNING, False, None)


async def test_another_event_in_the_same_place_is_refused(journal):
    async with journal() as j:
        run = await j.start()
        await j.one(append(run, 2))
        other = Entry(run.run_id, run.shard, events=[event(run, 2, b'"other"'), event(run, 3)])
        assert await j.one(other) == Refused("exists", run.run_id)
        assert await j.seqs(run) == [1, 2]
        assert (await j.store.events(run.run_id))[1] == event(run, 2)


async def test_half_of_an_entry_there_already_is_not_the_same_entry(journal):
    async with journal() as j:
        run = await j.start()
        await j.one(append(run, 2))
        assert await j.one(append(run, 2, 3)) == Refused("exists", run.run_id)
        assert await j.seqs(run) == [1, 2]


async def test_a_refused_entry_takes_only_its_runs_later_ones_with_it(journal):
    async with journal() as j:
        bad, good = await j.start(), await j.start()
        await j.one(append(bad, 2, 3))
        verdicts = await j.write(
            append(good, 2),
            append(bad, 4),
            Entry(bad.run_id, bad.shard, events=[event(bad, 3, b'"another"')]),
            append(good, 3),
            append(bad, 5),
        )
        refused = Refused("exists", bad.run_id)
        assert verdicts == [Written(), Written(), refused, Written(), refused]
        assert await j.seqs(bad) == [1, 2, 3, 4]
        assert await j.seqs(good) == [1, 2, 3]


async def test_a_refused_entry_leaves_nothing_behind(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        await j.one(append(run, 2))
        incident = Incident("i1", "step", "no", 1, run_id=run.run_id)
        whole = Entry(
            run.run_id,
            run.shard,
            events=[event(run, 2, b'"another"')],
            change=RunChange(status=Status.BLOCKED),
            inbox=[message(other, "m1")],
            incidents=[incident],
        )
        assert await j.one(whole) == Refused("exists", run.run_id)
        assert (await j.store.run(run.run_id)).status is Status.RUNNING
        assert await j.store.messages(other.run_id) == []
        assert await j.store.incident("i1") is None


async def test_entries_of_an_older_epoch_are_refused_and_others_written(journal):
    async with journal() as j:
        lost, kept = await j.start(workflow_id="a"), await j.start(workflow_id="b")
        assert lost.shard != kept.shard
        raised = await j.store.raise_epoch("node-a", {lost.shard: j.epoch})
        assert raised == {lost.shard: j.epoch + 1}
        fenced = Refused("fenced")
        assert await j.write(append(lost, 2), append(kept, 2), append(lost, 3)) == [fenced, Written(), fenced]
        assert await j.seqs(lost) == [1]
        early, late = append(lost, 2), append(lost, 2)
        early.epoch, late.epoch = j.epoch, j.epoch + 1
        assert await j.store.commit([early, late]) == [fenced, Written()]  # two lives of it


async def test_only_the_owner_who_knows_the_epoch_raises_it(journal):
    async with journal() as j:
        assert await j.store.raise_epoch("node-b", {3: j.epoch}) == {}
        assert await j.store.raise_epoch("node-a", {3: j.epoch - 1, 4: j.epoch}) == {4: j.epoch + 1}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"path": "\ud800"}, id="a lone surrogate"),
        pytest.param({"at": 1 << 70}, id="a number too large"),
        pytest.param({"seq": None}, id="a seq that is none"),
    ],
)
async def test_what_cannot_be_stored_fails_alone(journal, wrong):
    async with journal() as j:
        bad, good = await j.start(), await j.start()
        broken = msgspec.structs.replace(event(bad, 2), **wrong)
        verdicts = await j.write(append(good, 2), Entry(bad.run_id, bad.shard, events=[broken]), append(good, 3))
        assert verdicts[0] == verdicts[2] == Written()
        assert verdicts[1].why == "invalid"
        assert verdicts[1].detail
        assert await j.seqs(bad) == [1]
        assert await j.seqs(good) == [1, 2, 3]


async def test_changes_of_a_run(journal):
    async with journal() as j:
        run = await j.start()
        error = ErrorRecord("ValueError", "no", {"a": 1}, [ErrorRecord("KeyError", "k")])
        first = RunChange(status=Status.WAITING, wake_at=50, started_at=3)
        assert await j.one(append(run, 2, change=first)) == Written()
        stored = await j.store.run(run.run_id)
        assert (stored.status, stored.wake_at, stored.started_at) == (Status.WAITING, 50, 3)
        await j.one(append(run, 3, change=RunChange(paused=True)))
        stored = await j.store.run(run.run_id)
        assert (stored.status, stored.wake_at, stored.paused) == (Status.WAITING, 50, True)
        second = RunChange(status=Status.FAILED, ended_at=9, error=encode(error), paused=False, code_hash="new")
        await j.one(append(run, 4, change=second))
        stored = await j.store.run(run.run_id)
        assert (stored.status, stored.wake_at, stored.ended_at) == (Status.FAILED, None, 9)
        assert (stored.error, stored.paused, stored.code_hash) == (error, False, "new")


async def test_a_change_of_a_run_that_is_not_there_is_refused(journal):
    async with journal() as j:
        ghost = new_run()
        verdict = await j.one(append(ghost, 2, change=RunChange(status=Status.WAITING)))
        assert verdict == Refused("not_found", ghost.run_id)
        assert await j.seqs(ghost) == []


async def test_incidents_are_inserted_and_replaced(journal):
    async with journal() as j:
        run = await j.start()
        incident = Incident("i1", "replay", "does not match", 5, run.run_id, "nap", "a#1", {"expected": [1], "n": None})
        await j.one(append(run, 2, incidents=[incident]))
        assert await j.store.incident("i1") == incident
        assert (await j.store.counts())["incidents"] == 1
        solved = msgspec.structs.replace(
            incident,
            state=IncidentState.RESOLVED,
            resolution="value",
            resolved_by="ann",
            resolved_why="checked by hand",
            resolved_at=8,
        )
        await j.one(append(run, 3, incidents=[solved]))
        assert await j.store.incident("i1") == solved
        assert (await j.store.counts())["incidents"] == 0


async def test_progress_is_replaced_and_forgotten_by_path(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        copied = Progress("a", 1, 5, msgspec.Raw(b'{"row":1}'), 1, 2.5)
        await j.one(Entry(run.run_id, run.shard, progress=[copied, Progress("b", 2, 6)]))
        await j.one(Entry(other.run_id, other.shard, progress=[Progress("a", 3, 7, done=1)]))
        assert await j.store.progress(run.run_id) == [copied, Progress("b", 2, 6)]
        further = msgspec.structs.replace(copied, at=8, done=2)
        await j.one(append(run, 2, progress=[further, Progress("b"), Progress("never there")]))
        assert await j.store.progress(run.run_id) == [further]
        (recorded, ghost, second) = await j.store.recorded([run.run_id, "nobody", other.run_id])
        assert recorded.progress == [further]
        assert ghost is None
        assert [one.attempt for one in second.progress] == [3]


async def test_a_store_may_ask_for_more(journal):
    async with journal() as j:
        runs = [await j.start() for _ in range(4)]
        entries = [append(run, 2) for run in runs]
        for entry in entries:
            entry.epoch = j.epoch
        waiting, heard = [entries[2:3], entries[3:]], []

        def more(verdicts):
            heard.append(verdicts)
            return waiting.pop(0) if waiting else []

        verdicts = await j.store.commit(entries[:2], more)
        if heard:  # one that works on the caller's own thread gains nothing by it
            assert heard == [[Written()] * 2, [Written()], [Written()]]
            assert verdicts == heard[-1]
            written = runs
        else:
            assert j.store.path == ":memory:"
            assert verdicts == [Written()] * 2
            written = runs[:2]
        assert [await j.seqs(run) for run in runs] == [[1, 2] if run in written else [1] for run in runs]


async def test_what_goes_wrong_with_more_leaves_what_was_written_before(journal):
    async with journal() as j:
        runs = [await j.start() for _ in range(2)]
        first, second = (append(run, 2) for run in runs)
        first.epoch, second.epoch = j.epoch, j.epoch - 1
        waiting = [[second]]
        verdicts = await j.store.commit([first], lambda verdicts: waiting.pop() if waiting else [])
        if not waiting:
            assert verdicts == [Refused("fenced")]
        assert [await j.seqs(run) for run in runs] == [[1, 2], [1]]
