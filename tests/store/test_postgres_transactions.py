"""Transaction steps in PostgreSQL: a connection each, the fence, exactly once, and nobody waits for them."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest
import trio
from databases import NEWEST

from jivsd.authoring.errors import NotDurable
from jivsd.bridge import Bridge
from jivsd.records import Event, Kind, encode
from jivsd.store.api import OutcomeUnknown, Refused, StoreError, TransactionError, TransactionLate, Written
from jivsd.store.postgres import PostgresStore, transactions
from jivsd.store.txstep import TxDone
from store.builders import AT, Entry, Journal, append, end, event

PATIENCE = 30.0
STEP_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'jivsd transaction step%' ORDER BY pid"


async def until(condition):
    """Return when somebody else's session has come as far as that."""
    while not (await found if inspect.isawaitable(found := condition()) else found):  # noqa: ASYNC110 -- it has no event to wait for
        await trio.sleep(0.01)


class Bank:
    """A store with a plugin's table, somebody else's session, and steps that are opened and committed by hand."""

    def __init__(self, store, epoch, ask):
        self.store = store
        self.j = Journal(store, epoch)
        self.ask = ask

    async def open(self, body, limit=None):
        return await self.store.transactions.open(body, limit)

    async def accounts(self):
        return {row["name"]: row["euros"] for row in await self.ask("SELECT name, euros FROM account ORDER BY name")}

    async def sessions(self):
        return [row["pid"] for row in await self.ask(STEP_SESSIONS)]

    async def no_sessions(self):
        return not await self.sessions()

    async def kinds(self, run):
        return [event.kind for event in await self.store.events(run.run_id)]


@asynccontextmanager
async def bank_at(url):
    async with Bridge("somebody") as bridge, PostgresStore(url) as store:
        connection = await bridge.call(lambda: asyncpg.connect(url), timeout=PATIENCE)

        async def ask(sql, *arguments):
            return await bridge.call(lambda: connection.fetch(sql, *arguments), timeout=PATIENCE)

        async def close():
            connection.terminate()

        try:
            await ask("SET search_path = public")
            await ask("CREATE TABLE account (name text PRIMARY KEY, euros int CHECK (euros >= 0))")
            await ask("INSERT INTO account VALUES ('ann', 10), ('bob', 0)")
            yield Bank(store, await store.open("node-a"), ask)
            assert await store.check() == []
            await until(lambda: not store.transactions.lives)
        finally:
            with trio.CancelScope(shield=True):
                await bridge.call(close, timeout=PATIENCE)


@pytest.fixture
def bank(postgres):
    """`async with bank() as b` opens an empty store."""
    return lambda: bank_at(postgres(NEWEST).clean())


def taken(opened, run, seq, payload=None):
    """The entry that commits a step."""
    done = event(run, seq, payload or encode({"result": opened.value}))

    def failed(error):
        text = encode({"error": type(error).__name__, "message": str(error)})
        return Event(run.run_id, seq, Kind.ATTEMPT_FAILED, "nap", text, AT)

    again = Event(run.run_id, seq, Kind.RECOVERED, "", b'{"paths":[]}', AT)
    return Entry(run.run_id, run.shard, tx=TxDone(opened, done, failed, again))


async def pay(tx):
    assert await tx.execute("UPDATE account SET euros = euros - :n WHERE name = 'ann'", {"n": 4}) == 1
    assert await tx.execute("UPDATE account SET euros = euros + ? WHERE name = ?", (4, "bob")) == 1
    assert await tx.execute("SELECT * FROM account") == 0
    assert await tx.fetchval("SELECT euros FROM account WHERE name = $1", ("bob",)) in (4, 8)
    assert await tx.fetchrow("SELECT * FROM account WHERE name = 'eve'") is None
    return await tx.fetch("SELECT name, euros FROM account ORDER BY name")


PAID = {"ann": 6, "bob": 4}
UNPAID = {"ann": 10, "bob": 0}


# ---- the good way


async def test_writes_and_record_are_committed_together_in_the_runs_turn(bank):
    async with bank() as b:
        run, other = await b.j.start(), await b.j.start()
        opened = await b.open(pay)
        assert opened.value == [{"name": "ann", "euros": 6}, {"name": "bob", "euros": 4}]
        assert await b.accounts() == UNPAID, "it is open"
        step = taken(opened, run, 3)
        verdicts = await b.j.write(append(other, 2), append(run, 2), step, append(run, 4), append(other, 3))
        assert verdicts == [Written(), Written(), Written(step.tx.event), Written(), Written()]
        assert await b.accounts() == PAID
        assert await b.j.seqs(run) == [1, 2, 3, 4]
        assert (await b.store.events(run.run_id))[2] == step.tx.event
        assert await b.j.write(append(run, 2), step, append(run, 4)) == [Written(), Written(step.tx.event), Written()]
        assert await b.accounts() == PAID, "written again, it is found to be there"


async def test_a_large_and_odd_payload_is_recorded_as_it_is(bank):
    async with bank() as b:
        run = await b.j.start()
        for seq, payload in enumerate([b'"it\'s \\\\ $1 \xc3\xa4 \\u0000; COMMIT"', b'"' + b"x" * 70_000 + b'"'], 2):
            step = taken(await b.open(pay), run, seq, payload)
            assert await b.j.one(step) == Written(step.tx.event)
            assert (await b.store.events(run.run_id))[-1] == step.tx.event
        assert await b.accounts() == {"ann": 2, "bob": 8}


async def test_many_steps_share_a_few_connections(bank):
    async def add(tx):
        await tx.execute("UPDATE account SET euros = euros + 1 WHERE name = 'bob'")

    async with bank() as b, trio.open_nursery() as nursery:

        async def one():
            step = taken(await b.open(add), run := await b.j.start(), 2)
            assert await b.j.one(step) == Written(step.tx.event), run

        for _ in range(30):
            nursery.start_soon(one)
    async with bank() as b:
        assert len(await b.sessions()) <= transactions.STEPS


# ---- the step's own failures


async def test_what_a_failed_step_wrote_is_gone_and_its_connection_is_good(bank):
    async def overdraw(tx):
        await tx.execute("UPDATE account SET euros = euros + 20 WHERE name = 'bob'")
        await tx.execute("UPDATE account SET euros = euros - 20 WHERE name = 'ann'")

    async def give_up(tx):
        await pay(tx)
        raise BaseExceptionGroup("no", [KeyError("k")])

    async def swallow(tx):
        with pytest.raises(asyncpg.PostgresError):
            await tx.execute("SELECT * FROM nowhere")

    async def swallow_and_go_on(tx):
        await swallow(tx)
        await pay(tx)

    async def put_off(tx):
        await tx.execute("CREATE TABLE debt (name text REFERENCES account DEFERRABLE INITIALLY DEFERRED)")
        await tx.execute("INSERT INTO debt VALUES ('nobody')")

    async def end_it(tx):
        await pay(tx)
        raise SystemExit(3)

    async with bank() as b:
        for body, error, said in [
            (overdraw, asyncpg.CheckViolationError, "account_euros_check"),
            (give_up, BaseExceptionGroup, "no"),
            (swallow, TransactionError, "nothing was written"),
            (swallow_and_go_on, TransactionError, "put a SAVEPOINT before"),
            (put_off, asyncpg.ForeignKeyViolationError, "debt"),
            (end_it, RuntimeError, "does not end the process"),
        ]:
            with pytest.raises(error, match=said):
                await b.open(body)
            await until(lambda: not b.store.transactions.lives)
        assert await b.accounts() == UNPAID
        assert len(await b.sessions()) == 1, "it is cleaned up and used again"


async def test_a_savepoint_lets_a_step_fail_in_part(bank):
    async def twice(tx):
        await tx.execute("SAVEPOINT one")
        with pytest.raises(asyncpg.UniqueViolationError):
            await tx.execute("INSERT INTO account VALUES ('ann', 1)")
        await tx.execute("ROLLBACK TO one")
        await tx.execute("INSERT INTO account VALUES ('eve', 1)")

    async with bank() as b:
        step = taken(await b.open(twice), await b.j.start(), 2)
        assert await b.j.one(step) == Written(step.tx.event)
        assert await b.accounts() == {**UNPAID, "eve": 1}


async def of_asyncio(tx):
    await pay(tx)
    await asyncio.sleep(0)


async def of_trio(tx):
    await pay(tx)
    await trio.lowlevel.checkpoint()


async def side_by_side(tx):
    await asyncio.gather(pay(tx), asyncio.sleep(1))


@pytest.mark.parametrize("body", [of_asyncio, of_trio, side_by_side])
async def test_a_step_may_await_only_its_transaction(bank, body):
    async with bank() as b:
        with pytest.raises(NotDurable, match="only its transaction"):
            await b.open(body)
        assert await b.accounts() == UNPAID


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("COMMIT", "the step commits when its function returns"),
        ("/* a /* b */ */ rollback", "the step commits when its function returns"),
        ("SELECT 1; END", "the step commits when its function returns"),
        ("PREPARE TRANSACTION 'a'", "PREPARE"),
        ("COPY account FROM STDIN", "COPY"),
        ("LISTEN a", "LISTEN"),
        ("DELETE FROM jivsd.event", "jivsd's own schema"),
        ('DELETE FROM "jivsd" . "event"', "jivsd's own schema"),
        ("SELECT * FROM jivsd.timeline", "jivsd's own schema"),
        ("DO $$ BEGIN COMMIT; END $$", "invalid transaction termination"),
        ("DELETE FROM event", 'relation "event" does not exist'),
    ],
)
async def test_what_a_step_may_not_do(bank, sql, said):
    async def forbidden(tx):
        await pay(tx)
        await tx.execute(sql)

    async with bank() as b:
        with pytest.raises((StoreError, asyncpg.PostgresError), match=said):
            await b.open(forbidden)
        assert await b.accounts() == UNPAID


async def test_words_in_quotes_are_no_commands_and_no_parameters(bank):
    async def quoted(tx):
        sql = """SELECT 'COMMIT; :a ? jivsd.event' AS "?;", $q$; END$q$ || :a::text || E'\\'?' AS y, (ARRAY[1])[1:2]"""
        return list((await tx.fetchrow(sql, {"a": "z"})).values())

    async with bank() as b:
        opened = await b.open(quoted)
        assert opened.value == ["COMMIT; :a ? jivsd.event", "; ENDz'?", [1]]
        await opened.abandon()
        with pytest.raises(TransactionError, match="no parameter 'b'"):
            await b.open(lambda tx: tx.execute("SELECT :b", {"a": 1}))


async def test_nothing_of_a_step_stays_in_its_session(bank):
    async def leave(tx):
        await tx.execute("SET search_path = pg_catalog; SET synchronous_commit = off; SET ROLE pg_monitor")
        await tx.execute("CREATE TEMP TABLE account (name text)")
        await tx.fetch("SELECT pg_advisory_lock(7)")
        return tx

    async def look(tx):
        with pytest.raises(TransactionError, match="has ended"):
            await kept.execute("DELETE FROM account")
        assert await tx.fetchval("SELECT count(*) FROM account") == 2
        return await tx.fetchval("SELECT current_setting('synchronous_commit') || current_user")

    async with bank() as b:
        first = await b.open(leave)
        kept, first.value = first.value, None
        step = taken(first, run := await b.j.start(), 2)
        assert await b.j.one(step) == Written(step.tx.event)
        await until(lambda: not b.store.transactions.lives)
        assert [tuple(row) for row in await b.ask("SELECT pg_try_advisory_lock(7)")] == [(True,)]
        second = await b.open(look)
        assert second.value == "onjivsd"
        assert len(await b.sessions()) == 1, "it was the same one"
        assert await b.j.one(taken(second, run, 3)) == Written(event(run, 3, encode({"result": "onjivsd"})))


# ---- time, cancellation


async def nap(tx):
    await pay(tx)
    await tx.execute("SELECT pg_sleep(60)")


async def nap_on_and_on(tx):
    await pay(tx)
    for _ in range(3):
        with pytest.raises(BaseException):  # noqa: B017 -- whatever there is, it swallows it
            await tx.execute("SELECT pg_sleep(60)")


@pytest.mark.parametrize("body", [nap, nap_on_and_on])
async def test_a_step_that_takes_too_long_is_stopped_and_its_session_goes_on(bank, body):
    async with bank() as b:
        with pytest.raises(TransactionLate, match=r"longer than 0.2 s"):
            await b.open(body, 0.2)
        (session,) = await b.sessions()
        step = taken(await b.open(pay), await b.j.start(), 2)
        assert await b.j.one(step) == Written(step.tx.event)
        assert session in await b.sessions()
        assert await b.ask("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'") == []
        assert await b.accounts() == PAID


async def test_a_step_that_is_called_off_leaves_nothing(bank):
    async with bank() as b:
        for body in (nap, nap_on_and_on):
            with trio.move_on_after(0.2) as scope:
                await b.open(body)
            assert scope.cancelled_caught
            assert not b.store.transactions.lives, "it is over when its caller goes on"
        opened = await b.open(pay)
        await opened.abandon()
        (await b.open(pay)).drop()
        with trio.CancelScope() as scope:
            scope.cancel()
            await b.open(pay)
        step = taken(await b.open(pay), await b.j.start(), 2)
        assert await b.j.one(step) == Written(step.tx.event)
        assert await b.accounts() == PAID
        assert len(await b.sessions()) <= 2


async def test_computing_in_a_step_keeps_the_journal_waiting_and_is_refused(bank, monkeypatch):
    monkeypatch.setattr(transactions, "BLOCKED", -1.0)
    async with bank() as b:
        with pytest.raises(TransactionError, match="let another step do that"):
            await b.open(pay)
        assert await b.accounts() == UNPAID


# ---- others


async def test_a_step_that_waits_for_somebody_keeps_nobody_else_waiting(bank):
    async with bank() as b:
        runs = [await b.j.start() for _ in range(transactions.STEPS + 3)]
        free = await b.j.start()
        await b.ask("BEGIN")
        await b.ask("SELECT FROM account FOR UPDATE")
        async with trio.open_nursery() as nursery:

            async def go(run):
                step = taken(await b.open(partial(add_one, run.run_id)), run, 2)
                assert await b.j.one(step) == Written(step.tx.event)

            async def add_one(_, tx):
                await tx.execute("UPDATE account SET euros = euros + 1 WHERE name = 'bob'")

            for run in runs:
                nursery.start_soon(go, run)
            waiting = "SELECT count(*) >= $1 AS enough FROM pg_locks WHERE NOT granted HAVING count(*) >= $1"
            await until(lambda: b.ask(waiting, transactions.STEPS - 1))
            with trio.fail_after(PATIENCE):
                assert await b.j.write(append(free, 2), end(free, 3)) == [Written(), Written()]
                assert await b.store.counts()
            assert (await b.kinds(runs[0]))[1:] == []
            await b.ask("COMMIT")
        assert await b.accounts() == {"ann": 10, "bob": len(runs)}


async def test_deadlocks_and_serialization_failures_fail_an_attempt(bank):
    async def skew(mine, tx):
        await tx.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        total = await tx.fetchval("SELECT sum(euros) FROM account")
        await tx.execute("UPDATE account SET euros = ? WHERE name = ?", (int(total) + 1, mine))

    async with bank() as b:
        one, two = await b.j.start(), await b.j.start()
        first = taken(await b.open(partial(skew, "ann")), one, 2)
        second = taken(await b.open(partial(skew, "bob")), two, 2)
        written, failed = await b.j.write(first, second)
        if written.tx_event.kind != Kind.STEP_DONE:
            written, failed = failed, written
        assert failed.tx_event.kind == Kind.ATTEMPT_FAILED
        assert b"SerializationError" in failed.tx_event.payload
        assert sorted((await b.accounts()).values()) in ([0, 11], [10, 11])

        await b.ask("BEGIN")
        await b.ask("UPDATE account SET euros = 1 WHERE name = 'ann'")
        begun, errors = [], []

        async def crosswise(tx):
            await tx.execute("UPDATE account SET euros = 2 WHERE name = 'bob'")
            begun.append(tx)
            await tx.execute("SET LOCAL deadlock_timeout = '10ms'")
            while not await tx.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass  # somebody waits for it now
            await tx.execute("UPDATE account SET euros = 2 WHERE name = 'ann'")

        async def caught():
            with pytest.raises(asyncpg.DeadlockDetectedError) as raised:
                await b.open(crosswise)
            errors.append(raised.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caught)
            await until(lambda: begun)
            await b.ask("UPDATE account SET euros = 1 WHERE name = 'bob'")
            await b.ask("COMMIT")
        assert len(errors) == 1
        assert await b.accounts() == {"ann": 1, "bob": 1}


# ---- fences, lost answers, sessions that die


async def test_a_step_that_is_open_during_a_take_over_cannot_commit(bank):
    async with bank() as b:
        run, other = await b.j.start(workflow_id="a"), await b.j.start(workflow_id="b")
        step = taken(await b.open(pay), run, 2)
        await b.ask("UPDATE jivsd.shard SET epoch = epoch + 1, node = 'node-b', claim = NULL WHERE id = $1", run.shard)
        fenced = Refused("fenced")
        assert await b.j.write(append(other, 2), step, append(run, 3)) == [Written(), fenced, fenced]
        assert await b.accounts() == UNPAID
        assert await b.kinds(run) == [Kind.STARTED]


async def test_a_seq_that_is_taken_undoes_the_step(bank):
    async with bank() as b:
        run = await b.j.start()
        await b.j.one(append(run, 2))
        step = taken(await b.open(pay), run, 2)
        (verdict,) = await b.j.write(step)
        assert (verdict.why, verdict.run_id) == ("exists", run.run_id)
        assert await b.accounts() == UNPAID


async def test_a_run_that_is_held_up_keeps_its_step_open(bank):
    async with bank() as b:
        run = await b.j.start()
        step = taken(await b.open(pay), run, 3)
        await b.ask("BEGIN")
        await b.ask("SELECT FROM jivsd.run FOR UPDATE")
        change = end(run, 2).change
        held = append(run, 2, change=change)
        assert {type(verdict).__name__ for verdict in await b.j.write(held, step)} == {"Busy"}
        await b.ask("COMMIT")
        assert await b.j.write(append(run, 2), step) == [Written(), Written(step.tx.event)]
        assert await b.accounts() == PAID


async def test_a_step_whose_answer_was_lost_is_found(bank, monkeypatch):
    original = transactions._Life.commit

    async def lost(life, message):
        await original(life, message)
        raise OutcomeUnknown("the answer is lost")

    async with bank() as b:
        run = await b.j.start()
        step = taken(await b.open(pay), run, 2)
        monkeypatch.setattr(transactions._Life, "commit", lost)
        with pytest.raises(OutcomeUnknown):
            await b.j.write(append(run, 3), step, append(run, 3))
        monkeypatch.setattr(transactions._Life, "commit", original)
        b.j.epoch = (await b.store.raise_epoch("node-a", {run.shard: b.j.epoch}))[run.shard]
        assert await b.j.write(step, append(run, 3)) == [Written(step.tx.event), Written()]
        assert await b.accounts() == PAID


@pytest.mark.parametrize("fault", ["it does not answer", "its session is ended"])
async def test_a_commit_without_an_answer_has_happened_with_its_record_or_not_at_all(bank, monkeypatch, fault):
    if fault == "it does not answer":
        monkeypatch.setattr(transactions, "COMMIT", 0.3)
    async with bank() as b:
        run = await b.j.start()
        step = taken(await b.open(pay), run, 2)
        body = "BEGIN PERFORM pg_sleep(2); RETURN NEW; END"
        await b.ask(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
        await b.ask("CREATE TRIGGER slow BEFORE INSERT ON jivsd.event FOR EACH ROW EXECUTE FUNCTION slow()")
        try:
            async with trio.open_nursery() as nursery:

                async def write():
                    with pytest.raises(OutcomeUnknown):
                        await b.j.one(step)

                nursery.start_soon(write)
                if fault == "its session is ended":
                    (pid,) = await b.sessions()
                    await until(
                        lambda: b.ask("SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active'", pid)
                    )
                    await b.ask("SELECT pg_terminate_backend($1)", pid)
        finally:
            await b.ask("DROP FUNCTION slow CASCADE")
        b.j.epoch = (await b.store.raise_epoch("node-a", {run.shard: b.j.epoch}))[run.shard]
        first, later = await b.j.write(step, append(run, 3))
        assert first in (Written(step.tx.event), Written(step.tx.again))
        assert later == Written()
        assert await b.accounts() == (PAID if first.tx_event is step.tx.event else UNPAID)
        assert await b.j.write(step, append(run, 3)) == [first, later]


@pytest.mark.parametrize("how", ["waits too long", "its session is ended"])
async def test_a_step_that_is_lost_before_its_commit_is_to_run_again(bank, monkeypatch, how):
    if how == "waits too long":
        monkeypatch.setattr(transactions, "HOLD", 0.01)
    async with bank() as b:
        run = await b.j.start()
        step = taken(await b.open(pay), run, 2)
        if how == "its session is ended":
            await b.ask("SELECT pg_terminate_backend($1, 5000)", (await b.sessions())[0])
        else:
            await until(lambda: not step.tx.open.live)
        try:
            verdicts = await b.j.write(step, append(run, 3))
        except OutcomeUnknown:
            b.j.epoch = (await b.store.raise_epoch("node-a", {run.shard: b.j.epoch}))[run.shard]
            verdicts = await b.j.write(step, append(run, 3))
        assert verdicts == [Written(step.tx.again), Written()]
        assert await b.accounts() == UNPAID
        assert await b.kinds(run) == [Kind.STARTED, Kind.RECOVERED, Kind.STEP_DONE]


async def test_a_step_whose_session_ends_under_it_begins_again(bank):
    begun = []

    async def step(tx):
        begun.append(await tx.fetchval("SELECT pg_backend_pid()"))
        await pay(tx)
        if len(begun) < 3:
            await tx.execute("SELECT pg_sleep(60)")

    async with bank() as b, trio.open_nursery() as nursery:
        run = await b.j.start()

        async def go():
            entry = taken(await b.open(step), run, 2)
            assert await b.j.one(entry) == Written(entry.tx.event)

        nursery.start_soon(go)
        for times in (1, 2):
            await until(lambda t=times: len(begun) >= t)
            await b.ask("SELECT pg_terminate_backend($1, 5000)", begun[-1])
    assert len(begun) == 3


async def test_a_step_that_always_loses_its_session_fails(bank, monkeypatch):
    monkeypatch.setattr(transactions, "LOSSES", 1)

    async def ends_itself(tx):
        await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with bank() as b:
        with pytest.raises(StoreError, match="terminating connection"):
            await b.open(ends_itself)


async def test_a_store_that_closes_ends_what_is_open(bank):
    async def look(tx):
        return await tx.fetchval("SELECT 1")

    async with bank() as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.open, nap)
        opened = await b.open(look)
        await until(
            lambda: b.ask("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'")
        )
        assert opened.live
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await b.store.close()
            assert not opened.live
            await until(b.no_sessions)
            assert await b.accounts() == UNPAID
            await b.store.open("node-a")
