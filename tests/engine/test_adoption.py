"""Open runs that are moved to new code: which ones are, why the others stay, and that all of them end well."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest
import trio

from jivsd.engine.api import Conflict, NotFound, Which
from jivsd.records import IncidentState, Kind, Status, payload_of
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing import Env, crash_everywhere
from jivsd.testing.crash import CrashEnv

pytestmark = pytest.mark.jump

BEGIN = """
import trio
from jivsd import NO_RETRY, Context, Failure, StepContext, query, signal, step, workflow

@step
async def first(n: int) -> int:
    return n

@step
async def second(n: int) -> int:
    return n

@step
async def third(n: int) -> int:
    return n

"""

FLOW = """
@workflow("flow")
async def flow(ctx: Context) -> list:
    said = [await ctx.step(first, 1)]
    said.append(await ctx.wait_signal("go"))
"""


class Plugin:
    """The plugin `p`, which tests change."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "p.py"

    def write(self, body: str) -> None:
        self.file.write_text(BEGIN + dedent(body))

    async def change(self, env: Env, body: str) -> str:
        """Write it and have it loaded again; its new hash."""
        self.write(body)
        reloaded = await env.reload()
        assert reloaded.problems == []
        (change,) = reloaded.plugins
        return change.code_hash


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    return Plugin(folder)


async def settled():
    await trio.testing.wait_all_tasks_blocked()


async def started(env, *, workflow="flow", **options):
    run = await env.start(workflow, **options)
    await settled()
    return run


def flow(rest: str) -> str:
    return FLOW + rest


OLD = flow("    return [*said, 'old']\n")
NEW = flow("    said.append(await ctx.step(second, 2))\n    return [*said, 'new']\n")


async def test_a_run_that_matches_goes_on_with_the_new_code_also_in_its_next_life(plugin, tmp_path):
    plugin.write(OLD)
    journal = str(tmp_path / "journal.db")
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        run, other = await started(env), await started(env)
        before = (await env.show(run)).code_hash
        after = await plugin.change(env, NEW)
        tried = await env.adopt("p", dry_run=True)
        assert [(move.state, move.workflow, move.code_hash) for move in tried.values()] == [
            ("fits", "flow", before)
        ] * 2
        assert (await env.show(run)).code_hash == before
        moves = await env.adopt("p")
        assert {move.state for move in moves.values()} == {"moved"}
        assert moves[run].code_hash == before
        assert (await env.show(run)).code_hash == after
        last = (await env.events(run))[-1]
        assert (last.kind, payload_of(last).code_hash, last.by) == (Kind.CODE_CHANGED, after, "test")
        assert await env.adopt("p") == {}
        await env.signal(run, "go", "!")
        assert await env.result(run) == [1, "!", 2, "new"]
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        await env.signal(other, "go", "!")
        assert await env.result(other) == [1, "!", 2, "new"]


DIFFERENT = {
    "another argument of what is over": (
        FLOW.replace("first, 1", "first, 7"),
        "first",
        "step with arguments",
        "step with arguments",
    ),
    "a step in place of another": (FLOW.replace("first, 1", "second, 1"), "first", "step first", "nothing"),
    "a step before what is recorded": (
        FLOW.replace("said = [", "await ctx.step(third, 3)\n    said = ["),
        "first",
        "step first",
        "nothing",
    ),
    "something else at the frontier": (FLOW.replace('wait_signal("go")', "sleep(5)"), "go", "signal", "nothing"),
    "a deadline around the frontier": (
        FLOW + "    with ctx.fail_after(60):\n        await ctx.sleep(1)\n",
        None,
        None,
        None,
    ),
}


@pytest.mark.parametrize("change", DIFFERENT)
async def test_a_run_that_does_not_match_stays_and_is_told_why(plugin, change):
    text, path, expected, found = DIFFERENT[change]
    plugin.write(OLD)
    async with Env(plugin.folder) as env:
        run = await started(env)
        await plugin.change(env, text + "    return [*said, 'new']\n")
        (move,) = (await env.adopt("p")).values()
        if path is None:
            assert move.state == "moved"
            return
        assert (move.state, move.run_id, move.path) == ("stays", run, path)
        assert move.expected.startswith(expected)
        assert move.found.startswith(found)
        assert move.why
        await env.signal(run, "go", "!")
        assert await env.result(run) == [1, "!", "old"]


IN_FLIGHT = """
calls = []

@step
async def slow(n: int) -> int:
    await trio.sleep(3600)
    return n

@workflow("flow")
async def flow(ctx: Context) -> list:
    async with ctx.nursery("n") as nursery:
        job = nursery["slow"].start_soon(slow, {argument})
        nursery["naps"].start_soon(naps, ctx)
    return [job.result, {word!r}]

async def naps(ctx: Context) -> None:
    for _ in range({naps}):
        await ctx.sleep({length})
"""


def in_flight(**words) -> str:
    return IN_FLIGHT.format(**{"argument": 1, "word": "old", "naps": 1, "length": 7200, **words})


async def test_a_step_that_is_under_way_is_compared_too_and_goes_on_undisturbed(plugin):
    plugin.write(in_flight())
    async with Env(plugin.folder) as env:
        run = await started(env)
        await plugin.change(env, in_flight(argument=2))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path) == ("stays", "n[slow]/slow")
        assert move.why == "the new code asks for something else there"
        await env.sleep(1800)
        await plugin.change(env, in_flight(word="new", length=60, naps=3))
        (move,) = (await env.adopt("p")).values()
        assert move.state == "moved"
        began = env.now
        assert await env.result(run) == [1, "new"]
        assert (env.now - began).total_seconds() == pytest.approx(1800)  # what is left of the hour, and short naps
        events = await env.events(run)
        assert [event.kind for event in events if event.path == "n[slow]/slow"] == [Kind.STEP_DONE]
        assert not [event for event in events if event.kind == Kind.RECOVERED]


ADDED = """
@workflow("flow")
async def flow(ctx: Context) -> list:
    async with ctx.nursery("n") as nursery:
        job = nursery["a"].start_soon(first, 1)
        nursery["wait"].start_soon(wait, ctx)
        {more}
    return [job.result, {word!r}]

async def wait(ctx: Context) -> None:
    await ctx.wait_signal("go")
"""


async def test_additions_are_taken_only_on_request(plugin):
    plugin.write(ADDED.format(more="", word="old"))
    async with Env(plugin.folder) as env:
        run = await started(env)
        await plugin.change(env, ADDED.format(more='nursery["b"].start_soon(second, 2)', word="new"))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path, move.expected) == ("stays", "n[b]/second", "nothing")
        assert move.why == "the new code asks for more (an addition)"
        (move,) = (await env.adopt("p", additions=True)).values()
        assert move.state == "moved"
        await settled()
        kinds = [(event.kind, event.path) for event in await env.events(run)]
        assert kinds[-2:] == [(Kind.CODE_CHANGED, ""), (Kind.STEP_DONE, "n[b]/second")]
        await env.signal(run, "go")
        assert await env.result(run) == [1, "new"]


STUCK = """
@workflow("flow")
class Flow:
    count = 0

    @signal
    def more(self) -> None:
        self.count += 1

    async def run(self, ctx: Context) -> list:
        await ctx.wait_until(lambda: self.count > {limit})
        return ["new"]
"""


async def test_a_condition_that_was_wrong_can_be_mended_as_an_addition(plugin):
    plugin.write(STUCK.format(limit=99))
    async with Env(plugin.folder) as env:
        run = await started(env)
        await env.signal(run, "more")
        await plugin.change(env, STUCK.format(limit=0))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path, move.found) == ("stays", "wait_until", "until, over")
        (move,) = (await env.adopt("p", additions=True)).values()
        assert move.state == "moved"
        assert await env.result(run) == ["new"]


async def test_a_paused_run_is_moved_and_stays_paused(plugin):
    plugin.write(OLD)
    async with Env(plugin.folder) as env:
        run = await started(env)
        await env.pause(run)
        await plugin.change(env, NEW)
        (move,) = (await env.adopt("p")).values()
        assert move.state == "moved"
        assert (await env.show(run)).paused
        await env.signal(run, "go", "!")
        await settled()
        assert not [event for event in await env.events(run) if event.path == "second"]
        await env.resume(run)
        assert await env.result(run) == [1, "!", 2, "new"]


async def test_a_run_that_has_left_memory_is_moved_and_leaves_it_again_with_its_new_time(plugin):
    text = """
        @workflow("flow")
        async def flow(ctx: Context) -> str:
            await ctx.sleep({length})
            return "{word}"
    """
    plugin.write(text.format(length=7200, word="old"))
    async with Env(plugin.folder, passivate_after="1m") as env:
        run = await started(env)
        await env.sleep("10m")
        assert run not in env.engine.actors
        await plugin.change(env, dedent(text).format(length=3600, word="new"))
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        await env.sleep("10m")
        assert run not in env.engine.actors
        await env.sleep("41m")
        assert (await env.show(run)).status is Status.COMPLETED
        assert await env.result(run) == "new"


MENDED = {
    "a handler that raises": (
        "handler",
        """
        @workflow("flow")
        class Flow:
            got = 0

            @signal
            def go(self, n: int) -> None:
                self.got = {bug}

            async def run(self, ctx: Context) -> list:
                await ctx.step(first, 1)
                await ctx.wait_until(lambda: self.got)
                return [self.got, "new"]
        """,
        "1 // 0",
        "n",
    ),
    "an await of something undurable": (
        "foreign",
        """
        @workflow("flow")
        async def flow(ctx: Context) -> list:
            await ctx.step(first, 1)
            n = await ctx.wait_signal("go")
            {bug}
            return [n, "new"]
        """,
        "await trio.sleep(1)",
        "pass",
    ),
    "a version that is no longer known": (
        "version",
        """
        @workflow("flow")
        async def flow(ctx: Context) -> list:
            await ctx.step(first, 1)
            await ctx.version("v", 1, 3)
            n = await ctx.wait_signal("go")
            await ctx.version("v", {bug}, 9)
            return [n, "new"]
        """,
        "4",
        "1",
    ),
}


@pytest.mark.parametrize("bug", MENDED)
async def test_a_run_that_a_bug_has_blocked_goes_on_with_the_mended_code(plugin, bug):
    kind, text, wrong, right = MENDED[bug]
    plugin.write(dedent(text).format(bug=wrong))
    async with Env(plugin.folder) as env:
        run = await started(env)
        await env.signal(run, "go", 5)
        await settled()
        assert (await env.show(run)).status is Status.BLOCKED
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == kind
        await plugin.change(env, dedent(text).format(bug=right))
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        assert await env.result(run) == [5, "new"]
        closed = await env.engine.incident(incident.incident_id)
        assert (closed.state, closed.resolution, closed.resolved_by) == (IncidentState.RESOLVED, "adopted", "test")
        assert closed.resolved_why == f"the run goes on with code {(await env.show(run)).code_hash} of plugin 'p'"
        assert [event.path for event in await env.events(run) if event.kind == Kind.STEP_DONE] == ["first"]


WAVERING = """
    coin = iter([first, second, second, second, second])

    @workflow("flow")
    async def flow(ctx: Context) -> list:
        done = await ctx.step({which}, 1)
        return [done, await ctx.wait_signal("go"), "new"]
"""


async def test_a_run_whose_code_did_something_else_in_the_replay_is_held_to_its_journal_alone(plugin, tmp_path):
    plugin.write(WAVERING.format(which="next(coin)"))
    journal = str(tmp_path / "journal.db")
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        run = await started(env)
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        await settled()
        (incident,) = (await env.engine.incidents(ref=run)).items
        assert incident.kind == "replay"
        await plugin.change(env, WAVERING.format(which="third"))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path, move.expected, move.found) == ("stays", "first", "step first", "nothing")
        await plugin.change(env, WAVERING.format(which="first"))
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        await env.signal(run, "go", "!")
        assert await env.result(run) == [1, "!", "new"]
        assert (await env.engine.incident(incident.incident_id)).resolution == "adopted"


async def test_a_run_whose_code_is_lost_is_held_to_its_journal_and_goes_on(plugin, tmp_path):
    plugin.write(OLD + "\nimport os\nif 'LOST' in os.environ: raise RuntimeError('lost')\n")
    journal = str(tmp_path / "journal.db")
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        run, odd = await started(env), await started(env)
    plugin.write(NEW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOST", "1")
        for name in [name for name in sys.modules if name.startswith("jivsd_plugins.")]:
            patched.delitem(sys.modules, name)
        async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
            await settled()
            found = {one.run_id: one for one in (await env.engine.incidents()).items}
            assert {one.kind for one in found.values()} == {"plugin"}
            moves = await env.adopt("p")
            assert {move.state for move in moves.values()} == {"moved"}
            for one in (run, odd):
                await env.signal(one, "go", "!")
                assert await env.result(one) == [1, "!", 2, "new"]
                assert (await env.engine.incident(found[one].incident_id)).resolution == "adopted"


HELD = """
    @step(name="fragile", retry=NO_RETRY, on_exhausted="incident")
    async def fragile(n: int) -> int:
        return {body}

    @workflow("flow")
    async def flow(ctx: Context) -> int:
        return await ctx.step(fragile, 2)
"""


async def test_a_step_that_failed_for_a_bug_runs_mended_when_its_incident_is_retried(plugin):
    plugin.write(HELD.format(body="n // 0"))
    async with Env(plugin.folder) as env:
        run = await started(env)
        (incident,) = (await env.engine.incidents(ref=run)).items
        await plugin.change(env, HELD.format(body="n * 10"))
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        assert (await env.show(run)).status is Status.BLOCKED
        await env.engine.retry_incident(incident.incident_id, by="ann", why="mended")
        assert await env.result(run) == 20


VERSIONED = """
    @workflow("flow")
    async def flow(ctx: Context) -> list:
        said = [await ctx.step(first, 1)]
        {middle}
        said.append(await ctx.wait_signal("go"))
        if await ctx.version("late", 1, 2) == 2:
            said.append("late")
        return said
"""


async def test_version_tells_those_who_are_past_it_from_those_who_are_not(plugin, tmp_path):
    plugin.write(OLD)
    journal = str(tmp_path / "journal.db")
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        run = await started(env)
        middle = 'if await ctx.version("early", 1, 2) == 2:\n            said.append(await ctx.step(second, 2))'
        await plugin.change(env, VERSIONED.format(middle=middle))
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        new = await started(env)
        await env.signal(new, "go", "!")
        assert await env.result(new) == [1, 2, "!", "late"]
    async with Env(plugin.folder, store=SqliteStore(journal, threaded=False)) as env:
        await env.signal(run, "go", "!")
        assert await env.result(run) == [1, "!", "late"]


async def test_a_signal_that_the_new_code_cannot_read_is_a_difference(plugin):
    body = """
    @workflow("flow")
    class Flow:
        @signal
        def note(self, what: {type}) -> None:
            pass

        async def run(self, ctx: Context) -> str:
            await ctx.wait_signal("go")
            return "new"
    """
    plugin.write(body.format(type="str"))
    async with Env(plugin.folder) as env:
        run = await started(env)
        await env.signal(run, "note", "seven", message_id="m-7")
        await settled()
        await plugin.change(env, body.format(type="int"))
        (move,) = (await env.adopt("p")).values()
        assert (move.state, move.path) == ("stays", "message:m-7")
        assert "int" in move.why


BUSY = """
@workflow("flow")
async def flow(ctx: Context) -> list:
    for n in range(2000):
        await ctx.step(first, n)
    return [{word!r}]
"""


@pytest.mark.slow
async def test_a_run_that_never_waits_is_moved_in_the_middle(plugin):
    plugin.write(BUSY.format(word="old"))
    async with Env(plugin.folder) as env:
        run = await env.start("flow")
        await plugin.change(env, BUSY.format(word="new"))
        while env.engine.actors[run].seq < 100:
            await env.engine.actors[run].changed()
        assert [move.state for move in (await env.adopt("p")).values()] == ["moved"]
        assert await env.result(run) == ["new"]
        events = await env.events(run)
        (change,) = [event for event in events if event.kind == Kind.CODE_CHANGED]
        assert 100 <= change.seq < 2000
        assert len({event.path for event in events if event.kind == Kind.STEP_DONE}) == 2000


async def test_which_runs(plugin):
    plugin.write(OLD + OLD.replace('"flow"', '"other"').replace("def flow", "def other"))
    async with Env(plugin.folder) as env:
        runs = [await started(env, id=str(n)) for n in range(5)]
        other = await started(env, workflow="other", id="9")
        after = await plugin.change(env, NEW)  # which has no workflow "other"
        engine = env.engine
        only = await engine.adopt_code("p", Which(run="flow:3"), by="ann")
        assert [(move.run_id, move.state) for move in only.items] == [(runs[3], "moved")]
        assert (only.plugin, only.code_hash, only.next) == ("p", after, None)
        for which in (Which(id="4"), Which(workflow="flow", id="2", status=[Status.RUNNING])):
            page = await engine.adopt_code("p", which, by="ann")
            assert [(move.workflow_id, move.state) for move in page.items] == [(which.id, "moved")]
        assert (await engine.adopt_code("p", Which(status=[Status.BLOCKED]), by="ann")).items == []
        assert (await engine.adopt_code("p", Which(parent="x"), by="ann")).items == []
        first = await engine.adopt_code("p", by="ann", limit=1)
        assert [(move.run_id, move.state) for move in first.items] == [(other, "stays")]
        rest = await engine.adopt_code("p", by="ann", cursor=first.next)
        assert [(move.run_id, move.state) for move in rest.items] == [(runs[1], "moved"), (runs[0], "moved")]
        assert first.items[0].why == "plugin 'p' no longer has workflow 'other'"
        with pytest.raises(NotFound, match="there is no plugin 'q' that new runs use; there are: p"):
            await engine.adopt_code("q", by="ann")
        await env.signal(runs[0], "go")
        await env.ended(runs[0])
        with pytest.raises(Conflict, match="has ended: COMPLETED"):
            await engine.adopt_code("p", Which(run=runs[0]), by="ann")


PURCHASE = """
@workflow("purchase")
async def purchase(ctx: Context, number: int) -> str:
    await ctx.step(first, number if number % 2 else {odd})
    paid = await ctx.wait_signal("paid", int)
    await ctx.step(second, {paid})
    return "{word}"
"""
"""Those with an odd number can be moved from one version to the other, those with an even one cannot."""


async def all_at_once(act, things):
    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(act, thing)


@pytest.mark.slow
async def test_a_thousand_open_runs_are_moved_or_stay_and_all_end_well_with_crashes_meanwhile(plugin):
    plugin.write(PURCHASE.format(odd=0, paid="paid", word="old"))
    runs = {}
    deaths = [(2500, "before"), (300, "behind"), (1200, "before"), (900, "behind")]
    async with CrashEnv([plugin.folder], deaths) as env:

        async def start(number):
            runs[number] = await env.start("purchase", number, id=str(number))

        async def pay(number):
            await env.signal(runs[number], "paid", number, message_id=f"paid-{number}")

        engine = env.engine
        await all_at_once(start, range(1000))
        await settled()
        await plugin.change(env, PURCHASE.format(odd=-1, paid="paid + 1", word="new"))
        moves = await env.adopt("p")
        again = await env.adopt("p")  # which asks for those once more of which the answer was lost in a crash
        stay = {number for number, run in runs.items() if again.get(run) is not None and again[run].state == "stays"}
        assert stay == {number for number in range(1000) if number % 2 == 0}
        assert {move.path for move in again.values()} == {"first"}
        assert {move.state for move in moves.values()} == {"moved", "stays"}
        await all_at_once(pay, range(1000))
        for number, run in runs.items():
            assert await env.result(run) == ("new" if number % 2 else "old")
        changed = [event for run in runs.values() for event in await env.events(run) if event.kind == Kind.CODE_CHANGED]
        assert len(changed) == len({event.run_id for event in changed}) == 500
        assert not (await env.engine.incidents()).items
        assert env.engine is not engine


def test_a_crash_at_any_append_of_a_move_loses_nothing(plugin):
    async def scenario(env):
        plugin.write(IN_FLIGHT.format(argument=1, word="old", naps=1, length=7200))
        await env.reload()
        run = await env.start("flow")
        await env.sleep("10m")
        plugin.write(IN_FLIGHT.format(argument=1, word="new", naps=2, length=60))
        await env.reload()
        await env.adopt("p")
        await env.ended(run)

    plugin.write(in_flight())
    assert crash_everywhere([plugin.folder], scenario) >= 6


@pytest.mark.parametrize("bug", MENDED)
def test_a_crash_at_any_append_while_a_blocked_run_is_mended_loses_nothing(plugin, bug):
    _, text, wrong, right = MENDED[bug]

    async def scenario(env):
        plugin.write(dedent(text).format(bug=wrong))
        await env.reload()
        run = await env.start("flow")
        await env.signal(run, "go", 5, message_id="m")
        await env.sleep("1m")
        plugin.write(dedent(text).format(bug=right))
        await env.reload()
        await env.adopt("p")
        await env.ended(run)

    plugin.write(dedent(text).format(bug=wrong))
    assert crash_everywhere([plugin.folder], scenario) >= 6
