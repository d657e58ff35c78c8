"""What is asked for in SQL: inside somebody's own transaction, carried out exactly once, in order, or put aside."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import asyncpg
import msgspec
import pytest
import trio
from databases import NEWEST
from engine.stores import FickleStore
from hypothesis import given, settings
from hypothesis import strategies as st
from services import desk
from store.builders import request
from store.test_postgres import somebody

from jivsd.engine.api import Conflict, NotFound, StartOptions
from jivsd.engine.limits import Limits
from jivsd.records import SHARDS, IncidentState, Status, new_id, shard_of
from jivsd.services.requests import Config, RequestService
from jivsd.store.api import RunFilter
from jivsd.store.postgres import PostgresStore
from jivsd.testing import Env

ALL = RunFilter()


@pytest.fixture
def url(postgres):
    return postgres(NEWEST).clean()


class Desk:
    """An engine on a database, a session of somebody else's, and the service between them."""

    def __init__(self, env, session):
        self.env = env
        self.sql = session
        self.service = RequestService(env.engine)

    async def value(self, sql, *arguments):
        return (await self.sql(sql, *arguments))[0][0]

    async def ask(self, sql, *arguments):
        """Ask for something, and have it carried out."""
        found = await self.value(sql, *arguments)
        await self.service.run_once()
        return str(found)

    async def outcome(self, id):
        rows = await self.sql("SELECT state, run_id, status, why FROM jivsd.outcome($1)", UUID(id))
        return tuple(rows[0]) if rows else None

    async def incidents(self):
        return (await self.env.engine.incidents()).items


@asynccontextmanager
async def desk_on(url, **options):
    async with Env(desk, store=PostgresStore(url), **options) as env, somebody(url) as session:
        yield Desk(env, session)


@pytest.mark.parametrize("version", [16, 18])
async def test_a_run_and_its_signals_from_one_transaction(postgres, version):
    async with desk_on(postgres(version).clean()) as d:
        await d.sql("CREATE TABLE public.sale (item text, run uuid)")
        await d.sql("BEGIN")
        run = await d.value("SELECT jivsd.start('sale', '3', 'o-1', options => '{\"priority\": 7}')")
        await d.sql("INSERT INTO public.sale VALUES ('nail', $1)", run)
        for word in ("a", "b", "c"):
            assert await d.value("SELECT jivsd.signal('sale', 'o-1', 'say', to_jsonb($1::text), $1)", word) == word
        assert await d.service.run_once() == 0
        assert await d.outcome(str(run)) is not None  # its own transaction sees it
        await d.sql("COMMIT")
        assert await d.outcome(str(run)) == ("PENDING", None, None, None)
        with pytest.raises(NotFound, match="asked for in SQL, and has not begun yet"):
            await d.env.engine.show(str(run))
        assert await d.service.run_once() == 4
        ended = await d.env.ended(str(run))
        assert (ended.workflow_id, ended.options.priority) == ("o-1", 7)
        assert msgspec.json.decode(ended.output) == ["a", "b", "c"]
        events = await d.env.events(str(run))
        assert events[0].by == "jivsd (sql)"
        assert await d.outcome(str(run)) == ("STARTED", run, "COMPLETED", None)
        assert await d.sql("SELECT FROM jivsd.request") == []


async def test_a_transaction_that_is_rolled_back_leaves_nothing(url):
    async with desk_on(url) as d:
        await d.sql("BEGIN")
        run = await d.value("SELECT jivsd.start('sale', '0')")
        await d.sql("SELECT jivsd.signal('sale', 'o-1', 'say', '\"a\"')")
        await d.sql("ROLLBACK")
        assert await d.service.run_once() == 0
        assert await d.outcome(str(run)) is None
        assert (await d.env.engine.runs(ALL)).items == []


async def test_ids_are_those_of_runs_and_ordered_by_time(url):
    async with desk_on(url) as d:
        before = new_id()
        ids = [str(await d.value("SELECT jivsd.start('sale', '0')")) for _ in range(3)]
        after = new_id()
        assert {UUID(id).version for id in ids} == {7}
        assert before[:13] <= ids[0][:13] <= ids[2][:13] <= after[:13]
        assert await d.service.run_once() == 3
        for id in ids:
            assert (await d.env.engine.show(id)).workflow_id == id


async def test_what_is_carried_out_twice_has_no_further_effect(url):
    """As after a crash between the doing and the forgetting."""
    async with desk_on(url) as d:
        run = str(await d.value("SELECT jivsd.start('sale', '2', 'o-2')"))
        await d.sql("SELECT jivsd.signal('sale', 'o-2', 'say', '\"a\"')")
        waiting = str(await d.value("SELECT jivsd.start('sale', '9', 'o-3')"))
        await d.sql("SELECT jivsd.cancel('sale', 'o-3', 'no more')")
        await d.sql("CREATE TABLE public.kept AS SELECT * FROM jivsd.request")
        desk.begun.clear()
        for _ in range(2):
            assert await d.service.run_once() == 4
            await d.sql(
                "INSERT INTO jivsd.request (id, at, shard, tries, state, kind, workflow, workflow_id, name, key, by,"
                " payload, options) SELECT id, at, shard, tries, state, kind, workflow, workflow_id, name, key, by,"
                " payload, options FROM public.kept ORDER BY number"
            )
        assert (await d.env.ended(waiting)).status is Status.CANCELLED
        assert await d.service.run_once() == 4
        await d.env.signal(run, "say", "b")
        assert msgspec.json.decode((await d.env.ended(run)).output) == ["a", "b"]
        assert await d.service.run_once() == 0
        assert sorted(desk.begun) == [2, 9]
        assert await d.incidents() == []
        assert len((await d.env.engine.runs(ALL)).items) == 2


async def test_an_idempotency_key_leads_to_the_first_run(url):
    async with desk_on(url) as d:
        asked = "SELECT jivsd.start('sale', '9', $1, idempotency_key => 'k')"
        first, second = await d.ask(asked, "o-1"), await d.ask(asked, "o-2")
        assert await d.outcome(second) == ("EXISTING", UUID(first), "RUNNING", None)
        assert (await d.env.engine.show(second)).run_id == first
        other = await d.ask("SELECT jivsd.start('sale', '8', idempotency_key => 'k')")
        assert (await d.outcome(other))[3] == f"the idempotency key was used with another input (run {first})"


REFUSED = {
    "SELECT jivsd.start('sail', '0', 'o-1')": "there is no workflow 'sail'",
    "SELECT jivsd.start('sale', '\"three\"', 'o-1')": "Expected `int`",
    "SELECT jivsd.start('sale', '0', options => '{\"timeout\": \"soon\"}')": "option timeout",
    "SELECT jivsd.start('sale', '0', options => '{\"priority\": \"high\"}')": "options: Expected `int`",
    "SELECT jivsd.start('sale', '0', 'there')": "workflow id 'there' has an open run",
    "SELECT jivsd.start('sale', '1e500')": "the input",
    "SELECT jivsd.signal('sale', 'o-9', 'say', '\"a\"')": "there is no run 'sale:o-9'",
    "SELECT jivsd.signal('sale', 'there', 'say', '3')": "say",
    "SELECT jivsd.signal('sale', 'ended', 'say', '\"a\"')": "has ended",
    "SELECT jivsd.cancel('sale', 'ended')": "has ended",
}


async def test_what_cannot_be_carried_out_is_put_aside_with_an_incident(url):
    async with desk_on(url) as d:
        await d.env.start("sale", 9, id="there")
        await d.env.ended(await d.env.start("sale", 0, id="ended"))
        for sql, why in REFUSED.items():
            await d.ask(sql)
            (incident,) = await d.incidents()
            assert incident.kind == "request"
            assert why in incident.message, sql
            assert "asked for in SQL by jivsd" in incident.message
            assert incident.workflow == incident.details.get("workflow", incident.workflow)
            await d.env.engine.skip_incident(incident.incident_id, by="ann", why="seen")
        states = await d.sql("SELECT state, why FROM jivsd.requests")
        assert {state for state, _ in states} == {"CLOSED"}
        assert len(states) == len(REFUSED)
        await d.env.store.sql_requests.forget(1 << 60)
        assert await d.sql("SELECT FROM jivsd.request") == []


async def test_a_refused_request_is_tried_again_when_a_person_wants_it(url):
    async with desk_on(url) as d:
        blocker = await d.env.start("sale", 9, id="o-1")
        asked = await d.ask("SELECT jivsd.start('sale', '0', 'o-1')")
        (first,) = await d.incidents()
        assert first.details["payload"] == 0
        with pytest.raises(NotFound, match="refused: workflow id 'o-1' has an open run"):
            await d.env.engine.show(asked)
        await d.env.engine.retry_incident(first.incident_id, by="ann", why="perhaps now")
        await d.service.run_once()
        (second,) = await d.incidents()
        assert second.incident_id != first.incident_id
        assert second.fingerprint == first.fingerprint
        await d.env.engine.cancel(blocker, by="ann")
        await d.env.ended(blocker)
        decided = await d.env.engine.decide_group(second.fingerprint, "retry", by="ann", why="it is over")
        assert [one.error for one in decided.items] == [None]
        await d.service.run_once()
        assert (await d.env.ended(asked)).status is Status.COMPLETED
        assert await d.incidents() == []
        with pytest.raises(Conflict, match="resolved already"):
            await d.env.engine.retry_incident(second.incident_id, by="ann", why="")


async def test_what_is_wrong_in_itself_is_said_at_once(url):
    async with desk_on(url) as d:
        for sql, why in {
            "SELECT jivsd.start('')": "a workflow must be named",
            "SELECT jivsd.start('a:b')": "no colon: 'a:b'",
            "SELECT jivsd.start('sale', workflow_id => '')": "must not be empty",
            "SELECT jivsd.start('sale', workflow_id => repeat('ä', 513))": "at most 512 characters",
            "SELECT jivsd.start('sale', idempotency_key => '')": "must not be empty",
            "SELECT jivsd.start('sale', options => '[]')": "options must be a JSON object",
            'SELECT jivsd.start(\'sale\', options => \'{"prio": 1, "id": "x"}\')': "no option id, prio; there are: ",
            "SELECT jivsd.start('sale', to_jsonb(repeat('x', 1048577)))": "too large",
            "SELECT jivsd.signal('sale', 'o-1', '')": "needs a name",
            "SELECT jivsd.signal('sale', NULL, 'say')": "a workflow id must not be empty",
        }.items():
            with pytest.raises(asyncpg.InvalidParameterValueError, match=why):
                await d.sql(sql)
        assert await d.sql("SELECT FROM jivsd.request") == []
        assert await d.ask("SELECT jivsd.start('sale', NULL, NULL, NULL, NULL)")


def test_the_options_in_sql_are_those_of_a_start(postgres):
    ((source,),) = postgres(NEWEST).sql(
        "SELECT prosrc FROM pg_proc WHERE proname = 'start' AND pronamespace = 'jivsd'::regnamespace",
        database=postgres(NEWEST).common or postgres(NEWEST).clone(),
    )
    known = source.split("'{", 1)[1].split("}'", 1)[0].split(",")
    assert {*known, "id", "idempotency_key"} == set(StartOptions.__struct_fields__)


async def test_a_user_with_nothing_but_the_right_to_call(url):
    async with desk_on(url) as d:
        await d.sql("DROP ROLE IF EXISTS clerk")
        await d.sql("CREATE ROLE clerk LOGIN")
        clerk_url = url.replace("//jivsd@", "//clerk@")
        assert clerk_url != url
        try:
            async with somebody(clerk_url) as clerk:
                for refused in ("SELECT jivsd.start('sale')", "SELECT jivsd.outcome(gen_random_uuid())"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await clerk(refused)
                await d.sql("GRANT USAGE ON SCHEMA jivsd TO clerk")
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="function start"):
                    await clerk("SELECT jivsd.start('sale')")
                await d.sql("GRANT EXECUTE ON FUNCTION jivsd.start, jivsd.signal, jivsd.outcome TO clerk")
                ((run,),) = await clerk("SELECT jivsd.start('sale', '1', 'o-1')")
                await clerk("SELECT jivsd.signal('sale', 'o-1', 'say', '\"a\"')")
                for refused in (
                    "SELECT jivsd.cancel('sale', 'o-1')",
                    "SELECT jivsd.ask('start', gen_random_uuid(), 'a', 'b', '', NULL, NULL, NULL)",
                    "SELECT FROM jivsd.request",
                    "SELECT FROM jivsd.requests",
                    "INSERT INTO jivsd.request (id) VALUES (gen_random_uuid())",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await clerk(refused)
                # nothing of the caller's takes the place of what the functions use
                await clerk("CREATE FUNCTION pg_temp.coalesce(text, text) RETURNS text LANGUAGE sql AS 'SELECT 1/0'")
                await clerk("CREATE TEMP TABLE request (id uuid)")
                await clerk("SET search_path = pg_temp")
                await clerk("SELECT jivsd.signal('sale', 'o-1', 'say', '\"b\"')")
                assert await d.service.run_once() == 3
                assert (await d.env.events(str(run)))[0].by == "clerk (sql)"
                assert [outcome for (outcome,) in await clerk("SELECT jivsd.outcome($1)", run)]
        finally:
            await d.sql("DROP OWNED BY clerk")
            await d.sql("DROP ROLE clerk")


async def test_where_there_is_no_room_a_start_is_accepted_and_waits(url):
    async with desk_on(url, limits=Limits(active_runs=0)) as d:
        run = await d.ask("SELECT jivsd.start('sale', '0')")
        assert await d.outcome(run) == ("STARTED", UUID(run), "PENDING", None)


async def test_only_what_is_of_ones_own_shards(url):
    async with desk_on(url) as d:
        for number in range(30):
            await d.sql("SELECT jivsd.start('sale', '0', $1)", f"o-{number}")
        mine = range(SHARDS // 2)
        own = RequestService(d.env.engine, Config(page=4), owned=lambda: mine)
        assert await own.run_once() == sum(shard_of(f"o-{number}") in mine for number in range(30)) > 0
        left = await d.sql("SELECT workflow_id FROM jivsd.request")
        assert not [id for (id,) in left if shard_of(id) in mine]
        assert await d.service.run_once() == len(left) > 0


@pytest.mark.embedded
async def test_while_the_store_is_away_nothing_is_refused_or_lost():
    store = FickleStore()
    async with Env(desk, store=store) as env:
        service = RequestService(env.engine, Config(page=2))
        await request(
            store,
            ("start", "o-1", "2"),
            ("signal", "o-1", '"a"'),
            ("signal", "o-1", '"b"'),
            ("signal", "o-2", '"c"'),
        )
        store.writes_fail = True
        assert await service.run_once() == 1  # the one that is nobody's
        store.writes_fail = False
        with trio.fail_after(10):
            while await service.run_once() < 1:  # noqa: ASYNC110 -- until the committer has found the store again
                await trio.sleep(0.01)
        await service.run_once()
        assert msgspec.json.decode((await env.ended("sale:o-1")).output) == ["a", "b"]
        (letter,) = (await env.engine.incidents()).items
        assert "sale:o-2" in letter.message
        await env.engine.retry_incident(letter.incident_id, by="ann", why="")
        await env.start("sale", 1, id="o-2")
        assert await service.run_once() == 1
        assert msgspec.json.decode((await env.ended("sale:o-2")).output) == ["c"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@pytest.mark.slow
def test_sql_finds_the_same_shards(postgres):
    url = postgres(NEWEST).clean()

    async def shards(ids):
        connection = await asyncpg.connect(url)
        try:
            return [
                row[0] for row in await connection.fetch("SELECT jivsd.shard_of(id) FROM unnest($1::text[]) AS id", ids)
            ]
        finally:
            await connection.close()

    @settings(max_examples=25)
    @given(st.lists(TEXTS, min_size=20, max_size=200))
    def same(ids):
        assert asyncio.run(shards(ids)) == [shard_of(id) for id in ids]

    same()


async def test_the_service_goes_on_by_itself(url):
    async with desk_on(url) as d, trio.open_nursery() as nursery:
        await nursery.start(partial(d.service.run))
        run = str(await d.value("SELECT jivsd.start('sale', '1', 'o-1')"))
        await d.sql("SELECT jivsd.signal('sale', 'o-1', 'say', '\"a\"')")
        with trio.fail_after(20):
            while await d.outcome(run) != ("STARTED", UUID(run), "COMPLETED", None):  # noqa: ASYNC110 -- in a database
                await trio.sleep(0.05)
        assert (await d.env.engine.incidents(IncidentState.OPEN)).items == []
        nursery.cancel_scope.cancel()
