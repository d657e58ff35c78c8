"""A trial: a real daemon at real work, killed again and again while it does it. Afterwards everything is counted.

The work is that of the bundled plugins: a migration, orders of which some fail to pay and are undone, campaigns with
timers and a signal. What the daemon acknowledges is noted; what it does not answer, because it was killed, is asked
again under the same idempotency key.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio

from jivsd.client import Client, ClientError, DaemonNotRunning
from jivsd.proof import source, stage
from jivsd.proof.daemons import Daemon, DaemonFailed, insist
from jivsd.proof.notes import Notes
from jivsd.proof.recount import Databases
from jivsd.records import ENDED
from jivsd.resources import bundled
from jivsd.store.api import RunFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")

LOOK_AGAIN: Final = 0.05
"""Seconds between two looks at what the daemon is doing."""
CARDS: Final = ("good", "declined", "flaky")


class Plan(msgspec.Struct, frozen=True):
    """How much work there is, and how often the daemon is killed. The same seed asks for the same.

    `gently`: it is not killed, but asked to end (SIGTERM), which must succeed. `rows`: how many the migration moves,
    0: there is none; `chunk_rows` at a time. `pace` is the seconds that each step of an order or a campaign takes,
    `patience` those that the whole may take.
    """

    seed: int
    kills: int = 3
    gently: bool = False
    rows: int = 100_000
    chunk_rows: int = 500
    orders: int = 24
    campaigns: int = 2
    letters: int = 50
    pace: float = 0.03
    patience: float = 300.0


class Kill(msgspec.Struct, frozen=True):
    """One kill -9, `second` seconds after the beginning: what was under way."""

    number: int
    second: float
    migrated: float
    """Which part of the migration was done, from 0 to 1."""
    open: int
    steps: int
    ready: float
    """Seconds from the next start of the process until it answered."""


class Scene(msgspec.Struct):
    """What can be seen of a trial at a moment. `migrated` is from 0 to 1."""

    seconds: float = 0.0
    up: bool = False
    phase: str = ""
    migrated: float = 0.0
    loaded: int = 0
    rows: int = 0
    runs: dict[str, int] = {}
    steps: int = 0

    @property
    def open(self) -> int:
        """How many runs have not ended."""
        return sum(count for status, count in self.runs.items() if status not in ENDED)


class Trial:
    """One trial, in a folder of its own. `run` it; then the databases can be counted."""

    def __init__(self, folder: Path, plan: Plan, on_kill: Callable[[Kill], None] = lambda _: None) -> None:
        self.plan = plan
        self.scene = Scene()
        self.kills: list[Kill] = []
        self.daemon = Daemon(folder / "state", folder / "daemon.log")
        self.databases = Databases(
            main=folder / "state" / "jivsd.db",
            notes=folder / "notes.sqlite",
            world=folder / "world.sqlite",
            source=folder / "source.sqlite" if plan.rows else None,
            target=folder / "target.sqlite" if plan.rows else None,
        )
        self._notes = Notes(self.databases.notes)
        self._random = Random(plan.seed)
        self._began = time.perf_counter()
        self._on_kill = on_kill
        self._client: Client
        self._migration: str | None = None
        self._looked = trio.Event()

    async def run(self) -> None:
        """Work and kill until everything has ended, or patience has; then stop the daemon.

        Raises:
            DaemonFailed: it did not start, did not stop, or refused to work.
        """
        with closing(sqlite3.connect(self.databases.world)) as world:
            world.executescript((bundled("plugins") / "showcase" / "world.sql").read_text(encoding="utf-8"))
        if self.databases.source is not None:
            self.scene.rows = await trio.to_thread.run_sync(
                source.make, self.databases.source, self.plan.rows, self.plan.seed
            )
        try:
            await self.daemon.start()
            with stage.one_error():
                async with Client.connect(self.daemon.data_dir, by="trial") as self._client:
                    with trio.move_on_after(self.plan.patience):
                        async with trio.open_nursery() as looking:
                            looking.start_soon(self._look)
                            await self._work_and_kill()
                            looking.cancel_scope.cancel()
            await self.daemon.stop()
        finally:
            await self.daemon.aclose()

    async def _work_and_kill(self) -> None:
        async with trio.open_nursery() as nursery:
            if self.databases.source is not None:
                nursery.start_soon(self._migrate)
            nursery.start_soon(self._order)
            for number in range(self.plan.campaigns):
                nursery.start_soon(self._campaign, number)
            nursery.start_soon(self._kill)
        open_runs = RunFilter(open_only=True)
        while (await self._insist(lambda: self._client.runs(open_runs, 1))).items:  # noqa: ASYNC110 -- not in our process
            await trio.sleep(LOOK_AGAIN)

    # ---- the work

    async def _migrate(self) -> None:
        where = {
            side: {"system": "sqlite", "url": f"sqlite:///{path}"}
            for side, path in (("source", self.databases.source), ("target", self.databases.target))
        }
        load = {"chunk_rows": self.plan.chunk_rows}
        self._migration = await self._start("migration", "all", {**where, "load": load}, "COMPLETED", [])

    async def _order(self) -> None:
        for number in range(self.plan.orders):
            name, card = f"A-{number}", CARDS[number % len(CARDS)]
            order = {"order": name, "amount": 100 + number, "card": card, **self._common()}
            second, status = ("release", "COMPENSATED") if card == "declined" else ("settle", "COMPLETED")
            await self._start("order", name, order, status, [("reserve", name), (second, name)])
            await trio.sleep(self._random.uniform(0, 20 * self.plan.pace))

    async def _campaign(self, number: int) -> None:
        letters = self.plan.letters
        mailing = {"letters": letters, "at_once": 5, "spread": 50 * self.plan.pace, **self._common()}
        entries = [("letter", str(letter)) for letter in range(letters)]
        run_id = await self._start("campaign", f"C-{number}", mailing, "COMPLETED", [*entries, ("close", "trial")])
        await trio.sleep(self._random.uniform(0, 100 * self.plan.pace))
        message_id = f"approve-{number}"
        await self._insist(lambda: self._client.signal(run_id, "approve", "trial", message_id=message_id))
        self._notes.told(run_id, message_id)

    def _common(self) -> dict[str, Any]:
        return {"pace": self.plan.pace, "world": str(self.databases.world)}

    async def _start(self, workflow: str, id: str, input: Any, expects: str, entries: list[tuple[str, str]]) -> str:
        """Start a run however often the daemon is killed meanwhile; return its run id."""
        key = f"trial-{self.plan.seed}-{id}"
        started = await self._insist(lambda: self._client.start(workflow, input, id=id, idempotency_key=key))
        self._notes.asked(workflow, id, started.run.run_id, expects=expects, entries=entries)
        return started.run.run_id

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await insist(ask)
        except ClientError as error:
            raise DaemonFailed(f"the daemon refuses: {error}; its log ends: {self.daemon.last_words()}") from None

    # ---- looking and killing

    async def _look(self) -> None:
        """Keep the scene as things are."""
        while True:
            self.scene.seconds = time.perf_counter() - self._began
            try:
                status = await self._client.status()
                self.scene.up, self.scene.runs, self.scene.steps = True, status.runs, status.steps_running
                if self._migration is not None:
                    self._note_progress((await self._client.query(self._migration, "progress")).value)
            except (DaemonNotRunning, ClientError):
                self.scene.up = False
            self._looked.set()
            self._looked = trio.Event()
            await trio.sleep(LOOK_AGAIN)

    def _note_progress(self, answer: msgspec.Raw) -> None:
        progress = msgspec.json.decode(answer, type=dict[str, Any])
        done = progress["done"] / progress["total"] if progress["total"] else 0.0
        self.scene.phase = progress["phase"]
        match progress["phase"]:
            case "LOADING":
                self.scene.loaded = progress["done"]
                self.scene.migrated = done / 2
            case "VERIFICATION":
                self.scene.loaded = self.scene.rows
                self.scene.migrated = 0.5 + done / 2
            case "CLEANUP" | "COMPLETED":
                self.scene.migrated = 1.0
            case _:
                pass

    async def _kill(self) -> None:
        """Kill the daemon at random moments while it works, and start it again each time."""
        for number in range(self.plan.kills):
            await self._until_the_moment(number)
            scene = msgspec.structs.replace(self.scene)
            second = time.perf_counter() - self._began
            await self._strike()
            self.scene.up = False
            self._notes.killed(second, scene.loaded, scene.open)
            began = time.perf_counter()
            await self.daemon.start()
            ready = time.perf_counter() - began
            kill = Kill(number + 1, second, scene.migrated, scene.open, scene.steps, ready)
            self.kills.append(kill)
            self._on_kill(kill)

    async def _strike(self) -> None:
        if not self.plan.gently:
            await self.daemon.kill()
        elif (code := await self.daemon.stop()) != 0:
            raise DaemonFailed(f"the daemon ended with exit code {code}: {self.daemon.last_words()}")

    async def _until_the_moment(self, number: int) -> None:
        """With a migration: a random part of it is done, more each time. Without: a random while has passed."""
        if self.databases.source is not None:
            part = (number + self._random.uniform(0.1, 0.9)) / self.plan.kills * 0.9
            while self.scene.migrated < part:
                await self._looked.wait()
        await trio.sleep(self._random.uniform(0, 20 * self.plan.pace))
