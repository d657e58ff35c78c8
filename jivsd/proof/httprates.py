"""`python -m jivsd.proof.httprates`: how many runs a second can be started over HTTP.

In turns, in one process and on one server, because a machine's speed varies within minutes: an empty Quart route is
asked; runs of one step are started, one a request; runs are started in bulk. The clients are a process of their own; it
keeps its connections, many at once, as group commit wants it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio
from quart_trio.wrappers import TrioResponse as Response

from jivsd import logs
from jivsd.admin.app import create_app
from jivsd.admin.feedwire import encoded
from jivsd.admin.server import Server
from jivsd.listening import listen_unix
from jivsd.proof import httpclients
from jivsd.proof.engines import engine_with
from jivsd.proof.ground import ground
from jivsd.services.feed import FeedService

if TYPE_CHECKING:
    from jivsd.engine.engine import Engine
    from jivsd.store.api import Store

CLIENTS: Final = 32
"""Connections that are kept and asked one request after the other."""
BULK: Final = 1000
EMPTY_PATH: Final = "/empty"
GLANCE: Final = 0.01
"""Seconds between two looks whether all runs have ended."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and runs a second: medians over the rounds. `share`: of starts, in parts of the empty route's.

    A start counts until its run has ended; in bulk, `bulk_per_s` is how many were accepted, durably, while those before
    them were run, and `bulk_ended_per_s` how many had ended when all had.

    `…_cpu_us`: what each takes of a core in the daemon, its runs included; `bulk_accept_cpu_us`: what all that went on
    until the last was accepted takes for each. `cpu_share`: that of the empty route in
    parts of that of a start, which does not depend on what else the machine has to do.
    """

    rounds: int
    empty_per_s: float
    starts_per_s: float
    share: float
    bulk_per_s: float
    bulk_ended_per_s: float
    empty_cpu_us: float
    start_cpu_us: float
    bulk_accept_cpu_us: float
    bulk_cpu_us: float
    cpu_share: float


class Turn(NamedTuple):
    """Requests a second, and µs of CPU that each took here: until all were answered, and until all runs had ended."""

    answered_per_s: float
    answered_cpu_us: float
    per_s: float
    cpu_us: float


async def measure(store: Store, rounds: int, requests: int, bulks: int) -> Rates:
    """Measure in turns.

    Args:
        store: a new one.
        rounds: how many turns each has.
        requests: how many requests a turn.
        bulks: how many calls with 1,000 starts a turn.
    """
    with tempfile.TemporaryDirectory(prefix="jivsd-rates-") as name:
        folder = Path(name)
        async with engine_with(store) as engine, trio.open_nursery() as nursery:
            app = create_app(engine, feed=FeedService(engine.store.feed, encoded, engine.clock.now))
            app.add_url_rule(EMPTY_PATH, view_func=_nothing, methods=["GET"])
            listener = listen_unix(folder / "rates.sock")
            server = Server(app, [listener])
            await nursery.start(server.run)
            ask = partial(_ask, folder / "rates.sock", engine)
            start, many = _body(1), _body(BULK)
            await ask("POST", "/api/v1/runs", start, CLIENTS, CLIENTS)
            found: list[tuple[Turn, Turn, Turn]] = []
            for _ in range(rounds):
                empty = await ask("GET", EMPTY_PATH, b"", requests, CLIENTS)
                starts = await ask("POST", "/api/v1/runs", start, requests, CLIENTS)
                found.append((empty, starts, await ask("POST", "/api/v1/runs/bulk", many, bulks, 2)))
            server.drain()
            nursery.cancel_scope.cancel()
            server.close()
    return Rates(
        rounds=rounds,
        empty_per_s=round(median(empty.per_s for empty, _, _ in found)),
        starts_per_s=round(median(starts.per_s for _, starts, _ in found)),
        share=round(median(starts.per_s / empty.per_s for empty, starts, _ in found), 3),
        bulk_per_s=round(median(bulk.answered_per_s * BULK for _, _, bulk in found)),
        bulk_ended_per_s=round(median(bulk.per_s * BULK for _, _, bulk in found)),
        empty_cpu_us=round(median(empty.cpu_us for empty, _, _ in found)),
        start_cpu_us=round(median(starts.cpu_us for _, starts, _ in found)),
        bulk_accept_cpu_us=round(median(bulk.answered_cpu_us / BULK for _, _, bulk in found)),
        bulk_cpu_us=round(median(bulk.cpu_us / BULK for _, _, bulk in found)),
        cpu_share=round(median(empty.cpu_us / starts.cpu_us for empty, starts, _ in found), 3),
    )


async def _nothing() -> Response:
    return Response(b"{}", 200, content_type="application/json")


def _body(runs: int) -> bytes:
    one = {"workflow": "bench", "input": 1}
    return msgspec.json.encode(one if runs == 1 else {"starts": [one] * runs})


async def _ask(path: Path, engine: Engine, method: str, target: str, body: bytes, requests: int, clients: int) -> Turn:
    """Ask so often; the time ends when all runs that were started have ended."""
    head = f"{method} {target} HTTP/1.1\r\nHost: jivsd\r\nContent-Length: {len(body)}\r\n\r\n"
    worked = time.process_time()
    command = [sys.executable, "-m", httpclients.__name__, str(path), str(requests), str(clients)]
    process = await trio.run_process(command, stdin=head.encode() + body, capture_stdout=True)
    began, answered = map(float, process.stdout.split())
    ended, answering = answered, time.process_time() - worked
    while engine.actors:
        await trio.sleep(GLANCE)
        ended = time.time()
    worked = time.process_time() - worked
    return Turn(
        requests / (answered - began), answering / requests * 1e6, requests / (ended - began), worked / requests * 1e6
    )


def main() -> int:
    """Measure, and say what was found; 0: as fast as it should be."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.httprates", description="Starts a second over HTTP.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2_000, help="of each kind in each round")
    parser.add_argument("--bulks", type=int, default=10, help="calls with 1,000 starts in each round")
    parser.add_argument("--store", help="the URL of a PostgreSQL database, in which it makes a schema of its own")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logs.configure("error", "text", "rates")
    with ground(asked.store) as place:
        rates = trio.run(measure, place.store(), asked.rounds, asked.requests, asked.bulks)
    if asked.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rates)) + b"\n")
    else:
        sys.stdout.write(
            f"an empty Quart route {rates.empty_per_s:,.0f}/s, starts {rates.starts_per_s:,.0f}/s ({rates.share:.0%}); "
            f"in bulk {rates.bulk_per_s:,.0f} runs/s accepted, {rates.bulk_ended_per_s:,.0f} brought to their ends; "
            f"CPU {rates.empty_cpu_us:.0f}, {rates.start_cpu_us:.0f} ({rates.cpu_share:.0%}), "
            f"{rates.bulk_accept_cpu_us:.0f} and {rates.bulk_cpu_us:.0f} µs: medians of {rates.rounds} rounds\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
