"""What others hold in the journal's tables: nobody waits for it but whom it concerns, and it is said who holds it."""

from __future__ import annotations

import pytest
import trio
from databases import NEWEST

from jivsd.records import new_id
from jivsd.store.api import Busy, Delivered, Duplicate, Refused, StoreAway, Written
from store.builders import append, end, message, new_run, post, start
from store.test_postgres import opened, somebody

COLUMNS = "created_at, shard, paused, parked, status, workflow, code_hash, options, attributes, input"


@pytest.fixture
def url(postgres):
    return postgres(NEWEST).clean()


async def test_a_workflow_id_that_somebody_has_not_committed_keeps_only_its_start_waiting(url):
    async with opened(url) as j, somebody(url) as other:
        free = await j.start(workflow_id="a")
        await other("BEGIN")
        await other(
            f"INSERT INTO jivsd.run (run_id, workflow_id, {COLUMNS}) SELECT $1, 'b', {COLUMNS} FROM jivsd.run",
            theirs := new_id(),
        )
        wanted = new_run(workflow_id="b")
        assert await j.write(append(free, 2), start(wanted), append(free, 3)) == [Written(), Busy(), Written()]
        await other("COMMIT")
        assert await j.one(start(wanted)) == Refused("open", theirs)


async def test_a_message_id_that_somebody_has_not_committed_keeps_only_its_message_waiting(url):
    async with opened(url) as j, somebody(url) as other:
        run, free = await j.start(), await j.start()
        said = message(run, "m1")
        await other("BEGIN")
        await other(
            "INSERT INTO jivsd.inbox (run_id, at, state, workflow, workflow_id, message_id, kind, path, by)"
            " VALUES ($1, 1, 'UNREAD', $2, $3, 'm1', $4, $5, '')",
            *(run.run_id, run.workflow, run.workflow_id, said.kind, said.path),
        )
        batch = [append(free, 2), post(run, "m1"), append(run, 2), post(free, "m2")]
        assert await j.write(*batch) == [Written(), Busy(), Written(), Delivered(free.run_id)]
        await other("COMMIT")
        assert isinstance(await j.one(post(run, "m1")), Duplicate)


async def test_a_shard_row_that_somebody_holds_keeps_its_runs_waiting_and_no_others(url):
    async with opened(url) as j, somebody(url) as other:
        held, free = await j.start(workflow_id="a"), await j.start(workflow_id="b")
        assert held.shard != free.shard
        await other("BEGIN")
        await other("SELECT FROM jivsd.shard WHERE id = $1 FOR UPDATE", held.shard)
        with trio.fail_after(5):
            batch = [append(held if number % 2 else free, number // 2 + 2) for number in range(200)]
            assert await j.write(*batch) == [Written(), Busy()] * 100
            assert await j.write(end(free, 102), append(held, 2)) == [Written(), Busy()]
        (who,) = await j.store.outsiders()
        assert "user jivsd" in who
        assert "FROM jivsd.shard" in who
        await other("COMMIT")
        assert await j.store.outsiders() == []
        assert await j.write(*(append(held, seq) for seq in range(2, 102))) == [Written()] * 100


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLE jivsd.event IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE jivsd.event IN SHARE MODE",
        "ALTER TABLE jivsd.event ADD COLUMN more int",
        "CREATE INDEX tried ON jivsd.event (at)",
    ],
)
async def test_a_table_that_somebody_locks(url, statement):
    async with opened(url) as j, somebody(url) as other:
        run = await j.start()
        await other("BEGIN")
        await other(statement)
        with (
            trio.fail_after(5),
            pytest.raises(StoreAway, match=r"the table event is locked by .* \(process \d+, user jivsd, tran"),
        ):
            await j.write(*(append(run, seq) for seq in range(2, 200)))
        await other("ROLLBACK")
        assert await j.write(append(run, 2), end(run, 3)) == [Written()] * 2


async def test_many_keys_that_somebody_has_not_committed(url):
    """The journal does not stand still for as long as it would take to wait for each of them."""
    async with opened(url) as j, somebody(url) as other:
        free = await j.start()
        await other("BEGIN")
        await other(
            "INSERT INTO jivsd.idempotency_key (workflow, key, input_hash, run_id, at)"
            " SELECT $1, 'k' || number, 'i1', $2, 1 FROM generate_series(1, 200) AS number",
            *(free.workflow, new_id()),
        )
        starts = [start(new_run(), f"k{number}") for number in range(1, 201)]
        with trio.fail_after(8):
            assert await j.write(*starts, append(free, 2)) == [*[Busy()] * 200, Written()]
        await other("COMMIT")
        assert {verdict.why for verdict in await j.write(*starts)} == {"gone"}
