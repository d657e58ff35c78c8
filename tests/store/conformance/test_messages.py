"""The inbox: durable, deduplicated, for open runs only."""

from __future__ import annotations

from jivsd.records import Kind
from jivsd.store.api import Delivered, Duplicate, Refused, RunFilter, Written
from store.builders import AT, append, end, message, new_run, post, start


async def test_a_message_for_a_workflow_id_reaches_the_open_run(journal):
    async with journal() as j:
        old = await j.start(workflow_id="a")
        await j.one(end(old, 2))
        run = await j.start(workflow_id="a")
        assert await j.one(post(run, "m1")) == Delivered(run.run_id)
        (stored,) = await j.store.messages(run.run_id)
        assert stored.run_id == run.run_id
        assert (stored.message_id, stored.kind, stored.by) == ("m1", Kind.SIGNAL, "ann")
        assert stored.payload == b'{"by":"ann"}'


async def test_messages_come_in_the_order_of_their_arrival(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        names = ["m3", "m1", "m2"]
        await j.write(*[post(run, name) for name in names], post(other, "m1"))
        await j.one(post(run, "m0", to_run=True))
        assert [stored.message_id for stored in await j.store.messages(run.run_id)] == [*names, "m0"]


async def test_a_message_id_counts_once_for_ever(journal):
    async with journal() as j:
        run = await j.start(workflow_id="a")
        first, second = await j.write(post(run, "m1"), post(run, "m1", payload=b'"other"'))
        assert (first, second) == (Delivered(run.run_id), Duplicate(run.run_id, unread=AT))
        await j.one(append(run, 2, consumed=["m1"]))
        assert await j.one(post(run, "m1")) == Duplicate(run.run_id)
        await j.one(end(run, 3))
        assert await j.one(post(run, "m1")) == Duplicate(run.run_id)
        later = await j.start(workflow_id="a")
        assert await j.one(post(later, "m1")) == Duplicate(run.run_id)
        await j.prune(RunFilter(), 10)
        assert await j.one(post(later, "m1")) == Duplicate(run.run_id)


async def test_no_open_run_no_message(journal):
    async with journal() as j:
        ghost = new_run()
        assert await j.one(post(ghost, "m1")) == Refused("not_found")
        assert await j.one(post(ghost, "m1", to_run=True)) == Refused("not_found")
        run = await j.start()
        await j.one(end(run, 2))
        assert await j.one(post(run, "m1")) == Refused("ended", run.run_id)
        assert await j.one(post(run, "m1", to_run=True)) == Refused("ended", run.run_id)


async def test_a_run_id_under_another_workflow_is_not_found(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        wrong = post(other, "m1", to_run=True)
        wrong.message = type(wrong.message)(
            run.workflow, "another id", "m1", Kind.SIGNAL, "x", b"{}", 1, run_id=run.run_id
        )
        assert await j.one(wrong) == Refused("not_found")


async def test_posts_and_starts_and_ends_in_one_batch_take_their_turns(journal):
    async with journal() as j:
        run = new_run(workflow_id="a")
        verdicts = await j.write(post(run, "m1"), start(run), post(run, "m2"), end(run, 2), post(run, "m3"))
        assert verdicts == [
            Refused("not_found"),
            Written(),
            Delivered(run.run_id),
            Written(),
            Refused("ended", run.run_id),
        ]


async def test_whoever_sends_in_one_batch_is_heard_in_that_order(journal):
    async with journal() as j:
        run, other = await j.start(), await j.start()
        told = append(other, 2, inbox=[message(run, "m2", to_run=True)])
        verdicts = await j.write(post(run, "m1", to_run=True), told, post(run, "m3"), post(run, "m2"))
        assert verdicts == [Delivered(run.run_id), Written(), Delivered(run.run_id), Duplicate(run.run_id, unread=AT)]
        assert [stored.message_id for stored in await j.store.messages(run.run_id)] == ["m1", "m2", "m3"]


async def test_a_message_waits_for_whoever_begins_in_its_batch(journal):
    async with journal() as j:
        old, new = await j.start(workflow_id="a"), new_run(workflow_id="a")
        batch = post(old, "m1", to_run=True), end(old, 2), post(old, "m2", to_run=True), start(new), post(new, "m3")
        first, ended, refused, begun, last = await j.write(*batch)
        assert (first, ended, begun) == (Delivered(old.run_id), Written(), Written())
        assert (refused, last) == (Refused("ended", old.run_id), Delivered(new.run_id))
        assert await j.store.messages(old.run_id) == []
        assert [stored.message_id for stored in await j.store.messages(new.run_id)] == ["m3"]


async def test_a_message_and_its_event_change_places_in_one_commit(journal):
    async with journal() as j:
        run = await j.start()
        await j.write(post(run, "m1"), post(run, "m2"))
        refused = append(run, 1, consumed=["m1"])
        assert isinstance(await j.one(refused), Refused)
        assert len(await j.store.messages(run.run_id)) == 2
        assert await j.one(append(run, 2, consumed=["m1"])) == Written()
        assert [stored.message_id for stored in await j.store.messages(run.run_id)] == ["m2"]


async def test_the_end_leaves_unread_messages_to_nobody(journal):
    async with journal() as j:
        run = await j.start()
        await j.write(post(run, "m1"), post(run, "m2"))
        await j.one(end(run, 2, consumed=["m1"]))
        assert await j.store.messages(run.run_id) == []


async def test_messages_for_other_runs_go_with_the_entry(journal):
    async with journal() as j:
        parent, child = await j.start(), await j.start()
        told = message(parent, "end-of-child", to_run=True, kind=Kind.CHILD_ENDED)
        for _ in range(2):
            assert await j.one(end(child, 2, inbox=[told])) == Written()
        assert await j.store.messages(parent.run_id) == [told]


async def test_messages_for_runs_that_never_were_are_dropped(journal):
    """A run that is terminated terminates its children; one that had to wait has not been started."""
    async with journal() as j:
        parent, never = await j.start(), new_run()
        assert await j.one(end(parent, 2, inbox=[message(never, "e", to_run=True, kind=Kind.ENDED)])) == Written()
        assert await j.store.messages(never.run_id) == []
        assert await j.store.check() == []


async def test_messages_for_other_runs_need_no_open_run(journal):
    async with journal() as j:
        parent, child = await j.start(), await j.start()
        await j.one(end(parent, 2))
        told = message(parent, "end-of-child", to_run=True, kind=Kind.CHILD_ENDED)
        by_workflow_id = message(parent, "by-id")
        assert await j.one(end(child, 2, inbox=[told, by_workflow_id])) == Written()
