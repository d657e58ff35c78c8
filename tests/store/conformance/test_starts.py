"""Starting and ending runs: keys, workflow ids, locks."""

from __future__ import annotations

import msgspec
import pytest

from jivsd.records import Event, Kind, Options, Status
from jivsd.store.api import Entry, Existing, NewRun, Refused, RunChange, RunFilter, StoreError, Written
from jivsd.store.lockbook import Kin, Tangle
from jivsd.store.tickets import Ticket, Tickets
from store.builders import AT, append, end, event, new_run, start


async def test_a_run_comes_back_as_it_was(journal):
    async with journal() as j:
        options = {"timeout": 5, "lock_key": "k", "attributes": {"tenant": "a", "n": [1]}, "priority": 3}
        run = new_run(workflow="order", workflow_id="o-1", **options)
        run.wake_at, run.started_at = 77, 78
        assert await j.one(start(run)) == Written()
        stored = await j.store.run(run.run_id)
        assert msgspec.json.encode(stored) == msgspec.json.encode(run)
        assert stored.options == run.options


async def test_a_key_with_the_same_input_gives_the_first_run(journal):
    async with journal() as j:
        first = new_run(workflow_id="a")
        assert await j.one(start(first, "key")) == Written()
        verdict = await j.one(start(new_run(workflow_id="b"), "key"))
        assert isinstance(verdict, Existing)
        assert verdict.run.run_id == first.run_id
        assert (await j.store.runs(RunFilter(), 10)).items[0].run_id == first.run_id


async def test_a_key_with_another_input_is_refused(journal):
    async with journal() as j:
        first = await j.start()
        await j.one(start(second := new_run(), "key"))
        assert await j.one(start(new_run(), "key", "i2")) == Refused("key_reused", second.run_id)
        assert await j.one(start(new_run(workflow="other"), "key", "i2")) == Written()
        assert await j.store.run(first.run_id) is not None


async def test_two_starts_with_one_key_in_one_batch(journal):
    async with journal() as j:
        first, second = new_run(), new_run()
        written, existing = await j.write(start(first, "key"), start(second, "key"))
        assert written == Written()
        assert existing.run.run_id == first.run_id
        assert await j.seqs(second) == []


async def test_an_existing_start_writes_nothing_of_the_second_run(journal):
    async with journal() as j:
        first, second = new_run(), new_run()
        await j.one(start(first, "key"))
        verdicts = await j.write(start(second, "key"), append(second, 2))
        assert isinstance(verdicts[0], Existing)
        assert isinstance(verdicts[1], Refused)
        assert await j.seqs(second) == []


async def test_a_start_repeated_after_pruning_is_gone(journal):
    async with journal() as j:
        run = new_run()
        await j.one(start(run, "key"))
        await j.one(end(run, 2))
        assert await j.prune(RunFilter(), 10) == 1
        assert await j.one(start(new_run(), "key")) == Refused("gone", run.run_id)


async def test_one_open_run_a_workflow_id(journal):
    async with journal() as j:
        first = await j.start(workflow_id="a")
        assert await j.one(start(new_run(workflow_id="a"))) == Refused("open", first.run_id)
        assert await j.one(start(new_run(workflow_id="a"), "new key")) == Refused("open", first.run_id)
        assert await j.one(start(new_run(workflow="other", workflow_id="a"))) == Written()
        second = new_run(workflow_id="a")
        assert await j.write(end(first, 2), start(second)) == [Written(), Written()]
        assert (await j.store.current_run("nap", "a")).run_id == second.run_id


async def test_a_start_written_before_is_written_again_without_effect(journal):
    async with journal() as j:
        run = new_run(workflow_id="a", lock_key="k")
        for _ in range(3):
            assert await j.one(start(run, "key")) == Written()
        assert len(await j.store.lock_queue("k")) == 1
        await j.one(end(run, 2))
        assert await j.one(start(run, "key")) == Written()
        assert (await j.store.run(run.run_id)).status is Status.COMPLETED


async def test_another_run_under_the_same_run_id_is_refused(journal):
    async with journal() as j:
        run = await j.start()
        twin = new_run(run_id=run.run_id, workflow_id="other", at=5)
        assert await j.one(start(twin)) == Refused("exists", run.run_id)


async def test_a_batch_with_the_same_start_twice(journal):
    async with journal() as j:
        run = new_run()
        assert await j.write(start(run), start(run), append(run, 2)) == [Written()] * 3
        assert await j.seqs(run) == [1, 2]


async def test_a_start_and_its_next_events_in_one_batch(journal):
    async with journal() as j:
        blocker = await j.start(workflow_id="a")
        good, bad = new_run(), new_run(workflow_id="a")
        refused = Refused("open", blocker.run_id)
        verdicts = await j.write(start(good), start(bad), append(good, 2), append(bad, 2))
        assert verdicts == [Written(), refused, Written(), refused]
        assert await j.seqs(bad) == []


async def test_a_start_under_an_old_epoch_is_fenced(journal):
    async with journal() as j:
        run = new_run()
        entry = start(run)
        entry.epoch = j.epoch - 1
        assert await j.store.commit([entry]) == [Refused("fenced")]
        assert await j.store.run(run.run_id) is None


async def test_lock_tickets_are_drawn_in_order_and_released_by_the_end(journal):
    async with journal() as j:
        first, second, third = [await j.start(lock_key="k") for _ in range(3)]
        await j.start(lock_key="other")
        queue = await j.store.lock_queue("k")
        assert [holder.run_id for holder in queue] == [first.run_id, second.run_id, third.run_id]
        assert [holder.ticket for holder in queue] == sorted({holder.ticket for holder in queue})
        await j.one(end(first, 2))
        queue = await j.store.lock_queue("k")
        assert [holder.run_id for holder in queue] == [second.run_id, third.run_id]
        assert len(await j.store.lock_queue()) == 3


async def test_each_holder_has_a_higher_fence_number(journal):
    async with journal() as j:
        fences = []
        first, second, third = [await j.start(lock_key="k") for _ in range(3)]
        fences.append((await j.store.lock_queue("k"))[0].fence)
        await j.one(end(third, 2))
        assert (await j.store.lock_queue("k"))[0].fence == fences[0], "a waiter who leaves changes nothing"
        await j.one(end(first, 2))
        fences.append((await j.store.lock_queue("k"))[0].fence)
        fences.append(await j.store.raise_fence("k"))
        await j.one(end(second, 2))
        await j.start(lock_key="k")
        fences.append((await j.store.lock_queue("k"))[0].fence)
        assert fences == sorted(set(fences))


async def drawn(j, run, key="k", path="lock", **ticket):
    return await j.one(Entry(run.run_id, run.shard, tickets=Tickets(draws=Ticket(key, path, 7, **ticket))))


async def queue(j, key="k"):
    return [(holder.run_id, holder.path) for holder in await j.store.lock_queue(key)]


async def test_tickets_of_a_runs_code_stand_in_the_same_queues_and_are_drawn_once(journal):
    async with journal() as j:
        owner = await j.start(lock_key="k")
        other = await j.start()
        for _ in range(2):
            assert await drawn(j, other) == Written()
            assert await drawn(j, owner, "other") == Written()
        assert await drawn(j, other, path="lock#2") == Written()
        assert await queue(j) == [(owner.run_id, ""), (other.run_id, "lock"), (other.run_id, "lock#2")]
        assert [holder.since for holder in await j.store.lock_queue("other")] == [7]
        await j.one(end(other, 2))
        assert await queue(j) == [(owner.run_id, "")]
        await j.one(end(owner, 2))
        assert await j.store.lock_queue() == []


async def test_a_run_gives_back_the_tickets_of_its_code_that_it_does_not_keep(journal):
    async with journal() as j:
        run, other = await j.start(lock_key="own"), await j.start()
        for path in ("a", "b", "c"):
            await drawn(j, run, path, path)
        await drawn(j, other, "a")
        fence = (await j.store.lock_queue("a"))[0].fence
        keep = Entry(run.run_id, run.shard, tickets=Tickets(keeps=("b", "c")))
        assert await j.write(keep, keep) == [Written()] * 2
        for gives in ("nothing", "c"):
            assert await j.one(Entry(run.run_id, run.shard, tickets=Tickets(gives=gives))) == Written()
        assert await queue(j, "own") == [(run.run_id, "")]
        assert await queue(j, "b") == [(run.run_id, "b")]
        assert await queue(j, "c") == []
        (holder,) = await j.store.lock_queue("a")
        assert (holder.run_id, holder.fence > fence) == (other.run_id, True)


async def test_a_ticket_that_is_not_to_wait_is_not_drawn_when_the_lock_is_held(journal):
    async with journal() as j:
        first, second = await j.start(), await j.start()
        assert await drawn(j, first, at_once=True) == Written()
        assert await drawn(j, first, at_once=True) == Written(), "it has it"
        assert await drawn(j, second, at_once=True) == Written(held_by=first.run_id)
        assert await queue(j) == [(first.run_id, "lock")]


async def test_who_has_a_lock_without_a_record_of_it_is_called_when_it_is_parked(journal):
    async with journal() as j:
        holder, waiting, elsewhere = [await j.start() for _ in range(3)]
        for run in (holder, waiting, elsewhere):
            await drawn(j, run)
        await drawn(j, elsewhere, "free", "lock#2")
        parked = RunChange(Status.WAITING, parked=True)
        for run in (holder, waiting, elsewhere):
            await j.one(Entry(run.run_id, run.shard, change=parked))
        assert await j.store.called_runs() == sorted([holder.run_id, elsewhere.run_id])
        for run, path in ((holder, "lock"), (elsewhere, "lock#2")):
            await j.one(Entry(run.run_id, run.shard, tickets=Tickets(granted=path)))
        assert await j.store.called_runs() == []
        heads = {one.key: (one.run_id, one.granted) for one in await j.store.lock_queue(None, 1)}
        assert heads == {"k": (holder.run_id, True), "free": (elsewhere.run_id, True)}
        await j.one(Entry(holder.run_id, holder.shard, tickets=Tickets(keeps=())))
        assert await j.store.called_runs() == [waiting.run_id]


async def test_tickets_drawn_and_an_end_in_one_batch(journal):
    async with journal() as j:
        run = await j.start()
        draws = Entry(run.run_id, run.shard, tickets=Tickets(draws=Ticket("k", "lock", 7)))
        assert await j.write(draws, end(run, 2)) == [Written()] * 2
        assert await j.store.lock_queue() == []


async def test_raising_the_fence_of_no_lock(journal):
    async with journal() as j:
        with pytest.raises(StoreError, match="nobody's"):
            await j.store.raise_fence("nobody's")


async def test_a_start_that_will_not_wait_for_a_held_lock_is_refused(journal):
    async with journal() as j:
        assert await j.one(start(first := new_run(lock_key="k", lock_wait=0))) == Written()
        refused = new_run(lock_key="k", lock_wait=0)
        assert await j.one(start(refused)) == Refused("locked", first.run_id)
        assert await j.one(start(waits := new_run(lock_key="k", lock_wait=1))) == Written()
        assert [holder.run_id for holder in await j.store.lock_queue("k")] == [first.run_id, waits.run_id]
        assert await j.store.run(refused.run_id) is None


async def test_an_ended_run_repeated_releases_nothing_twice(journal):
    async with journal() as j:
        first, second = [await j.start(lock_key="k") for _ in range(2)]
        for _ in range(2):
            assert await j.one(end(first, 2)) == Written()
        fence = (await j.store.lock_queue("k"))[0].fence
        assert await j.one(end(first, 2)) == Written()
        queue = await j.store.lock_queue("k")
        assert (queue[0].run_id, queue[0].fence) == (second.run_id, fence)


async def test_a_child_has_its_parent_in_its_row(journal):
    async with journal() as j:
        parent = await j.start()
        child = await j.start(parent=parent.run_id, parent_path="child#1", correlation_id="c")
        assert [run.run_id for run in (await j.store.runs(RunFilter(parent=parent.run_id), 5)).items] == [child.run_id]
        assert (await j.store.run(child.run_id)).options == Options(
            parent=parent.run_id, parent_path="child#1", correlation_id="c"
        )


async def test_an_entry_that_starts_and_ends(journal):
    async with journal() as j:
        run = new_run(status=Status.COMPLETED, lock_key="k")
        run.ended_at = 5
        whole = Entry(run.run_id, run.shard, events=[event(run, 1), event(run, 2)], new=NewRun(run), ends=True)
        assert await j.one(whole) == Written()
        assert await j.store.lock_queue("k") == []
        assert await j.one(start(new_run(workflow_id=run.workflow_id))) == Written()


async def test_a_refused_start_takes_nothing_with_it(journal):
    """A parent that comes back starts its child again, while the child lives and writes."""
    async with journal() as j:
        run = await j.start()
        again = new_run(run_id=run.run_id, workflow_id=run.workflow_id, at=5)
        verdicts = await j.write(start(again), append(run, 2))
        assert verdicts == [Refused("exists", run.run_id), Written()]
        assert await j.seqs(run) == [1, 2]


async def test_the_queues_by_pages_and_who_may_wait_in_a_circle(journal):
    async with journal() as j:
        first, second, third = [await j.start(workflow_id=id, lock_key="k1", at=AT + n) for n, id in enumerate("abc")]
        child = await j.start(workflow_id="d", parent=third.run_id, parent_path="n[1]/child")
        for run, key in ((second, "k2"), (first, "k2"), (child, "k1"), (child, "k3")):
            await drawn(j, run, key, f"lock {key}")
        queues = await j.store.lock_queues(limit=2)
        assert [(queue.key, queue.waiting) for queue in queues] == [("k1", 3), ("k2", 1)]
        assert [place.workflow_id for place in queues[0].places] == ["a", "b", "c", "d"]
        (k1,) = await j.store.lock_queues("k1", places=2)
        assert [(one.ticket, one.run_id, one.path) for one in k1.places] == [
            (1, first.run_id, ""),
            (2, second.run_id, ""),
        ]
        assert {(one.workflow, one.status, one.node, one.held_since) for one in k1.places} == {
            ("nap", first.status, "node-a", None)
        }
        assert [queue.key for queue in await j.store.lock_queues(after="k1")] == ["k2", "k3"]
        assert await j.store.lock_queues("nothing") == []
        granted = Event(first.run_id, 2, Kind.LOCK_GRANTED, "!lock", b'{"fence":1}', AT + 7)
        tickets = Tickets(granted="")
        assert await j.one(Entry(first.run_id, first.shard, events=[granted], tickets=tickets)) == Written()
        ((holder, *_),) = [queue.places for queue in await j.store.lock_queues("k1")]
        assert (holder.held_since, holder.since) == (AT + 7, AT)

        claims, kin = await j.store.tangle(AT + 100)
        assert {(claim.key, claim.run_id, claim.holds) for claim in claims} == {
            ("k1", first.run_id, True),
            ("k1", second.run_id, False),
            ("k1", child.run_id, False),
            ("k2", second.run_id, True),
            ("k2", first.run_id, False),
            ("k3", child.run_id, True),
        }
        assert kin == [Kin(child.run_id, third.run_id, "n[1]/child")]
        assert await j.store.tangle(6) == Tangle([], [])
