"""The campaign: a daemon under steady work, attacked by one kind of attack after the other, and then by all."""

from __future__ import annotations

import resource
import secrets
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import msgspec
import trio

from jivsd import openfiles
from jivsd.admin.dashboard import assets
from jivsd.admin.status import LIVE, READY
from jivsd.client import Client
from jivsd.places import socket_path
from jivsd.proof import load
from jivsd.proof.daemons import Daemon, insist, start_runs
from jivsd.proof.hostile import sieges
from jivsd.proof.hostile.steady import Latency, Steady, latency
from jivsd.proof.hostile.wire import Findings, Target
from jivsd.proof.parked import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_P99: Final = 250.0
"""Milliseconds that 99 of 100 steps may take at most, whatever attack is under way."""
STARVED: Final = 0.1
"""For which part of the time the daemon may lack a core without that being an excuse: then what its loop worked counts
instead of the clock."""
MOST_GROWTH: Final = 50 * 1024 * 1024
"""Bytes by which the daemon may be larger when it is over."""
GLANCE: Final = 0.2
"""Seconds between two looks at the daemon."""
BACK_WITHIN: Final = 15.0
"""Seconds after an attack until another caller is answered by TCP again."""
FULL: Final = 512 * 1024
FULL_PAUSE: Final = 5.0
"""The daemon's caches are full when it has grown by less in so many seconds."""
FULL_WITHIN: Final = 60.0
WARM_AT_ONCE: Final = 500
WARM_STEPS: Final = 10
TOGETHER: Final = "all together"
SPARE: Final = 1000
"""Files that are needed besides the idle connections."""


class Plan(NamedTuple):
    """What to do: for `seconds` in all, with so many idle connections, beside so many runs."""

    seconds: float = 120.0
    connections: int = 10_000
    runs: int = 300
    seed: int = 1
    store: str | None = None
    only: Sequence[str] = ()
    """Names of attacks; none: all."""
    warm: int = 4_000
    """Runs that are done before anything is measured."""
    calm: float = 12.0
    """Seconds after the last attack in which those who were slow are thrown out, before the end is looked at."""
    one_by_one: bool = True
    """Whether each is made by itself, too, before all are made together."""


class Attacked(msgspec.Struct, frozen=True):
    """What an attack did. `answers`: how many of each status; 0: no HTTP. `ratio`: p99 in parts of that before.

    `between`: from the last step of a run to the first of the next.
    """

    name: str
    seconds: float
    connections: int
    answers: dict[str, int]
    steps: Latency
    between: Latency
    ratio: float
    socket_worst_ms: float
    """How long the longest question by the Unix socket took meanwhile."""
    rss_bytes: int
    """The most."""
    busy: float
    """How much of a core the daemon's loop had."""
    starved: float
    """For which part of the time it could have gone on, and no core was free: the machine had other things to do."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `wrong` and `slow`: nothing, if all is well."""

    seed: int
    idle_connections: int
    runs: int
    before: Latency
    afterwards: Latency
    attacks: list[Attacked]
    rss_before: int
    rss_peak: int
    rss_after: int
    log_bytes: int
    wrong: list[str]
    slow: list[str]


def campaign(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Run a campaign on a daemon and a store of its own, unless the plan names a store.

    Raises:
        DaemonFailed: the daemon did not start.
    """
    return trio.run(_campaign, plan._replace(connections=_room_for(plan.connections)), tell)


def _room_for(connections: int) -> int:
    """How many can be had: both ends are files of processes that this one starts, or its own."""
    wanted = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            openfiles.raise_limit()
    return min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)


async def _campaign(plan: Plan, tell: Callable[[str], None]) -> Report:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jivsd-hostile-")))
        target = Target("127.0.0.1", _free_port(), secrets.token_hex(16), secrets.token_hex(16))
        daemon = Daemon(folder / "state", folder / "daemon.log", _arguments(folder, target), _environment(plan))
        stack.push_async_callback(daemon.aclose)
        await daemon.start()
        client = await stack.enter_async_context(Client.connect(daemon.data_dir, by="hostile"))
        field = _Field(plan, target, daemon, client, Steady(folder / "notes", plan.runs), tell)
        report = await field.fight()
        await daemon.stop()
        return report


def _arguments(folder: Path, target: Target) -> list[str]:
    config = folder / "jivsd.toml"
    config.write_text(f'token = "{target.token}"\n[tokens.reader]\ntoken = "{target.reader}"\nrole = "read"\n')
    config.chmod(0o600)
    http = f"{target.host}:{target.port}"
    return ["--config", str(config), "--plugins", load.__file__, "--http", http, "--log-level", "warning"]


def _environment(plan: Plan) -> dict[str, str]:
    return {} if plan.store is None else {"JIVSD_STORE": plan.store}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _asked(path: Path) -> float:
    """Seconds that a question by the Unix socket takes; asked in a thread, because the loop here has its hands full."""
    began = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(b"GET /api/v1/runs/steady:0 HTTP/1.1\r\nHost: jivsd\r\n\r\n")
        sock.recv(65536)
    return time.perf_counter() - began


def _scheduled(pid: int) -> tuple[float, float]:
    """Seconds for which the first thread of a process, that of the loop, had a core, and waited for one (Linux)."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def _is_slow(one: Attacked) -> bool:
    return one.steps.loop_p99_ms > MOST_P99 or (one.steps.p99_ms > MOST_P99 and one.starved < STARVED)


class _Field:
    """Where it happens."""

    def __init__(
        self, plan: Plan, target: Target, daemon: Daemon, client: Client, steady: Steady, tell: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._target = target
        self._daemon = daemon
        self._client = client
        self._steady = steady
        self._tell = tell
        self._findings = Findings()
        self._path = socket_path(daemon.data_dir)
        self._ran = 0.0, 0.0
        self._most = 0
        self._slowest = 0.0

    async def fight(self) -> Report:
        plan, daemon = self._plan, self._daemon
        every = sieges.attacks(plan.connections)
        chosen = {name: every[name] for name in plan.only or every}
        phases = [[name] for name in chosen if plan.one_by_one] + [list(chosen)]
        seconds = plan.seconds / (len(phases) + 1)
        pid = daemon.pid
        await self._warm_up()
        await self._steady.start(self._client)
        await self._get_ready()
        await trio.sleep(seconds)
        if plan.warm:
            await self._until_full()
        self._steady.look()
        await trio.sleep(seconds)
        before, size = latency(self._steady.look()), resident(daemon)
        self._tell(
            f"before: {before.steps} steps, p99 {before.p99_ms} ms (loop {before.loop_p99_ms} ms), {size / 1e6:.0f} MB"
        )
        attacked: list[Attacked] = []
        for names in phases:
            title = names[0] if len(names) == 1 else TOGETHER
            self._ran = _scheduled(daemon.pid)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                for name in names:
                    nursery.start_soon(chosen[name], self._target, self._findings, Random(f"{plan.seed} {name}"))
                await trio.sleep(seconds)
                nursery.cancel_scope.cancel()
            attacked.append(self._attacked(title, seconds, before))
            self._tell(self._line(attacked[-1]))
            await self._until_others_are_answered(title)
            self._steady.look()
        await trio.sleep(plan.calm)
        afterwards, after = latency(self._steady.look()), resident(daemon)
        await self._check(pid, after - size)
        return Report(
            seed=plan.seed,
            idle_connections=plan.connections,
            runs=plan.runs,
            before=before,
            afterwards=afterwards,
            attacks=attacked,
            rss_before=size,
            rss_peak=max((one.rss_bytes for one in attacked), default=size),
            rss_after=after,
            log_bytes=daemon.log.stat().st_size,
            wrong=self._findings.wrong,
            slow=[f"{one.name}: the p99 of the steps was {one.steps.p99_ms} ms" for one in attacked if _is_slow(one)],
        )

    async def _warm_up(self) -> None:
        """Have the daemon do so much that the caches of its store are full: they would be counted as growth."""
        for _ in range(self._plan.warm // WARM_AT_ONCE):
            await start_runs(self._client, "bench", WARM_STEPS, WARM_AT_ONCE)
            while (await insist(self._client.status)).actors:  # noqa: ASYNC110 -- another process
                await trio.sleep(GLANCE)

    async def _until_full(self) -> None:
        """Wait until the daemon hardly grows: what the work itself needs is no growth by attacks."""
        size, deadline = 0, trio.current_time() + FULL_WITHIN
        while (grown := resident(self._daemon)) - size > FULL and trio.current_time() < deadline:
            size = grown
            await trio.sleep(FULL_PAUSE)

    async def _get_ready(self) -> None:
        """Have everything answered once that is asked for later, and learn what anybody may have."""
        base = f"http://{self._target.host}:{self._target.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            for path in (LIVE, READY, *assets()):
                self._findings.may_be_had((await http.get(path)).content)
            http.headers["Authorization"] = f"Bearer {self._target.token}"
            for path in ("status", "runs", "workflows", "incidents"):
                await http.get(f"/api/v1/{path}")
            for path in ("/openapi.json", "/metrics", "/health"):
                await http.get(path)

    async def _watch(self) -> None:
        """Look how large the daemon is, and how long it takes to answer by its socket."""
        while True:
            self._most = max(self._most, resident(self._daemon))
            took = await trio.to_thread.run_sync(_asked, self._path, abandon_on_cancel=True)
            self._slowest = max(self._slowest, took)
            await trio.sleep(GLANCE)

    def _attacked(self, name: str, seconds: float, before: Latency) -> Attacked:
        found, took = self._findings, self._steady.look()
        steps = latency(took)
        ran, waited = _scheduled(self._daemon.pid)
        attacked = Attacked(
            name=name,
            seconds=round(seconds, 1),
            connections=found.connections,
            answers=dict(sorted(found.answers.items())),
            steps=steps,
            between=latency(took, last=True),
            ratio=round(steps.p99_ms / before.p99_ms, 2) if before.p99_ms else 0.0,
            socket_worst_ms=round(self._slowest * 1000, 1),
            rss_bytes=self._most,
            busy=round((ran - self._ran[0]) / seconds, 2),
            starved=round((waited - self._ran[1]) / seconds, 2),
        )
        found.answers.clear()
        found.connections, self._most, self._slowest = 0, 0, 0.0
        return attacked

    def _line(self, one: Attacked) -> str:
        answers = ", ".join(f"{count} x {status}" for status, count in one.answers.items()) or "no answer"
        return (
            f"{one.name}: step p99 {one.steps.p99_ms} ms ({one.ratio} x; of the loop {one.steps.loop_p99_ms} ms), "
            f"{one.steps.steps} steps, between runs {one.between.p99_ms} ms, "
            f"socket {one.socket_worst_ms} ms, {one.rss_bytes / 1e6:.0f} MB, busy {one.busy:.0%}, "
            f"starved {one.starved:.0%}, {one.connections} connections: {answers}"
        )

    async def _until_others_are_answered(self, title: str) -> None:
        url = f"http://{self._target.host}:{self._target.port}"
        with trio.move_on_after(BACK_WITHIN) as patience:
            async with Client.connect(url=url, token=self._target.token) as client:
                await insist(client.status)
        if patience.cancelled_caught:
            self._findings.complain(f"{title}: nobody else was answered by TCP within {BACK_WITHIN:g} s afterwards")

    async def _check(self, pid: int, growth: int) -> None:
        """Complain of what the daemon did, or became."""
        daemon, complain = self._daemon, self._findings.complain
        if not daemon.running or daemon.pid != pid:
            complain(f"the daemon has ended: {daemon.last_words()}")
            return
        status = await insist(self._client.status)
        for child in status.children:
            if child.restarts:
                complain(f"{child.name} was restarted {child.restarts} times")
        if status.incidents:
            complain(f"there are {status.incidents} incidents")
        if growth > MOST_GROWTH:
            complain(f"the daemon has grown by {growth / 1e6:.0f} MB")
        self._steady.look()
        if behind := self._steady.behind(time.time(), 5.0):
            complain(f"{len(behind)} runs do not go on")
        log = daemon.log.read_text(errors="replace")
        for word in ("request_failed", "child crashed", "connection_failed", "Traceback", "Error in ASGI"):
            if word in log:
                complain(f"the daemon's log has {log.count(word)} times {word!r}: {log[log.index(word) :][:600]!r}")
