"""What several nodes do with one another's runs: any answers, the owner lives them, shards come and go."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import pytest
import trio
import trio.testing
from databases import NEWEST

from engine import traffic
from engine.traffic import EVEN, ODD, name_in, nodes
from jivsd.engine.api import Act, Conflict, Invalid, NewStart, NotFound, StartOptions, Unavailable
from jivsd.records import ENDED, Incident, IncidentState, Kind, Status, new_id, shard_of
from jivsd.store.api import Entry, RunFilter


@pytest.fixture
def url(postgres, monkeypatch):
    monkeypatch.setattr("jivsd.engine.calling.POLL", 0.2)
    monkeypatch.setattr("jivsd.engine.calling.LATE", 0.1)
    return postgres(NEWEST).clean()


@pytest.fixture(params=[True, False], ids=["called", "polled"])
def called(request):
    return request.param


async def ended(engine, ref, seconds=10):
    run = await engine.result(ref, seconds)
    assert run.status in ENDED, run
    return run


async def until(true):
    with trio.fail_after(5):
        while not true():  # noqa: ASYNC110 -- what is watched tells nobody
            await trio.sleep(0.01)


def output(run):
    return bytes(run.output)


async def start(engine, workflow, input, shards, **options):
    accepted = await engine.start(workflow, input, StartOptions(id=name_in(shards), **options))
    return accepted.run


async def test_a_start_goes_to_the_node_that_has_its_shard(url, called):
    async with nodes(url, calls=called) as n:
        run = await start(n["a"], "plain", b'"x"', ODD)
        done = await ended(n["a"], run.run_id)
        assert (done.status, output(done)) == (Status.COMPLETED, b'"X"')
        assert done.started_at is not None
        assert traffic.world.attempts == ["x"]
        assert run.run_id not in n["a"].living
        events = (await n["a"].timeline(run.run_id)).items
        assert [event.kind for event in events] == [Kind.STARTED, Kind.STEP_DONE, Kind.ENDED]


async def test_a_run_without_a_name_lives_where_it_was_started(url):
    async with nodes(url) as n:
        for _ in range(8):
            run = (await n["b"].start("plain", b'"x"')).run
            assert run.shard % 2 == 1
            assert run.status is Status.RUNNING


async def test_starts_are_refused_by_whichever_node_for_the_same_reasons(url):
    async with nodes(url) as n:
        run = await start(n["a"], "listener", b"1", ODD, idempotency_key="k")
        again = await n["b"].start("listener", b"1", StartOptions(id="other", idempotency_key="k"))
        assert (again.existing, again.run.run_id) == (True, run.run_id)
        for name in "ab":
            with pytest.raises(Conflict, match="has an open run") as refused:
                await n[name].start("listener", b"1", StartOptions(id=run.workflow_id))
            assert refused.value.data["run_id"] == run.run_id
            with pytest.raises(Conflict, match="with another input"):
                await n[name].start("listener", b"2", StartOptions(id="else", idempotency_key="k"))


async def test_messages_of_all_kinds_reach_a_run_of_the_other_node(url, called):
    async with nodes(url, calls=called) as n:
        a, b = n["a"], n["b"]
        run = await start(b, "listener", b"3", ODD)
        await a.signal(run.run_id, "say", b'"one"', message_id="m")
        await a.signal(f"listener:{run.workflow_id}", "say", b'"two"')
        assert (await a.signal(run.run_id, "say", b'"one"', message_id="m")).duplicate
        updated = await a.update(run.run_id, "swap", b'"2"', wait=10)
        assert (updated.answered, bytes(updated.value)) == (True, b'"two"')
        assert bytes((await a.query(run.run_id, "heard")).value) == b"2"
        await a.signal(run.run_id, "say", b'"three"')
        assert output(await ended(a, run.run_id)) == b'["one","2","three"]'


async def test_runs_of_the_other_node_are_paused_resumed_cancelled_and_terminated(url, called):
    async with nodes(url, calls=called) as n:
        a = n["a"]
        run = await start(a, "listener", b"1", ODD)
        assert (await a.pause(run.run_id, by="ann")).paused
        with pytest.raises(Conflict, match="is paused"):
            await a.pause(run.run_id, by="ann")
        assert not (await a.resume(run.run_id, by="ann")).paused
        await a.cancel(run.run_id, by="ann")
        assert (await ended(a, run.run_id)).status is Status.CANCELLED
        other = await start(a, "listener", b"1", ODD)
        assert (await a.terminate(other.run_id, by="ann")).status is Status.TERMINATED
        with pytest.raises(Conflict, match="has ended"):
            await a.terminate(other.run_id, by="ann")


async def test_an_incident_is_decided_where_its_run_lives(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "holds", b"null", ODD)
        with trio.fail_after(5):
            while not (found := (await a.incidents(IncidentState.OPEN)).items):  # noqa: ASYNC110 -- a store tells nobody
                await trio.sleep(0.01)
        (incident,) = found
        with pytest.raises(Invalid, match="give a value"):
            await a.resolve_incident(incident.incident_id, None, by="ann", why="")
        with pytest.raises(Invalid, match="result"):
            await a.resolve_incident(incident.incident_id, b"17", by="ann", why="")
        closed = await a.resolve_incident(incident.incident_id, b'"fine"', by="ann", why="she knows")
        assert (closed.state, closed.resolved_by) == (IncidentState.RESOLVED, "ann")
        assert output(await ended(a, run.run_id)) == b'"fine"'
        with pytest.raises(Conflict, match="resolved already"):
            await a.resolve_incident(incident.incident_id, b'"fine"', by="ann", why="")


async def test_the_owner_that_does_not_answer_is_not_waited_for_long(url, monkeypatch):
    monkeypatch.setattr("jivsd.engine.forwarding.PATIENCE", 0.2)
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "listener", b"1", ODD)
        n["b"].holding.lose(ODD)
        with pytest.raises(Unavailable, match="does not answer"):
            await a.pause(run.run_id, by="ann")


async def test_children_live_on_whichever_node(url, called):
    async with nodes(url, calls=called) as n:
        names = [f"c{number}" for number in range(12)]
        assert {shard_of(f"child-{name}") % 2 for name in names} == {0, 1}
        run = (await n["a"].start("family", str(names).replace("'", '"').encode())).run
        done = await ended(n["b"], run.run_id, 30)
        assert done.status is Status.COMPLETED, done.error
        assert sorted(traffic.world.attempts) == sorted(names)
        children = (await n["b"].runs(RunFilter(workflow="plain"), 50)).items
        assert {child.shard % 2 for child in children} == {0, 1}


async def test_runs_of_all_nodes_are_acted_on_at_once(url, called):
    async with nodes(url, calls=called) as n:
        a = n["a"]
        names = [name_in(shards, first) for shards in (EVEN, ODD) for first in (100, 200, 300)]
        ids = {(await a.start("listener", b"1", StartOptions(id=name))).run.run_id for name in names}
        paused = await a.pause_all(by="ann", reason="tea")
        assert (paused.done, paused.refusals, paused.next) == (6, 0, None)
        assert (await n["b"].status()).paused == 6
        acts = await n["b"].act_on_all(Act("resume"), RunFilter(), by="ann")
        assert {one.run_id for one in acts.items if one.result == "done" and not one.paused} == ids
        ended_ones = await a.act_on(Act("terminate"), sorted(ids), by="ann")
        assert [(one.run_id, one.status) for one in ended_ones] == [(one, Status.TERMINATED) for one in sorted(ids)]


async def test_a_terminated_parent_takes_its_children_on_other_nodes_along(url):
    async with nodes(url) as n:
        names = [f"long{number}" for number in range(6)]
        run = (await n["a"].start("family", str(names).replace("'", '"').encode())).run
        await until(lambda: len(traffic.world.attempts) == 6)
        await n["b"].terminate(run.run_id, by="ann")
        traffic.world.may_end.set()
        for child in (await n["b"].runs(RunFilter(workflow="plain"), 50)).items:
            assert (await ended(n["b"], child.run_id)).status is Status.TERMINATED


async def test_a_lock_excludes_on_all_nodes_and_goes_by_the_order_of_starts(url, called):
    async with nodes(url, calls=called) as n:
        runs = []
        for number in range(6):
            input = f'"run{number}"'.encode()
            name = StartOptions(id=name_in((EVEN, ODD)[number // 2 % 2], 100 * number))
            runs.append((await n["ab"[number % 2]].start("locked", input, name)).run)
        for run in runs:
            assert (await ended(n["a"], run.run_id, 30)).status is Status.COMPLETED
        assert traffic.world.attempts == [f"run{number}" for number in range(6)]


async def test_a_lock_that_is_not_waited_for_is_refused_from_every_node(url):
    async with nodes(url) as n:
        holder = await start(n["a"], "locked", b'"long"', EVEN)
        for name in "ab":
            with pytest.raises(Conflict, match="is held") as refused:
                await n[name].start("locked", b'"other"', StartOptions(id=name_in(ODD), lock_wait="0s"))
            assert refused.value.data["run_id"] == holder.run_id


async def test_starts_in_bulk_go_everywhere(url):
    async with nodes(url) as n:
        wanted = [NewStart("plain", b'"x"', StartOptions(id=f"bulk{number}")) for number in range(60)]
        results = await n["a"].start_many(wanted)
        assert [result.result for result in results] == ["accepted"] * 60
        for result in results:
            assert (await ended(n["a"], result.run_id)).status is Status.COMPLETED
        assert len(traffic.world.attempts) == 60


async def test_a_start_for_a_node_that_is_full_is_refused(url):
    async with nodes(url) as n:
        a = n["a"]
        a.holding.owner_is_full = lambda shard: shard % 2 == 1
        with pytest.raises(Unavailable, match="has no room for it"):
            await start(a, "plain", b'"x"', ODD)
        named = [NewStart("plain", b'"x"', StartOptions(id=name_in(shards))) for shards in (EVEN, ODD)]
        assert [result.result for result in await a.start_many(named)] == ["accepted", "refused"]
        assert (await start(a, "plain", b'"x"', ODD, delay="1h")).status is Status.PENDING


async def test_a_delayed_start_begins_where_its_shard_is(url):
    async with nodes(url, calls=False) as n:
        run = await start(n["a"], "plain", b'"later"', ODD, delay="1500ms")
        assert run.status is Status.PENDING
        done = await ended(n["b"], run.run_id)
        assert done.started_at >= run.created_at + 1_500_000


async def test_a_node_without_shards_waits_for_one_and_then_says_so(url, monkeypatch):
    async with nodes(url) as n:
        c = await n.join("c")
        monkeypatch.setattr("jivsd.engine.holding.FIRST_WAIT", 0.1)
        with pytest.raises(Unavailable, match="no part of the work"):
            await c.start("plain", b'"x"')
        (refused,) = await c.start_many([NewStart("plain", b'"x"', StartOptions())])
        assert (refused.result, refused.code) == ("refused", "unavailable")
        monkeypatch.setattr("jivsd.engine.holding.FIRST_WAIT", 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n.move, [0, 2, 4], "a", "c")
            run = (await c.start("plain", b'"x"')).run
        assert run.shard in (0, 2, 4)
        assert (await ended(c, run.run_id)).status is Status.COMPLETED


async def test_handed_over_runs_go_on_elsewhere(url):
    async with nodes(url) as n:
        a, b = n["a"], n["b"]
        waiting = await start(a, "listener", b"2", EVEN)
        await a.signal(waiting.run_id, "say", b'"one"')
        stepping = (await a.start("plain", b'"long"', StartOptions(id=name_in(EVEN, 1000)))).run
        await until(lambda: traffic.world.attempts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n.move, EVEN, "a", "b", 10.0)
            await trio.sleep(0.05)
            await a.signal(waiting.run_id, "say", b'"two"')
            traffic.world.may_end.set()
        assert not a.holding.shards
        assert not a.living
        assert output(await ended(b, waiting.run_id)) == b'["one","two"]'
        assert output(await ended(b, stepping.run_id)) == b'"LONG"'
        assert traffic.world.attempts == ["long"], "it had the time to end"


async def test_steps_of_shards_that_stay_go_on_while_others_are_handed_over(url):
    async with nodes(url) as n:
        run = await start(n["a"], "plain", b'"long, and it beats"', EVEN)
        await until(lambda: traffic.world.attempts)
        moving = [shard for shard in EVEN if shard != run.shard]
        await trio.testing.wait_all_tasks_blocked()  # it has beaten
        assert await n.move(moving, "a", "b", 0.1) == set(moving)
        traffic.world.may_end.set()
        assert output(await ended(n["a"], run.run_id)) == b'"LONG, AND IT BEATS"'
        assert len(traffic.world.attempts) == 1


async def test_a_life_that_was_dropped_writes_nothing_although_its_shard_is_back(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "plain", b'"long"', EVEN)
        await until(lambda: traffic.world.attempts)
        epochs = {run.shard: a.committer.epochs[run.shard]}
        actor = a.actors[run.run_id]
        a.holding.lose([run.shard])
        a.holding.take(epochs)
        actor.append(Kind.MARKER, "late", b"{}")  # as what was under way would do
        traffic.world.may_end.set()
        assert output(await ended(a, run.run_id)) == b'"LONG"'
        kinds = [event.kind for event in (await a.timeline(run.run_id)).items]
        assert Kind.MARKER not in kinds


async def test_a_step_that_takes_too_long_is_cut_and_runs_again_elsewhere(url):
    async with nodes(url) as n:
        run = await start(n["a"], "plain", b'"long"', EVEN)
        await until(lambda: traffic.world.attempts)
        assert await n.move(EVEN, "a", "b", 0.1) == set(EVEN)
        await until(lambda: len(traffic.world.attempts) == 2)
        traffic.world.may_end.set()
        assert output(await ended(n["b"], run.run_id)) == b'"LONG"'
        kinds = [event.kind for event in (await n["b"].timeline(run.run_id)).items]
        assert kinds == [Kind.STARTED, Kind.RECOVERED, Kind.STEP_DONE, Kind.ENDED]


async def test_what_another_node_has_taken_is_dropped_and_goes_on_there(url):
    async with nodes(url) as n:
        a, b = n["a"], n["b"]
        said = []
        a.holding.on_fenced = said.append
        run = await start(a, "listener", b"2", EVEN)
        await a.signal(run.run_id, "say", b'"one"')
        await n.seize([run.shard], "b")
        await a.signal(run.run_id, "say", b'"two"')
        assert output(await ended(b, run.run_id)) == b'["one","two"]'
        await until(lambda: said == [run.shard] and run.run_id not in a.living)
        assert run.shard not in a.holding.shards


async def test_a_start_whose_voucher_is_lost_is_vouched_for_by_another_shard(url):
    async with nodes(url) as n:
        a = n["a"]
        voucher = a.holding.fence(1)
        await n.seize([voucher], "b")
        run = await start(a, "plain", b'"x"', ODD)
        assert (await ended(a, run.run_id)).status is Status.COMPLETED
        assert voucher not in a.holding.shards


async def test_a_shard_that_comes_back_brings_its_runs_back(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "listener", b"1", EVEN)
        await until(lambda: run.run_id in a.actors)
        for _ in range(3):
            a.holding.lose([run.shard])
            await n.give("a", [run.shard])
        await a.signal(run.run_id, "say", b'"there"')
        assert output(await ended(a, run.run_id)) == b'["there"]'


@asynccontextmanager
async def commits_held(engine):
    """Let no start be written by a node inside; the event says that one waits."""
    commit, waits, may = engine.store.commit, trio.Event(), trio.Event()

    async def wait(entries, more):
        if any(isinstance(entry, Entry) and entry.new is not None for entry in entries):
            waits.set()
            await may.wait()
        return await commit(entries, more)

    engine.store.commit = wait
    try:
        yield waits
    finally:
        engine.store.commit = commit
        may.set()


async def test_a_child_whose_shard_moves_while_its_start_is_written_is_found_there(url):
    async with nodes(url, calls=False) as n:
        a = n["a"]
        name = next(f"c{number}" for number in count() if shard_of(f"child-c{number}") in EVEN)
        shard = shard_of(f"child-{name}")
        parents = [even for even in EVEN if even != shard]
        moved = trio.Event()

        async def move():
            assert await n.move([shard], "a", "b", 0.1) == {shard}
            moved.set()

        async with trio.open_nursery() as nursery:
            parent = (await a.start("family", f'["{name}"]'.encode(), StartOptions(id=name_in(parents)))).run
            async with commits_held(a) as waits:
                await waits.wait()
                nursery.start_soon(move)
                with trio.move_on_after(0.3):
                    await moved.wait()
        assert (await ended(a, parent.run_id)).status is Status.COMPLETED


async def test_a_start_whose_shard_comes_here_while_it_is_written_is_as_its_row_says(url):
    async with nodes(url, calls=False) as n:
        a, started = n["a"], []

        async def begin():
            started.append(await start(a, "plain", b'"x"', ODD))

        async with trio.open_nursery() as nursery, commits_held(a) as waits:
            nursery.start_soon(begin)
            await waits.wait()
            await n.move(ODD, "b", "a")
        await ended(a, started[0].run_id)
        row = await a.store.run(started[0].run_id)
        assert (row.status, row.parked, row.started_at is None) == (Status.COMPLETED, False, False)


async def test_a_run_whose_shard_goes_while_it_is_read_does_not_live(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "listener", b"1", EVEN)
        await until(lambda: run.run_id in a.actors)
        a.holding.lose([run.shard])
        await until(lambda: run.run_id not in a.living)
        a.troubled.add(run.run_id)
        incidents, lost = a.store.incidents, trio.Event()

        async def lose(state, run_id=None, *more, **others):
            if run_id == run.run_id:
                assert run_id in a.living
                a.holding.lose([run.shard])
                lost.set()
            return await incidents(state, run_id, *more, **others)

        a.store.incidents = lose
        await n.give("a", [run.shard])
        await until(lost.is_set)
        await until(lambda: run.run_id not in a.living)


async def test_a_run_that_is_held_when_its_shard_has_gone_does_not_wait_here(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "listener", b"1", EVEN)
        await until(lambda: run.run_id in a.actors)
        a.holding.lose([run.shard])
        await until(lambda: run.run_id not in a.living)
        code_of = a.code_of

        async def gone(run):
            a.holding.lose([run.shard])

        a.code_of = gone
        await n.give("a", [run.shard])
        await until(lambda: run.run_id in a.living)
        await until(lambda: run.run_id not in a.living)
        a.code_of = code_of
        await n.give("a", [run.shard])
        await a.signal(run.run_id, "say", b'"there"')
        assert output(await ended(a, run.run_id)) == b'["there"]'


async def test_shards_that_stay_have_the_epoch_that_was_raised_meanwhile(url, monkeypatch):
    monkeypatch.setattr("jivsd.engine.holding.CUT", 0.05)
    async with nodes(url) as n:
        a = n["a"]
        before = a.committer.epochs[0]
        a.holding.population[0] += 1  # as a thread that does not end
        raised = await a.store.raise_epoch("a", {0: before})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.holding.hand_over, [0], 0.05)
            await trio.lowlevel.checkpoint()
            a.committer.hold(raised)
        a.holding.population[0] -= 1
        assert a.committer.epochs[0] == before + 1
        run = await start(a, "plain", b'"x"', [0])
        assert (await ended(a, run.run_id)).status is Status.COMPLETED
        assert 0 in a.holding.shards


async def test_a_quarantine_holds_on_every_node(url, called, monkeypatch):
    monkeypatch.setattr("jivsd.engine.quarantine.LOOK_EVERY", 0.1)
    async with nodes(url, calls=called) as n:
        a, b = n["a"], n["b"]
        run = await start(a, "listener", b"1", ODD)
        await until(lambda: run.run_id in b.actors)
        await a.quarantine_workflow("listener", by="ann", why="odd")
        await until(lambda: b.quarantine.of("listener") is not None and run.run_id in b.suspended)
        with pytest.raises(Conflict, match="quarantined"):
            await b.start("listener", b"1")
        await b.lift_quarantine("listener", by="ann", why="fine")
        await until(lambda: a.quarantine.of("listener") is None)
        await a.signal(run.run_id, "say", b'"x"')
        assert (await ended(a, run.run_id)).status is Status.COMPLETED


async def test_a_quarantine_that_is_being_written_is_not_taken_for_lifted(url, monkeypatch):
    monkeypatch.setattr("jivsd.engine.quarantine.LOOK_EVERY", 0)
    async with nodes(url) as n:
        a, put, may = n["a"], n["a"].store.put_incident, trio.Event()

        async def wait(incident):
            await may.wait()
            await put(incident)

        a.store.put_incident = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(a.quarantine_workflow, "listener", by="ann", why="odd"))
            await until(lambda: a.quarantine.of("listener") is not None)
            await a.quarantine.look()
            assert a.quarantine.of("listener") is not None
            may.set()


async def test_an_incident_of_a_run_of_the_other_node_that_has_ended_is_decided_there(url):
    async with nodes(url) as n:
        a = n["a"]
        run = await start(a, "plain", b'"x"', ODD)
        await ended(a, run.run_id)
        incident = Incident(new_id(), "message", "nobody took it", a.clock.now(), run_id=run.run_id)
        await a.store.put_incident(incident)
        await a.acknowledge_incident(incident.incident_id, by="ann", why="seen")
        assert (await a.store.incident(incident.incident_id)).acknowledged.by == "ann"


async def test_a_call_that_cannot_be_understood_is_left(url):
    async with nodes(url) as n:
        n["a"].calling.heard(b"\xff")
        n["a"].calling.heard(b'{"runs":["00000000-0000-0000-0000-000000000000"]}')
        run = await start(n["a"], "plain", b'"x"', EVEN)
        assert (await ended(n["a"], run.run_id)).status is Status.COMPLETED
        with pytest.raises(NotFound):
            await n["a"].show("00000000-0000-0000-0000-000000000000")
