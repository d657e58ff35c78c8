"""Makes the golden journals anew: `PYTHONPATH=.:tests python -m golden.make [NAME ...]`.

Only for new scenarios, or when a change is meant to break with older journals: those that are committed guard
every later version, so they are not made anew to make a test pass. No payload names the machine: databases are below
`PLACE`, which is the same everywhere; what a step measures of the machine (free space) is replaced.
"""

from __future__ import annotations

import inspect
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

import plugins.migration
import plugins.showcase
from golden import changed, outward, workflows
from jivsd.engine.api import Invalid, UpdateFailed
from jivsd.records import payload_of
from jivsd.store.api import RunFilter
from jivsd.store.sqlite.store import SqliteStore
from jivsd.testing.env import Env, run
from jivsd.testing.history import History, record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

HERE = Path(__file__).parent
PLACE = Path("/tmp/jivsd-golden")

Scenario = tuple["ModuleType", "Callable[[Env], Awaitable[list[History]]]"]


async def taken(env: Env, *runs: str) -> list[History]:
    """The histories of some runs."""
    return [History.of(await env.engine.show(run), await env.events(run)) for run in runs]


async def empty_place() -> Path:
    await trio.Path(PLACE).mkdir(exist_ok=True)
    for file in await trio.Path(PLACE).iterdir():
        await file.unlink()
    return PLACE


def only(workflow: str, input: Any = None, act: Callable[[Env, str], Awaitable[None]] | None = None) -> Any:
    """A scenario of one run; `act` is what happens to it meanwhile."""

    async def scenario(env: Env) -> list[History]:
        started = await env.start(workflow, input, id="golden")
        if act is not None:
            await act(env, started)
        await env.ended(started)
        return await taken(env, started)

    return scenario


async def approve(env: Env, started: str) -> None:
    await env.signal(started, "address", "Main Street 1", message_id="m-1")
    await trio.sleep(3600)
    await env.signal(started, "approve", "ann", message_id="m-2")
    await env.engine.pause(started, by="test", reason="lunch")
    await env.signal(started, "approve", "bob", message_id="m-3")
    await trio.sleep(60)
    await env.engine.resume(started, by="test")


async def cancel_later(env: Env, started: str) -> None:
    await trio.sleep(10)
    await env.engine.cancel(started, by="test", reason="changed my mind")


async def terminate_later(env: Env, started: str) -> None:
    await trio.sleep(10)
    await env.engine.terminate(started, by="test")


async def queue_for_a_lock(env: Env) -> list[History]:
    """The second waits for the first, which nobody approves; a third gives up."""
    order = {"customer": "c", "parts": ["p"]}
    first = await env.start("golden-approval", order, id="first")
    second = await env.start("golden-approval", order, id="second", timeout="2d")
    third = await env.start("golden-approval", order, id="third", lock_wait="1h")
    for started in (first, second, third):
        await env.ended(started)
    return await taken(env, first, second, third)


async def share_a_mill(env: Env) -> list[History]:
    """Two at once; one of them fails, and is reset while the other has the mill."""
    workflows.WORLD["up"] = False
    first = await env.start("golden-mill", "ann", id="first")
    await trio.sleep(45)
    second = await env.start("golden-mill", "bob", id="second")
    await env.ended(second)
    workflows.WORLD["up"] = True
    again = (await env.engine.retry(second, by="test")).run_id
    for started in (first, again):
        await env.ended(started)
    return await taken(env, first, second, again)


async def family(env: Env) -> list[History]:
    started = await env.start("golden-parent", id="golden")
    await env.ended(started)
    return await taken(env, started, *await _children(env, started))


async def _children(env: Env, started: str) -> list[str]:
    events = await env.events(started)
    return [payload_of(event).run_id for event in events if event.kind == "ChildEnded"]


async def retried(env: Env) -> list[History]:
    """A run that fails, and the one that goes on from there once the world is up again."""
    workflows.WORLD["up"] = False
    first = await env.start("golden-call", id="golden")
    await env.ended(first)
    workflows.WORLD["up"] = True
    second = (await env.engine.retry(first, by="test")).run_id
    await env.ended(second)
    return await taken(env, first, second)


async def recovered(env: Env) -> list[History]:
    """The engine stops in the middle of a step, and another goes on."""
    place = await empty_place()
    store = str(place / "journal.db")
    async with Env(workflows, store=SqliteStore(store, threaded=False)) as first:
        started = await first.start("golden-slow", id="golden")
        await trio.sleep(60)
    async with Env(workflows, store=SqliteStore(store, threaded=False)) as second:
        await second.ended(started)
        return await taken(second, started)


async def changed_code(env: Env) -> list[History]:
    """A run that begins on older code and is moved twice, the second time after a restart; and one that is not."""
    place = await empty_place()
    store, file = str(place / "journal.db"), place / "changed.py"
    text = inspect.getsource(changed)
    older = text.replace("ctx.version(", "unchanged(") + "async def unchanged(*_: object) -> int:\n    return 1\n"
    file.write_text(older)
    async with Env(file, store=SqliteStore(store, threaded=False)) as first:
        moved = await first.start("golden-changed", id="moved")
        file.write_text(older.replace('unchanged("weighed-late"', 'ctx.version("weighed-late"'))
        await first.reload()
        await first.adopt("changed")
        await trio.sleep(7200)
    async with Env(file, store=SqliteStore(store, threaded=False)) as second:
        await trio.testing.wait_all_tasks_blocked()
        file.write_text(text)
        await second.reload()
        new = await second.start("golden-changed", id="new")
        await second.adopt("changed")
        for started in (moved, new):
            await second.signal(started, "go", message_id=f"go-{started}")
            await second.ended(started)
        return await taken(second, moved, new)


async def basket(env: Env) -> list[History]:
    """One update is refused before it is recorded, one when it is applied, one fails, the others are answered."""
    started = await env.start("golden-basket", id="golden")
    with suppress(UpdateFailed):
        await env.update(started, "weigh_all", 1, message_id="u-1")
    await env.update(started, "put", "apple", message_id="u-2")
    with suppress(Invalid):
        await env.update(started, "put", "apple", message_id="u-3")

    async def put(message_id: str) -> None:
        with suppress(UpdateFailed):
            await env.update(started, "put", "fig", message_id=message_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, "u-4")
        nursery.start_soon(put, "u-5")
    await env.update(started, "weigh_all", 60, message_id="u-6")
    await env.ended(started)
    return await taken(env, started)


async def pen_friends(env: Env) -> list[History]:
    started = await env.start("golden-writer", id="golden")
    await env.ended(started)
    friend = await env.show("golden-pen-friend:friend")
    await env.ended(friend.run_id)
    return await taken(env, started, friend.run_id)


async def rounds(env: Env) -> list[History]:
    """Two lines come before they are asked for; one comes when the run has gone on already."""
    started = await env.start("golden-rounds", {"book": [], "to": 3}, id="golden")
    for number, line in enumerate(("one", "two")):
        await env.signal(started, "line", line, message_id=f"m-{number}")
    await trio.sleep(5400)
    await env.signal(started, "line", "three", message_id="m-2")
    await env.ended(started)
    page = await env.engine.runs(RunFilter(workflow="golden-rounds"))
    return await taken(env, *(run.run_id for run in reversed(page.items)))


async def call_late(env: Env, started: str) -> None:
    await trio.sleep(60)
    await env.signal(started, "word", "hello", message_id="m-1")
    await trio.sleep(60)
    await env.signal(started, "call", message_id="m-2")


async def answer(env: Env, started: str) -> None:
    await trio.sleep(10)
    await env.resolve(started, 7, why="a person knows")
    await trio.sleep(10)
    await env.skip(started, why="nobody will ever know")


async def ring_again(env: Env, started: str) -> None:
    """The first time nothing is mended yet."""
    for mended in (False, True):
        await trio.sleep(10)
        outward.LINE["up"] = mended
        (incident,) = (await env.engine.incidents("OPEN", None, 10)).items
        await env.engine.retry_incident(incident.incident_id, by="test", why=f"mended: {mended}")


async def ring(env: Env) -> list[History]:
    outward.LINE["up"] = False
    return await only("golden-ringing", act=ring_again)(env)


async def order_and_delivery(env: Env) -> list[History]:
    started = await env.start("order", {"order": "A-1", "amount": 70, "card": "flaky", "pace": 0.001}, id="golden")
    await env.ended(started)
    return await taken(env, started, *await _children(env, started))


async def campaign(env: Env) -> list[History]:
    started = await env.start("campaign", {"letters": 5, "at_once": 2, "spread": 60}, id="golden")
    await trio.sleep(600)
    await env.signal(started, "approve", "ann", message_id="m-1")
    await env.ended(started)
    return await taken(env, started)


def migration(*, conflict: bool = False, **more: Any) -> Any:
    """A migration of a small database; with `conflict` into a target that is not empty, so that it fails."""

    async def scenario(env: Env) -> list[History]:
        await empty_place()
        _database(PLACE / "source.db", 25)
        if conflict:
            _database(PLACE / "target.db", 1)
        started = await env.start("migration", {"source": _url("source.db"), "target": _url("target.db"), **more})
        await env.ended(started)
        return await taken(env, started)

    return scenario


def _database(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript("""
            CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner, name TEXT);
            CREATE INDEX item_owner ON item (owner);
            CREATE VIEW named AS SELECT item.name, owner.name AS owner FROM item JOIN owner ON owner.id = item.owner;
        """)
        db.executemany("INSERT INTO owner VALUES (?, ?)", [(it, f"owner {it}") for it in range(1, 4)])
        db.executemany("INSERT INTO item VALUES (?, ?, ?)", [(it, 1 + it % 3, f"item {it}") for it in range(1, rows)])


def _url(name: str) -> dict[str, str]:
    return {"system": "sqlite", "url": f"sqlite:///{PLACE / name}"}


def _roomy(_: object) -> SimpleNamespace:
    return SimpleNamespace(total=10**12, used=0, free=10**12)


SCENARIOS: dict[str, Scenario] = {
    "steps": (workflows, only("golden-steps", 4)),
    "time": (workflows, only("golden-time")),
    "derived": (workflows, only("golden-derived")),
    "fan-out": (workflows, only("golden-fan-out", ["ab", "cde", "ab", "f"])),
    "fan-out-cancelled": (workflows, only("golden-fan-out", ["a" * 60, "b", "c" * 60, "d"], cancel_later)),
    "approval": (workflows, only("golden-approval", {"customer": "c", "parts": ["x", "y"]}, approve)),
    "approval-terminated": (workflows, only("golden-approval", {"customer": "c", "parts": []}, terminate_later)),
    "lock": (workflows, queue_for_a_lock),
    "mill": (workflows, share_a_mill),
    "saga": (workflows, only("golden-saga", {"parts": ["ab", "c"], "fail": False})),
    "saga-failed": (workflows, only("golden-saga", {"parts": ["ab"], "fail": True})),
    "saga-cancelled": (workflows, only("golden-saga", {"parts": [], "fail": False}, cancel_later)),
    "family": (workflows, family),
    "retried": (workflows, retried),
    "slow": (workflows, recovered),
    "changed": (changed, changed_code),
    "basket": (outward, basket),
    "news": (outward, only("golden-news", ["fig", "apple", "nut"])),
    "pen-friends": (outward, pen_friends),
    "rounds": (outward, rounds),
    "patience": (outward, only("golden-patience", act=call_late)),
    "questions": (outward, only("golden-questions", act=answer)),
    "ringing": (outward, ring),
    "order": (plugins.showcase, order_and_delivery),
    "order-declined": (plugins.showcase, only("order", {"order": "A-2", "amount": 70, "card": "declined"})),
    "campaign": (plugins.showcase, campaign),
    "migration": (plugins.migration, migration(load={"chunk_rows": 10, "parallelism": 2})),
    "migration-parallel": (
        plugins.migration,
        migration(load={"strategy": "PARALLEL", "chunk_rows": 5, "parallelism": 3}),
    ),
    "migration-refused": (plugins.migration, migration(conflict=True)),
}
"""What is recorded, by the name of its files: the plugin and what happens."""


def make(name: str) -> list[Path]:
    """Play a scenario and write the histories of its runs, as NAME.json, NAME-2.json and so on."""
    plugin, scenario = SCENARIOS[name]

    async def play() -> list[History]:
        async with Env(plugin) as env:
            await trio.testing.wait_all_tasks_blocked()  # until it has looked for what to recover
            return await scenario(env)

    measured, shutil.disk_usage = shutil.disk_usage, _roomy  # pyright: ignore[reportAttributeAccessIssue]
    try:
        histories = run(play)
    finally:
        shutil.disk_usage = measured
    written: list[Path] = []
    for number, history in enumerate(histories, 1):
        file = HERE / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        record(history, plugin).write(file)
        written.append(file)
    return written


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SCENARIOS:
        for file in make(wanted):
            sys.stdout.write(f"{file.name}\n")
    shutil.rmtree(PLACE, ignore_errors=True)
