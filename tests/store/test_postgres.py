"""The PostgreSQL store: servers that will not do, sessions that die, rows that others hold, answers that get lost."""

from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import trio
from databases import NEWEST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jivsd
from jivsd.bridge import Bridge
from jivsd.proof.pgserver import VERSIONS, programs
from jivsd.records import Status, new_id
from jivsd.resources import bundled
from jivsd.store.api import (
    Busy,
    Delivered,
    Duplicate,
    Entry,
    Existing,
    OutcomeUnknown,
    Refused,
    RunChange,
    RunFilter,
    StoreAway,
    StoreError,
    Written,
)
from jivsd.store.postgres import PostgresStore
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.claiming import Claim
from jivsd.store.postgres.connections import in_schema
from jivsd.store.postgres.content import literal
from jivsd.store.postgres.server import objection
from jivsd.store.statements import statements
from store.builders import Journal, append, end, event, found_by_mark, marked, message, new_run, post, start

SQL = statements("postgres")
PATIENCE = 30.0


@pytest.fixture
def url(postgres):
    """An empty journal on the newest server."""
    return postgres(NEWEST).clean()


@asynccontextmanager
async def opened(url, **options):
    async with PostgresStore(url, **options) as store:
        yield Journal(store, await store.open("node-a"))


class Session:
    """Somebody else's session, by another bridge."""

    def __init__(self, bridge, connection):
        self._bridge = bridge
        self._connection = connection

    async def __call__(self, sql, *arguments):
        return await self._bridge.call(lambda: self._connection.fetch(sql, *arguments), timeout=PATIENCE)


@asynccontextmanager
async def somebody(url):
    async with Bridge("somebody") as bridge:
        connection = await bridge.call(lambda: asyncpg.connect(url), timeout=PATIENCE)
        try:
            yield Session(bridge, connection)
        finally:

            async def close():
                connection.terminate()

            await bridge.call(close, timeout=PATIENCE)


# ---- what is sent


@given(
    texts=st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    quotes=st.lists(st.text('"\\{}, \n\t\x1f\x7fNUL')),
    numbers=st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1)),
    truths=st.lists(st.none() | st.booleans()),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_list_goes_as_the_text_of_an_array(url, texts, quotes, numbers, truths):
    asked = "SELECT $1::text::text[], $2::text::text[], $3::text::bigint[], $4::text::boolean[]"
    lists = [texts, quotes, numbers, truths]

    async def answer():
        connection = await asyncpg.connect(url)
        try:
            return [*await connection.fetchrow(asked, *map(literal, lists))]
        finally:
            await connection.close()

    assert asyncio.run(answer()) == lists


# ---- the schema


@pytest.mark.parametrize("version", VERSIONS)
def test_every_statement_is_described_used_and_fits_the_schema(postgres, version):
    databases = postgres(version)
    store = Path(jivsd.__file__).parent / "store"
    code = "\n".join(
        path.read_text() for path in [*store.glob("*.py"), *store.glob("copying/*.py"), *store.glob("postgres/*.py")]
    )
    prepared = []
    for number, name in enumerate(SQL.descriptions):
        assert SQL.descriptions[name].endswith("."), name
        assert f'"{name}"' in code, name
        sql = re.sub(r"(?<!:):limit", "10", SQL[name])
        if not sql.startswith(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")):
            prepared.append(f"PREPARE p{number} AS {sql}")
    databases.clean()
    assert len(prepared) > 70
    databases.sql(*prepared, "SELECT 1", database=databases.common)


def test_the_full_picture_is_the_sum_of_the_migrations(postgres):
    databases = postgres(NEWEST)
    url = databases.clean()
    picture = in_schema((bundled("schema") / "postgres" / "schema.sql").read_text(), "picture")
    databases.sql("CREATE SCHEMA picture", picture, "SELECT 1", database=databases.common)
    try:
        painted, made = (_dump(url, schema) for schema in ("picture", "jivsd"))
    finally:
        databases.sql("DROP SCHEMA picture CASCADE", "SELECT 1", database=databases.common)
    assert painted == made
    assert made.count("CREATE TABLE") > 15


def _dump(url, schema):
    """A schema as pg_dump has it, without the lines that name it or the moment."""
    command = [programs(NEWEST) / "pg_dump", "--schema-only", f"--schema={schema}", "--no-comments", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in said.splitlines() if line and not line.startswith(("--", "\\", "CREATE SCHEMA"))]
    return "\n".join(lines).replace(f"{schema}.", "jivsd.").replace(f"SCHEMA {schema}", "SCHEMA jivsd")


def test_the_event_table_has_its_primary_key_and_no_other_index(postgres):
    databases = postgres(NEWEST)
    databases.clean()
    found = databases.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'event'", database=databases.common)
    assert [row[0].partition(" USING ")[2] for row in found] == ["btree (run_id, seq)"]


async def test_people_read_runs_and_timelines_as_json(url):
    async with opened(url) as j, somebody(url) as ask:
        run = await j.start(workflow_id="a")
        odd = event(run, 2, payload=b'{"zero":"\\u0000","large":"' + b"x" * 70_000 + b'"}')
        await j.one(Entry(run.run_id, run.shard, events=[odd]))
        ((found, at),) = await ask(
            "SELECT input ->> 'seconds', created_at::text FROM jivsd.runs WHERE workflow_id = 'a'"
        )
        assert (found, at) == ("1", "2027-01-15 08:00:00+00")
        lines = await ask("SELECT kind, length(payload::text) FROM jivsd.timeline WHERE seq = 2")
        assert [tuple(line) for line in lines] == [("StepDone", len(odd.payload))]


async def test_another_schema_has_a_journal_of_its_own(url):
    async with opened(url) as j, opened(f"{url}?schema=elsewhere") as other:
        run = await j.start(workflow_id="a")
        assert await other.store.run(run.run_id) is None
        await other.start(workflow_id="a")
        assert (await other.store.counts())["RUNNING"] == 1
        assert len((await other.store.runs(RunFilter(attributes={"no": "1"}), 5)).items) == 0
        assert await other.store.check() == []
    async with somebody(url) as ask:
        await ask("DROP SCHEMA elsewhere CASCADE")


async def test_attributes_from_before_their_workflow_stood_beside_them_are_found(url):
    own = f"{url}?schema=earlier"
    async with somebody(url) as ask:
        try:
            async with opened(own) as j:
                early = await marked(j)
            await ask("ALTER TABLE earlier.attribute DROP COLUMN run_workflow")
            await ask("UPDATE earlier.meta SET value = '1' WHERE name = 'schema'")
            async with opened(own) as j:
                late = await marked(j)
                assert await found_by_mark(j) == {name: {early[name], late[name]} for name in early}
        finally:
            await ask("DROP SCHEMA earlier CASCADE")


async def test_behind_a_pooler_nothing_is_kept_in_a_session(url):
    async with opened(f"{url}?pgbouncer=true") as j:
        run = await j.start()
        assert await j.write(append(run, 2), post(run, "m1")) == [Written(), Delivered(run.run_id)]
        assert await j.seqs(run) == [1, 2]


# ---- what will not do


async def test_a_second_daemon_is_refused_and_may_look(url, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.exclusion.PATIENCE", 0.1)
    async with opened(url) as j:
        with pytest.raises(StoreError, match=r"in use by another jivsd \(jivsd lease of node-a, process \d+"):
            await PostgresStore(url).open("node-b")
        run = await j.start()
        async with opened(url, read_only=True) as looker:
            assert looker.epoch == 0
            assert (await looker.store.run(run.run_id)).run_id == run.run_id
            with pytest.raises(StoreError, match="open for reading only"):
                await looker.store.probe()
    async with opened(url) as j:
        assert j.epoch == 2
        assert await j.store.run(run.run_id) is not None


@pytest.mark.parametrize(
    ("prepare", "wrong"),
    [
        ("CREATE SCHEMA taken CREATE TABLE other (a int)", "another program's"),
        (
            "CREATE SCHEMA taken CREATE TABLE meta (name text, value text); "
            "INSERT INTO taken.meta VALUES ('schema', '99')",
            "schema version 99, this jivsd knows up to",
        ),
    ],
)
async def test_a_schema_that_is_not_for_us(url, prepare, wrong):
    async with somebody(url) as ask:
        for statement in prepare.split("; "):
            await ask(statement)
        try:
            with pytest.raises(StoreError, match=wrong):
                await PostgresStore(f"{url}?schema=taken").open("node-a")
        finally:
            await ask("DROP SCHEMA taken CASCADE")


async def test_a_user_who_may_not(url):
    async with somebody(url) as ask:
        await ask("CREATE ROLE weak LOGIN")
        try:
            weak = url.replace("//jivsd@", "//weak@")
            with pytest.raises(StoreError, match="CREATE SCHEMA own AUTHORIZATION weak"):
                await PostgresStore(f"{weak}?schema=own").open("node-a")
            with pytest.raises(StoreError, match="belongs to another user"):
                await PostgresStore(weak).open("node-a")
            await ask("ALTER ROLE weak SET synchronous_commit = off")
            with pytest.raises(StoreError, match=r'ALTER ROLE "weak" IN DATABASE .* SET synchronous_commit = on'):
                await PostgresStore(weak).open("node-a")
            await ask("ALTER ROLE weak RESET ALL")
            await ask("ALTER ROLE weak SET default_transaction_read_only = on")
            with pytest.raises(StoreError, match="read-only"):
                await PostgresStore(weak).open("node-a")
        finally:
            await ask("DROP ROLE weak")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, None),
        ({"version": 130012}, "PostgreSQL 13; jivsd needs 14"),
        ({"replica": True}, "it is a replica"),
        ({"encoding": "LATIN1"}, "createdb --encoding=UTF8"),
        ({"synchronous_commit": "remote_apply"}, None),
        ({"patience": "0"}, r"say ?pgbouncer=true in the URL"),
    ],
)
def test_servers_that_will_not_do(change, wrong):
    state = {"version": 160002, "synchronous_commit": "on", "encoding": "UTF8", "read_only": "off", "replica": False}
    state |= {"user": "u", "database": "d", "patience": "10s"}
    said = objection({**state, **change})
    assert (said is None) if wrong is None else wrong in said


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mysql://x/y", "is not the URL of a PostgreSQL database"),
        ("postgresql://u:secret@h/d?schema=Bad-Name", "'Bad-Name' cannot be jivsd's schema"),
        ("postgresql://h/d?pgbouncer=maybe", "it is true or false"),
        ("postgresql://h/d?connect_timeout=never", "a number of seconds up to 60"),
    ],
)
def test_urls_that_are_wrong(url, wrong):
    with pytest.raises(StoreError, match=wrong) as error:
        PostgresStore(url)
    assert "secret" not in str(error.value)


def test_what_a_url_says():
    address = address_of(
        "postgresql://u:p%40ss@a:1,b:2/d?sslmode=verify-full&target_session_attrs=read-write&keepalives=1&schema=own"
        "&connect_timeout=3"
    )
    assert address.dsn == "postgresql://u:p%40ss@a:1,b:2/d?sslmode=verify-full&target_session_attrs=read-write"
    assert (address.schema, address.pooled, address.connect_timeout) == ("own", False, 3.0)
    assert "p%40ss" not in address.shown


async def test_nobody_listens(postgres):
    nobody = PostgresStore("postgresql://jivsd@127.0.0.1:1/none")
    with pytest.raises(StoreAway, match=r"cannot use the database postgresql://jivsd@127\.0\.0\.1:1/none"):
        await nobody.open("node-a")
    with pytest.raises(StoreError, match='database "none" does not exist; make it with: createdb'):
        await PostgresStore(postgres(NEWEST).server.url("none")).open("node-a")


async def test_by_the_unix_socket(postgres, url):
    server = postgres(NEWEST).server
    async with opened(server.url(postgres(NEWEST).common, socket=True)) as j:
        await j.start()


# ---- faults


async def test_sessions_that_are_ended_are_replaced(url):
    async with opened(url) as j, somebody(url) as ask:
        run = await j.start()
        for seq in range(2, 5):
            await ask(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'jivsd %'"
                " AND datname = current_database()"
            )
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        assert await j.one(append(run, seq)) == Written()
                        break
                    except (StoreAway, OutcomeUnknown):
                        await trio.sleep(0.01)
            assert await _patiently(lambda: j.seqs(run)) == list(range(1, seq + 1))
        ((sessions,),) = await ask(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name LIKE 'jivsd %' AND datname = current_database()"
        )
        assert sessions == 2, "one that writes batches, one that reads"


async def test_a_run_whose_row_somebody_holds_waits_alone(url):
    async with opened(url) as j, somebody(url) as other:
        held, free = await j.start(), await j.start()
        await other("BEGIN")
        await other("SELECT FROM jivsd.run WHERE run_id = $1 FOR UPDATE", held.run_id)
        batch = [append(free, 2), end(held, 2), append(held, 3), end(free, 3), post(held, "m1")]
        assert await j.write(*batch) == [Written(), Busy(), Busy(), Written(), Busy()]
        await other("COMMIT")
        assert await j.write(post(held, "m1"), end(held, 2)) == [Delivered(held.run_id), Written()]


async def test_an_idempotency_key_that_somebody_has_not_committed_keeps_only_its_start_waiting(url):
    async with opened(url) as j, somebody(url) as other:
        run, wanted, free = new_run(), new_run(), await j.start()
        await other("BEGIN")
        await other(
            "INSERT INTO jivsd.idempotency_key (workflow, key, input_hash, run_id, at) VALUES ($1, 'k', 'i1', $2, 1)",
            *(wanted.workflow, run.run_id),
        )
        assert await j.write(append(free, 2), start(wanted, "k")) == [Written(), Busy()]
        await other("COMMIT")
        assert await j.one(start(wanted, "k")) == Refused("gone", run.run_id)


async def test_a_lock_key_that_somebody_holds_keeps_only_its_runs_waiting(url):
    async with opened(url) as j, somebody(url) as other:
        first, free = await j.start(lock_key="k"), await j.start()
        await other("BEGIN")
        await other("SELECT FROM jivsd.lock WHERE key = 'k' FOR UPDATE")
        waits = new_run(lock_key="k")
        assert await j.write(append(free, 2), start(waits)) == [Written(), Busy()]
        await other("COMMIT")
        assert await j.write(start(waits), end(first, 2)) == [Written()] * 2


async def test_another_node_takes_the_shards_over_while_a_batch_is_decided(url):
    """The fence is checked last, whatever was known before."""
    async with opened(url) as j, somebody(url) as other:
        lost, kept = await j.start(workflow_id="a"), await j.start(workflow_id="b")
        await other("UPDATE jivsd.shard SET epoch = epoch + 1, node = 'node-b', claim = NULL WHERE id = $1", lost.shard)
        batch = [append(lost, 2), append(kept, 2), post(kept, "m1"), append(lost, 3)]
        fenced = Refused("fenced")
        assert await j.write(*batch) == [fenced, Written(), Delivered(kept.run_id), fenced]
        assert await j.store.raise_epoch("node-a", {lost.shard: j.epoch, kept.shard: j.epoch}) == {
            kept.shard: j.epoch + 1
        }


ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a driver says whose session was ended, which may have confused it."""


async def test_a_transaction_under_an_old_epoch_is_ended_when_the_epoch_is_raised(url):
    async with opened(url) as j, somebody(url) as stuck:
        await stuck("BEGIN")
        await stuck("SELECT FROM jivsd.shard WHERE id = 5 FOR SHARE")
        with trio.fail_after(PATIENCE):
            assert await j.store.raise_epoch("node-a", {5: j.epoch, 6: j.epoch}) == {5: j.epoch + 1, 6: j.epoch + 1}
        with pytest.raises(ENDED):
            await stuck("COMMIT")


async def test_a_transaction_under_an_old_epoch_is_ended_when_the_next_daemon_opens_the_database(url):
    async with opened(url) as j:
        before = j.epoch
    async with somebody(url) as stuck:
        await stuck("BEGIN")
        await stuck("SELECT FROM jivsd.shard WHERE id = 5 FOR SHARE")
        with trio.fail_after(PATIENCE):
            async with opened(url) as j:
                assert j.epoch == before + 1
        with pytest.raises(ENDED):
            await stuck("COMMIT")


async def test_raising_an_epoch_again_when_the_answer_was_lost(url, monkeypatch):
    async with opened(url) as j:
        original = Claim.raise_epochs

        async def lost(claim, *arguments):
            await original(claim, *arguments)
            raise ConnectionResetError("the answer is lost")

        monkeypatch.setattr(Claim, "raise_epochs", lost)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await j.store.raise_epoch("node-a", {3: j.epoch})
        monkeypatch.setattr(Claim, "raise_epochs", original)
        assert await j.store.raise_epoch("node-a", {3: j.epoch, 4: j.epoch}) == {3: j.epoch + 1, 4: j.epoch + 1}
        assert await j.store.raise_epoch("node-a", {3: j.epoch}) == {}, "it knows of no lost answer any more"


async def test_a_commit_that_does_not_answer_has_an_unknown_outcome(url, monkeypatch):
    """A session that holds the run's row in the way of nothing but the answer: a slow trigger."""
    async with opened(url) as j, somebody(url) as ask:
        run = await j.start()
        monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", 0.5)
        await ask(
            "CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NEW; END'"
        )
        await ask("CREATE TRIGGER nap BEFORE INSERT ON jivsd.event FOR EACH ROW EXECUTE FUNCTION nap()")
        try:
            with pytest.raises(OutcomeUnknown):
                await j.one(append(run, 2))
        finally:
            await ask("DROP FUNCTION nap CASCADE")
        raised = await j.store.raise_epoch("node-a", {run.shard: j.epoch})
        assert raised == {run.shard: j.epoch + 1}, "it waits for the old transaction, or shuts it out"
        before = await j.seqs(run)
        late = append(run, 2)
        late.epoch = raised[run.shard]
        assert await j.store.commit([late]) == [Written()]
        assert before in ([1], [1, 2])
        assert await j.seqs(run) == [1, 2]


async def test_counts_stay_right_when_they_are_added_up(url, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.FOLD_EVERY", 3)
    async with opened(url) as j, somebody(url) as ask:
        for number in range(10):
            run = await j.start()
            if number % 2:
                await j.one(end(run, 2))
        assert await j.store.counts() == {"RUNNING": 5, "COMPLETED": 5, "paused": 0, "incidents": 0, "unread": 0}
        assert await j.store.check() == []
        ((rows,),) = await ask("SELECT count(*) FROM jivsd.run_count")
        assert rows < 10


async def test_damage_is_found_and_keeps_nobody_else_away(url):
    async with opened(url) as j, somebody(url) as ask:
        bad, good = await j.start(), await j.start()
        await ask("UPDATE jivsd.event SET payload = '{}' WHERE run_id = $1", bad.run_id)
        wrong, right, none = await j.store.recorded([bad.run_id, good.run_id, new_id()])
        assert isinstance(wrong, StoreError)
        assert right.run.run_id == good.run_id
        assert none is None
        assert any(bad.run_id in finding for finding in await j.store.check())


# ---- several changes of one run in a batch


async def test_changes_of_one_run_in_a_batch_are_those_of_one_after_the_other(url):
    async with opened(url) as j:
        run, fresh = await j.start(), new_run()
        changes = [
            RunChange(status=Status.WAITING, wake_at=50, parked=True),
            RunChange(paused=True),
            RunChange(wake_at=60),
        ]
        batch = [append(run, seq, change=change) for seq, change in enumerate(changes, 2)]
        also = [append(fresh, seq, change=change) for seq, change in enumerate(changes, 2)]
        assert set(await j.write(*batch, start(fresh), *also)) == {Written()}
        for one in (run, fresh):
            stored = await j.store.run(one.run_id)
            assert (stored.status, stored.wake_at, stored.parked, stored.paused) == (Status.WAITING, 60, True, True)
        await j.one(append(run, 5, change=RunChange(status=Status.RUNNING)))
        stored = await j.store.run(run.run_id)
        assert (stored.wake_at, stored.parked, stored.paused) == (None, False, True)


async def test_a_start_with_a_known_key_among_others(url):
    async with opened(url) as j:
        first = new_run(workflow_id="a")
        await j.one(start(first, "k"))
        again, other = new_run(), await j.start(workflow_id="b")
        verdicts = await j.write(start(again, "k"), append(other, 2), post(other, "m1"), post(other, "m1"))
        assert isinstance(verdicts[0], Existing)
        assert verdicts[0].run.run_id == first.run_id
        assert verdicts[1:3] == [Written(), Delivered(other.run_id)]
        assert isinstance(verdicts[3], Duplicate)
        told = Entry(first.run_id, first.shard, events=[event(first, 2)], inbox=[message(other, "m2", to_run=True)])
        assert await j.one(told) == Written()
        assert [one.message_id for one in await j.store.messages(other.run_id)] == ["m1", "m2"]


async def _patiently(ask):
    """Ask until the store is not away."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await ask()
            except StoreAway:
                await trio.sleep(0.01)
