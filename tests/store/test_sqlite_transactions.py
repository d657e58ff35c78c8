"""Transaction steps: what a plugin writes in our database, and its record, together or not at all."""

from __future__ import annotations

import time

import apsw
import pytest

from jivsd.records import Event, Kind, encode
from jivsd.store.api import Entry, Refused, Written
from jivsd.store.sqlite import SqliteStore, transaction
from jivsd.store.txstep import TxStep
from store.builders import AT, Journal, append, end, event


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Give steps a minute, so that a busy machine fails no test; those about the limit set it back."""
    monkeypatch.setattr(transaction, "LIMIT", 60.0)


def step(run, seq, function, calls=None):
    """The entry of a transaction step that runs an `async def function(tx)`."""

    def body(tx):
        if calls is not None:
            calls.append(seq)
        coroutine = function(tx)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return event(run, seq, encode({"result": stop.value}))
        raise AssertionError("it awaited something else")

    def failed(error):
        text = encode({"error": type(error).__name__, "message": str(error)})
        return Event(run.run_id, seq, Kind.ATTEMPT_FAILED, "nap", text, AT)

    return Entry(run.run_id, run.shard, tx=TxStep(seq, body, failed))


class Bank:
    """A store with a plugin's table, and questions to it."""

    async def __aenter__(self):
        self.store = SqliteStore(":memory:", threaded=False)
        self.j = Journal(self.store, await self.store.open("node-a"))
        self.run = await self.j.start()
        await self.sql("CREATE TABLE account (name TEXT PRIMARY KEY, euros INTEGER CHECK (euros >= 0))")
        await self.sql("INSERT INTO account VALUES ('ann', 10), ('bob', 0)")
        return self

    async def __aexit__(self, *_):
        assert await self.store.check() == []
        await self.store.close()

    async def sql(self, sql):
        return await self.store._write(lambda db: db.execute(sql).fetchall())

    async def accounts(self):
        return dict(await self.sql("SELECT name, euros FROM account ORDER BY name"))

    async def failure(self, function, seq=2):
        """Run a step that fails; return what its record says."""
        before = await self.sql("SELECT * FROM sqlite_schema"), await self.accounts()
        verdict = await self.j.one(step(self.run, seq, function))
        assert isinstance(verdict, Written), verdict
        assert verdict.tx_event.kind == Kind.ATTEMPT_FAILED, verdict
        assert (await self.sql("SELECT * FROM sqlite_schema"), await self.accounts()) == before
        assert (await self.j.store.events(self.run.run_id))[-1] == verdict.tx_event
        return verdict.tx_event.payload.decode()


async def pay(tx):
    assert await tx.execute("UPDATE account SET euros = euros - :n WHERE name = 'ann'", {"n": 4}) == 1
    assert await tx.execute("UPDATE account SET euros = euros + ? WHERE name = ?", (4, "bob")) == 1
    return await tx.fetch("SELECT name, euros FROM account ORDER BY name")


async def test_writes_and_record_are_committed_together():
    async with Bank() as bank:
        verdict = await bank.j.one(step(bank.run, 2, pay))
        result = [{"name": "ann", "euros": 6}, {"name": "bob", "euros": 4}]
        assert verdict == Written(event(bank.run, 2, encode({"result": result})))
        assert await bank.accounts() == {"ann": 6, "bob": 4}
        assert await bank.j.seqs(bank.run) == [1, 2]


async def test_a_step_written_before_is_not_run_again():
    async with Bank() as bank:
        calls = []
        first = await bank.j.one(step(bank.run, 2, pay, calls))
        assert await bank.j.one(step(bank.run, 2, pay, calls)) == first
        assert calls == [2]
        assert await bank.accounts() == {"ann": 6, "bob": 4}


async def test_a_step_behind_another_ones_events_is_not_run():
    async with Bank() as bank:
        calls = []
        await bank.j.one(append(bank.run, 2, 3))
        mixed = step(bank.run, 3, pay, calls)
        mixed.events = [event(bank.run, 2, b'"another"')]
        assert await bank.j.one(mixed) == Refused("exists", bank.run.run_id)
        assert calls == []


async def test_what_a_failed_step_wrote_is_gone_and_its_failure_recorded():
    async def overdraw(tx):
        await tx.execute("UPDATE account SET euros = euros + 20 WHERE name = 'bob'")
        await tx.execute("UPDATE account SET euros = euros - 20 WHERE name = 'ann'")

    async def give_up(tx):
        await pay(tx)
        raise BaseExceptionGroup("no", [KeyError("k")])

    async with Bank() as bank:
        assert "CHECK constraint failed" in await bank.failure(overdraw)
        assert "ExceptionGroup" in await bank.failure(give_up, 3)
        assert await bank.accounts() == {"ann": 10, "bob": 0}


async def test_a_failed_step_does_not_harm_the_batch_around_it():
    async def fails(tx):
        await pay(tx)
        await tx.execute("SELECT * FROM nowhere")

    async with Bank() as bank:
        other, third = await bank.j.start(), await bank.j.start()
        verdicts = await bank.j.write(
            append(other, 2), step(bank.run, 2, fails), append(bank.run, 3), step(third, 2, pay), append(other, 3)
        )
        assert [isinstance(verdict, Written) for verdict in verdicts] == [True] * 5
        assert "no such table" in verdicts[1].tx_event.payload.decode()
        assert await bank.accounts() == {"ann": 6, "bob": 4}
        assert await bank.j.seqs(bank.run) == await bank.j.seqs(other) == [1, 2, 3]


FORBIDDEN = [
    ("COMMIT", "BEGIN, COMMIT or ROLLBACK"),
    ("ROLLBACK", "BEGIN, COMMIT or ROLLBACK"),
    ("BEGIN", "BEGIN, COMMIT or ROLLBACK"),
    ("END", "BEGIN, COMMIT or ROLLBACK"),
    ("SAVEPOINT mine", "SAVEPOINT"),
    ("RELEASE entry", "SAVEPOINT"),
    ("ROLLBACK TO entry", "SAVEPOINT"),
    ("UPDATE account SET euros = 0; COMMIT", "COMMIT"),
    ("ATTACH ':memory:' AS other", "ATTACH"),
    ("DETACH other", "DETACH"),
    ("PRAGMA synchronous = OFF", "PRAGMA"),
    ("SELECT * FROM pragma_table_list", "PRAGMA"),
    ("DELETE FROM event", "jivsd's own 'event'"),
    ("DELETE FROM main.EVENT", "jivsd's own 'event'"),
    ("SELECT payload FROM event", "jivsd's own 'event'"),
    ("SELECT * FROM timeline", "jivsd's own"),
    ("SELECT (SELECT count(*) FROM run)", "jivsd's own 'run'"),
    ("UPDATE shard SET epoch = 9", "jivsd's own 'shard'"),
    ("INSERT INTO meta VALUES ('a', 'b')", "jivsd's own 'meta'"),
    ("DROP TABLE inbox", "jivsd's own 'inbox'"),
    ("DROP VIEW runs", "jivsd's own 'runs'"),
    ("DROP INDEX run_open", "jivsd's own 'run_open'"),
    ("ALTER TABLE run ADD COLUMN mine TEXT", "jivsd's own 'run'"),
    ("ALTER TABLE account RENAME TO event", "there is already another table"),
    ("CREATE INDEX mine ON event (at)", "jivsd's own 'event'"),
    ("CREATE TRIGGER mine AFTER INSERT ON event BEGIN SELECT 1; END", "jivsd's own 'event'"),
    ("CREATE TEMP TABLE event (a)", "temporary tables"),
    ("CREATE TEMP VIEW event AS SELECT 1", "temporary views"),
    ("CREATE TEMP TRIGGER t AFTER INSERT ON account BEGIN SELECT 1; END", "temporary triggers"),
    ("ANALYZE", "ANALYZE"),
    ("REINDEX", "jivsd's own"),
    ("REINDEX run_open", "jivsd's own 'run_open'"),
    ("VACUUM", "cannot VACUUM"),
    ("INSERT INTO event (run_id, seq) SELECT 'x', 1", "jivsd's own 'event'"),
    ("WITH gone AS (SELECT 1) DELETE FROM incident", "jivsd's own 'incident'"),
    (
        "CREATE TRIGGER t AFTER UPDATE ON account BEGIN DELETE FROM run; END; UPDATE account SET euros = 1",
        "jivsd's own 'run'",
    ),
    ("CREATE VIEW v AS SELECT * FROM run; SELECT * FROM v", "jivsd's own"),
    ("UPDATE sqlite_schema SET sql = ''", "may not be modified"),
    ("SELECT load_extension('x')", "not authorized"),
]


@pytest.mark.parametrize(("sql", "said"), FORBIDDEN)
@pytest.mark.parametrize("how", ["execute", "fetch"])
async def test_what_a_step_may_not_do(sql, said, how):
    async def forbidden(tx):
        await pay(tx)
        await getattr(tx, how)(sql)

    async with Bank() as bank:
        assert said in await bank.failure(forbidden)
        assert await bank.j.one(append(bank.run, 3)) == Written()


async def test_a_statement_that_we_use_ourselves_is_not_taken_from_our_cache():
    async with Bank() as bank:
        ours = bank.store._sql["leave_messages"]
        await bank.j.one(end(await bank.j.start(), 2))

        async def same(tx):
            await tx.execute(ours, (bank.run.run_id,))

        assert "jivsd's own 'inbox'" in await bank.failure(same)


async def test_columns_may_be_called_as_our_tables_are():
    async def wide(tx):
        await tx.execute("CREATE TABLE mine (run TEXT, event INTEGER, inbox TEXT)")
        await tx.execute("CREATE INDEX mine_run ON mine (run, event)")
        await tx.execute("INSERT INTO mine (run, event) VALUES ('a', 1)")
        return await tx.fetch("SELECT run, max(event) AS event FROM mine GROUP BY run")

    async with Bank() as bank:
        verdict = await bank.j.one(step(bank.run, 2, wide))
        assert verdict.tx_event.payload == b'{"result":[{"run":"a","event":1}]}'


async def test_sql_that_takes_too_long_is_stopped_with_all_that_it_wrote(monkeypatch):
    monkeypatch.setattr(transaction, "LIMIT", 0.1)

    async def slow(tx):
        await pay(tx)
        await tx.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "INSERT INTO account SELECT 'x' || i, i FROM n"
        )

    async with Bank() as bank:
        other = await bank.j.start()
        written, failed, after = await bank.j.write(append(other, 2), step(bank.run, 2, slow), append(bank.run, 3))
        assert (written, after) == (Written(), Written())
        assert "longer than 100 ms" in failed.tx_event.payload.decode()
        assert await bank.accounts() == {"ann": 10, "bob": 0}
        assert await bank.j.seqs(other) == [1, 2]


@pytest.mark.parametrize("late", ["at the end", "before a query"])
async def test_python_that_takes_too_long_is_not_committed(monkeypatch, late):
    async def slow(tx):
        await pay(tx)
        now = time.monotonic() + 61
        monkeypatch.setattr("jivsd.store.sqlite.transaction.time.monotonic", lambda: now)
        if late == "before a query":
            await tx.fetch("SELECT 1")

    async with Bank() as bank:
        assert "took longer than" in await bank.failure(slow)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR ROLLBACK INTO account VALUES ('ann', 1)",
        "CREATE TRIGGER t AFTER INSERT ON account BEGIN SELECT RAISE(ROLLBACK, 'all of it'); END;"
        "INSERT INTO account VALUES ('eve', 1)",
    ],
)
@pytest.mark.parametrize("swallowed", [True, False])
async def test_sql_that_rolls_back_everything_takes_nobody_with_it(sql, swallowed):
    async def takes_all(tx):
        await pay(tx)
        try:
            await tx.execute(sql)
        except apsw.Error:
            if not swallowed:
                raise

    async with Bank() as bank:
        other, third = await bank.j.start(), await bank.j.start()
        calls = []
        verdicts = await bank.j.write(
            append(other, 2), step(third, 2, pay, calls), step(bank.run, 2, takes_all), append(other, 3)
        )
        assert verdicts[0] == verdicts[3] == Written()
        assert verdicts[2].tx_event.kind == Kind.ATTEMPT_FAILED
        assert verdicts[1].tx_event.kind == Kind.STEP_DONE
        assert await bank.accounts() == {"ann": 6, "bob": 4}, "the good step counts once, the bad one not at all"
        assert await bank.j.seqs(other) == [1, 2, 3]


async def test_a_dangling_reference_fails_the_step_and_not_the_commit():
    async def dangling(tx):
        await tx.execute("CREATE TABLE debt (name TEXT REFERENCES account DEFERRABLE INITIALLY DEFERRED)")
        await tx.execute("INSERT INTO debt VALUES ('nobody')")

    async with Bank() as bank:
        assert "foreign key that points nowhere" in await bank.failure(dangling)


async def test_a_transaction_kept_for_later_is_dead():
    kept = []

    async def keep(tx):
        kept.append(tx)

    async def use_kept(tx):
        await kept[0].execute("DELETE FROM account")

    async with Bank() as bank:
        await bank.j.one(step(bank.run, 2, keep))
        assert "this transaction has ended" in await bank.failure(use_kept, 3)


async def test_a_step_that_yields_another_event_is_refused():
    async with Bank() as bank:
        other = await bank.j.start()
        wrong = step(bank.run, 5, pay)
        wrong.tx = TxStep(2, wrong.tx.body, wrong.tx.failed)
        refused, written = await bank.j.write(wrong, append(other, 2))
        assert (refused.why, written) == ("invalid", Written())
        assert await bank.accounts() == {"ann": 10, "bob": 0}


async def test_under_an_old_epoch_no_body_runs():
    async with Bank() as bank:
        calls = []
        entry = step(bank.run, 2, pay, calls)
        entry.epoch = bank.j.epoch - 1
        assert await bank.store.commit([entry]) == [Refused("fenced")]
        assert calls == []
