"""What becomes of a node whose way to PostgreSQL is cut: what it asks is lost on the way, what it is answered, or both.

    python -m jivsd.proof.severed [--rounds 1] [--no-redis]

Everything is private: PostgreSQL, Redis, three daemons with work in flight, each behind a proxy of its own that takes
what is sent and hands nothing on, so that nobody's TCP ever complains. It is measured when the node notices by itself,
when it has let go of its shards, when others have them, whether those go on meanwhile, and, once the way is mended,
when the shards are shared evenly again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx
import msgspec
import trio

from jivsd.bridge import Bridge, Pool
from jivsd.engine.api import NewStart, StartOptions, Unavailable
from jivsd.places import socket_path
from jivsd.proof import load, pgserver, redisserver
from jivsd.proof.daemons import Daemon, DaemonFailed, insist
from jivsd.proof.proxy import Proxy
from jivsd.proof.torture.fleet import Fleet, Node
from jivsd.proof.torture.ownership import Ownership
from jivsd.proof.torture.servers import route_of
from jivsd.proof.woken.belief import Belief
from jivsd.store.postgres.address import address_of
from jivsd.store.postgres.connections import connect, drop, usable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.client import Client
    from jivsd.store.postgres.connections import Connection

Way = Literal["asked", "answered", "both"]

WAYS: Final[tuple[Way, ...]] = ("asked", "answered", "both")
NOTICED_WITHIN: Final = 1.0
LET_GO_WITHIN: Final = 1.0
TAKEN_WITHIN: Final = 1.5
"""Leases in PostgreSQL within which a cut is noticed, shards are let go, others have them: 20, 20 and 30 s."""
GAP: Final = 5.0
"""Seconds in which something must end at the nodes that are not cut off."""
SHARED_WITHIN: Final = 3.0
"""Leases after the way is mended within which shards are shared evenly again."""
PATIENCE: Final = 90.0
ASKING: Final = 30.0
LOOK_AGAIN: Final = 0.1
STEPS: Final = 3
PACE: Final = 0.1
"""Seconds between two starts."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Times in seconds."""

    rounds: int = 1
    """How often each way is cut."""
    ways: tuple[Way, ...] = WAYS
    redis: bool = True
    lease: float = 5.0
    postgresql_lease: float = 20.0
    patience: float = 1.0
    """How many times as long as it is promised everything may take: where others keep the machine busy."""


class Cut(msgspec.Struct, kw_only=True):
    """One cut. Times in seconds; those of a cut are counted from it, `shared` from when it was mended."""

    way: Way
    noticed: float | None = None
    """The node's page of health says that something is wrong."""
    let_go: float | None = None
    """It has said of all its shards that it has lost them, or handed them over."""
    taken_over: float | None = None
    shared: float | None = None
    gap: float = 0.0
    """The longest time in which nothing has ended at the others."""

    def wrong(self, plan: Plan) -> list[str]:
        """What took too long."""
        lease = plan.lease if plan.redis else plan.postgresql_lease
        limits = {
            "noticed": (self.noticed, NOTICED_WITHIN * plan.postgresql_lease),
            "let go": (self.let_go, LET_GO_WITHIN * plan.postgresql_lease),
            "taken over": (self.taken_over, TAKEN_WITHIN * plan.postgresql_lease),
            "shared again": (self.shared, SHARED_WITHIN * lease),
            "at the others nothing had ended": (self.gap, GAP),
        }
        return [
            f"{self.way}: {what} {'never' if took is None else f'after {took:.1f} s'}, {limit:g} s are allowed"
            for what, (took, limit) in limits.items()
            if took is None or took > limit * plan.patience
        ]


class Outcome(msgspec.Struct):
    """What came of it; good if there is nothing in `wrong`."""

    cuts: list[Cut] = []
    runs: int = 0
    wrong: list[str] = []


async def campaign(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run one. `say` is told what each cut has shown."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jivsd-severed-")))
        url = stack.enter_context(pgserver.Server()).url()
        settings = {"JIVSD_CLUSTER__POSTGRESQL_LEASE": f"{plan.postgresql_lease:g}s", "JIVSD_CLUSTER__SHARE": "true"}
        if plan.redis:
            redis = stack.enter_context(redisserver.Server()).url
            settings |= {"JIVSD_REDIS": redis, "JIVSD_CLUSTER__LEASE": f"{plan.lease:g}s"}
        bridge = await stack.enter_async_context(Bridge("jivsd-severed"))
        address = address_of(url)
        pool: Pool[Connection] = Pool(bridge, lambda: connect(address, "proof"), size=4, good=usable, drop=drop)

        async def ask(sql: str, *arguments: Any) -> list[Any]:
            return await pool.use(lambda db: db.fetch(sql, *arguments), timeout=ASKING)

        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        fleet, proxies = await _nodes(nursery, folder, url, settings)
        stack.push_async_callback(fleet.aclose)
        await fleet.start()
        client = await stack.enter_async_context(fleet.client())
        work = Campaign(plan, fleet, proxies, ask, client, say)
        await work.run()
    return work.outcome


async def _nodes(
    nursery: trio.Nursery, folder: Path, url: str, settings: dict[str, str]
) -> tuple[Fleet, dict[str, Proxy]]:
    """The daemons, not started yet, and their ways to PostgreSQL."""
    route = route_of(url)
    proxies: dict[str, Proxy] = {}
    nodes: list[Node] = []
    for name in ("a", "b", "c"):
        proxies[name] = Proxy(route.server)
        await nursery.start(proxies[name].serve)
        own = {
            **settings, "JIVSD_NODE": name, "JIVSD_STORE": route.url(proxies[name].port),
            "JIVSD_LOG__LEVEL": "info", "JIVSD_LOG__FORMAT": "json",
        }  # fmt: skip
        daemon = Daemon(folder / name, folder / f"{name}.log", ["--plugins", load.__file__], own)
        nodes.append(Node(name, daemon, may_end=False))
    return Fleet(nodes, 0), proxies


class Campaign:
    """Cuts, one after the other, while runs come and go."""

    def __init__(
        self,
        plan: Plan,
        fleet: Fleet,
        proxies: dict[str, Proxy],
        ask: Callable[..., Awaitable[list[Any]]],
        client: Client,
        say: Callable[[str], None],
    ) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._fleet = fleet
        self._proxies = proxies
        self._ask = ask
        self._client = client
        self._say = say
        self._ownership = Ownership(ask, "jivsd", "public")
        self._over = trio.Event()

    async def run(self) -> None:
        """Cut, mend, and look at what is left in the end."""
        wrong = self.outcome.wrong
        await self._ownership.watch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._start_runs)
            for number, way in enumerate(self._plan.ways * self._plan.rounds):
                await self._until_shared()
                cut = await self._cut(self._fleet.nodes[number % len(self._fleet.nodes)], way)
                self.outcome.cuts.append(cut)
                wrong += cut.wrong(self._plan)
                self._say(msgspec.json.encode(cut).decode())
            self._over.set()
        with trio.move_on_after(PATIENCE):
            while await self._ended() < self.outcome.runs:  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
        found = dict(await self._ask("SELECT status, count(*) FROM jivsd.run GROUP BY 1"))
        if found != {"COMPLETED": self.outcome.runs}:
            wrong.append(f"of {self.outcome.runs} runs there are {found}")
        wrong += [f"run {run}, {path}: {what}" for run, path, what in await self._ownership.stale()]
        wrong += [f"{name} ended with exit code {code}" for name, code in (await self._fleet.stop()).items() if code]

    async def _start_runs(self) -> None:
        """Start runs that may live anywhere, at a pace that leaves everybody time."""
        for number in count():
            if self._over.is_set():
                return
            name = f"run-{number}"
            options = StartOptions(id=name, idempotency_key=name)
            start = NewStart("bench", msgspec.Raw(b"%d" % STEPS), options)
            while (found := (await insist(partial(self._client.start_many, [start])))[0]).result == "refused":
                if found.code != Unavailable.code:
                    raise DaemonFailed(f"{name} was refused: {found.why}")
                await trio.sleep(LOOK_AGAIN)  # by the node that is cut off
            self.outcome.runs += 1
            await trio.sleep(PACE)

    async def _ended(self) -> int:
        ((ended,),) = await self._ask("SELECT count(*) FROM jivsd.run WHERE NOT open")
        return ended

    # ---- one cut

    async def _cut(self, node: Node, way: Way) -> Cut:
        cut = Cut(way=way)
        belief, proxy = Belief(node.daemon.log), self._proxies[node.name]
        node.stopped = True
        proxy.hold(asked=way != "answered", answered=way != "asked")
        since = trio.current_time()
        try:
            with trio.move_on_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    looks: dict[str, Callable[[], Awaitable[bool]]] = {
                        "noticed": partial(_is_troubled, node),
                        "let_go": partial(_has_lost_all, belief),
                        "taken_over": partial(self._has_nothing, node.name),
                    }
                    for what, look in looks.items():
                        nursery.start_soon(self._watch, cut, since, what, look)
                    scope = await nursery.start(self._look_for_gaps, cut)
                    while None in (cut.noticed, cut.let_go, cut.taken_over):  # noqa: ASYNC110 -- they ask others
                        await trio.sleep(LOOK_AGAIN)
                    scope.cancel()
        finally:
            proxy.release()
            node.stopped = False
        since = trio.current_time()
        if await self._until_shared():
            cut.shared = round(trio.current_time() - since, 2)
        return cut

    async def _watch(self, cut: Cut, since: float, what: str, look: Callable[[], Awaitable[bool]]) -> None:
        while not await look():  # noqa: ASYNC110 -- another process, or PostgreSQL
            await trio.sleep(LOOK_AGAIN)
        setattr(cut, what, round(trio.current_time() - since, 2))

    async def _has_nothing(self, name: str) -> bool:
        return not await self._ownership.owns(name)

    async def _look_for_gaps(self, cut: Cut, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Measure the longest time in which no run has ended."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            ended, moved = await self._ended(), trio.current_time()
            while True:
                await trio.sleep(LOOK_AGAIN)
                if (now := await self._ended()) > ended:
                    ended, moved = now, trio.current_time()
                cut.gap = max(cut.gap, round(trio.current_time() - moved, 2))

    async def _until_shared(self) -> bool:
        """Wait until all nodes have about as many shards; False: that takes too long."""
        names = [node.name for node in self._fleet.nodes]
        with trio.move_on_after(PATIENCE):
            while not self._is_even(await self._ownership.owners(), names):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
            return True
        return False

    def _is_even(self, owners: dict[int, tuple[str, int]] | None, names: list[str]) -> bool:
        if owners is None:
            return False
        counts = Counter(owner for owner, _ in owners.values())
        return set(counts) == set(names) and max(counts.values()) - min(counts.values()) <= 1


async def _is_troubled(node: Node) -> bool:
    """Whether a node's page of health says that something is wrong."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path(node.daemon.data_dir)), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://jivsd", timeout=PATIENCE) as http:
        return (await http.get("/health")).status_code != 200


async def _has_lost_all(belief: Belief) -> bool:
    await trio.lowlevel.checkpoint()
    belief.read()
    return not belief.held


def main() -> int:
    """Run a campaign; 0: nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.severed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each way is cut")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--no-redis", action="store_true", help="leases in PostgreSQL alone")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds, in Redis")
    parser.add_argument("--postgresql-lease", type=float, default=20.0, help="seconds")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    asked = parser.parse_args()
    plan = Plan(
        rounds=asked.rounds, ways=tuple(asked.ways), redis=not asked.no_redis, lease=asked.lease,
        postgresql_lease=asked.postgresql_lease,
    )  # fmt: skip
    began = time.monotonic()
    outcome = trio.run(campaign, plan, _say)
    if asked.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")
    for one in outcome.wrong:
        _say(f"WRONG: {one}")
    verdict = "bad" if outcome.wrong else "good"
    _say(f"{len(outcome.cuts)} cuts, {outcome.runs} runs, {time.monotonic() - began:.0f} s: {verdict}")
    return 1 if outcome.wrong else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
