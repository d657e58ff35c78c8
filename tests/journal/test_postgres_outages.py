"""A journal whose server goes away in every way there is: it is said why, and the journal goes on when that is over."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest
import trio
import trio.testing
from store.lives import Life

from jivsd.bridge import CUT, GRACE, Bridge
from jivsd.journal import Committer
from jivsd.proof.pgserver import Server
from jivsd.store.api import StoreError
from jivsd.store.postgres import PostgresStore
from jivsd.store.postgres.pools import READERS

PATIENCE = 30.0
HEALED = 10.0
"""Seconds after the healing within which there is progress."""
RULES = """
local all all trust
host all jivsd 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


class Patient:
    """A server, and what can be done to it."""

    def __init__(self, server):
        self.server = server
        data = server.folder / "data"
        (data / "pg_hba.conf").write_text(RULES)
        self._signal = data / "standby.signal"
        self._socket = None

    @property
    def url(self):
        here = self.server.url("postgres").replace("//jivsd@", "//daemon:right@")
        return f"{here}?connect_timeout=0.5"

    async def sql(self, *statements):
        async with Bridge("doctor") as bridge:
            for statement in statements:
                await bridge.call(partial(self._run, statement), timeout=PATIENCE)

    async def _run(self, statement):
        connection = await asyncpg.connect(self.server.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def without_daemon(self, *statements):
        """Run statements and end the daemon's sessions."""
        await self.sql(*statements, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'daemon'")

    async def stop(self):
        await trio.to_thread.run_sync(self.server.stop)

    async def start(self):
        await trio.to_thread.run_sync(self.server.start)

    async def listen_without_a_word(self):
        await self.stop()
        self._socket = socket.create_server(("127.0.0.1", self.server.port))

    async def listen_no_more(self):
        self._socket.close()
        await self.start()

    async def stand_still(self):
        for process in self.server.processes():
            os.kill(process, signal.SIGSTOP)

    async def go_on(self):
        for process in self.server.processes():
            os.kill(process, signal.SIGCONT)

    async def follow(self, *, hot):
        """Start again as a replica that waits for a primary; one that is not hot takes no connections."""
        await self.sql(f"ALTER SYSTEM SET hot_standby = {hot}")
        await self.stop()
        self._signal.touch()
        os.chown(self._signal, *owner(self.server.folder))
        if hot == "on":
            await self.start()
        else:
            await trio.to_thread.run_sync(self._start_unready)

    def _start_unready(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "_is_ready", lambda server, state: state.exists())
            self.server.start()

    async def lead(self):
        await self.stop()
        self._signal.unlink()
        await self.start()


def owner(path):
    found = path.stat()
    return found.st_uid, found.st_gid


def by_sql(begin, end):
    async def fall_ill(patient):
        await patient.without_daemon(begin)

    async def heal(patient):
        await patient.sql(*end.split("; "))

    return fall_ill, heal


AILMENTS = {
    "it is stopped": (Patient.stop, Patient.start, "refused|Connect|connection"),
    "something else listens and says nothing": (
        *(Patient.listen_without_a_word, Patient.listen_no_more),
        "it does not answer in time",
    ),
    "all its processes stand still": (Patient.stand_still, Patient.go_on, "it does not answer in time|did not say"),
    "it is a replica": (partial(Patient.follow, hot="on"), Patient.lead, "it is a replica"),
    "it takes no connections yet": (partial(Patient.follow, hot="off"), Patient.lead, "not accepting connections"),
    "the role may not connect so often": (
        *by_sql("ALTER ROLE daemon CONNECTION LIMIT 0", "ALTER ROLE daemon CONNECTION LIMIT -1"),
        'too many connections for role "daemon"',
    ),
    "the password was changed": (
        *by_sql("ALTER ROLE daemon PASSWORD 'other'", "ALTER ROLE daemon PASSWORD 'right'"),
        'password authentication failed for user "daemon"; look at',
    ),
    "the role may not log in": (
        *by_sql("ALTER ROLE daemon NOLOGIN", "ALTER ROLE daemon LOGIN"),
        "is not permitted to log in",
    ),
    "a right was taken away": (
        *by_sql("REVOKE INSERT ON jivsd.event FROM daemon", "GRANT INSERT ON jivsd.event TO daemon"),
        "permission denied for table event; its user needs that permission",
    ),
    "it became read-only": (
        *by_sql(
            "ALTER ROLE daemon SET default_transaction_read_only = on",
            "ALTER ROLE daemon RESET default_transaction_read_only; SELECT pg_terminate_backend(pid) FROM"
            " pg_stat_activity WHERE usename = 'daemon'",
        ),
        "it is read-only",
    ),
    "its commits are no longer durable": (
        *by_sql("ALTER ROLE daemon SET synchronous_commit = off", "ALTER ROLE daemon RESET synchronous_commit"),
        "synchronous_commit is off",
    ),
}


@pytest.fixture(scope="module")
def patient():
    with Server(durable=False) as server:
        found = Patient(server)
        trio.run(
            found.sql,
            "CREATE ROLE daemon LOGIN PASSWORD 'right'",
            "GRANT CREATE ON DATABASE postgres TO daemon",
            "SELECT pg_reload_conf()",
        )
        yield found


@asynccontextmanager
async def living(patient):
    """A journal in use, and a run that appends all the time."""
    async with PostgresStore(patient.url) as store:
        committer = Committer(store, node="node-a", epoch=await store.open("node-a"))
        life, over = Life(committer), trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(committer.run)
            nursery.start_soon(life.live, over.is_set)
            await life.progress()
            yield store, committer, life
            over.set()
            await life.progress()
            await committer.drain()
            nursery.cancel_scope.cancel()
        assert (await store.events(life.run.run_id))[1:] == life.acknowledged


async def until(holds):
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 -- what it waits for has no event
            await trio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ailment", AILMENTS)
async def test_the_journal_says_why_it_waits_and_goes_on(patient, ailment, monkeypatch):
    monkeypatch.setattr("jivsd.store.postgres.store.COMMIT_TIMEOUT", 1.0)
    fall_ill, heal, wrong = AILMENTS[ailment]
    async with living(patient) as (_, committer, life):
        await fall_ill(patient)
        await until(lambda: committer.away is not None and re.search(wrong, committer.away))
        assert "daemon:right" not in committer.away
        await heal(patient)
        with trio.fail_after(HEALED):
            await life.progress()
            assert committer.away is None


@pytest.mark.slow
async def test_it_closes_in_time_while_the_server_stands_still(patient):
    """Although more wants to be read than there is room for, and nobody answers."""
    store = PostgresStore(patient.url)
    await store.open("node-a")
    failed = []

    async def ask():
        try:
            await store.counts()
        except StoreError as error:
            failed.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(READERS):
            nursery.start_soon(store.counts)
    async with trio.open_nursery() as nursery:
        await patient.stand_still()
        try:
            for _ in range(1_500):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(GRACE + 2 * CUT + 1):
                await store.close()
        finally:
            await patient.go_on()
    assert len(failed) == 1_500
    assert all("is not open" in one for one in failed)
