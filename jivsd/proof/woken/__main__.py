"""`python -m jivsd.proof.woken`: see `jivsd.proof.woken`."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec
import trio

from jivsd.proof.woken.campaign import Plan, campaign
from jivsd.proof.woken.planted import STALE_WRITER


def main() -> int:
    """Run a campaign; 0: nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.woken", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=3, help="how many daemons share the work")
    parser.add_argument("--lease", type=float, default=1.0, help="seconds; a node stands still for twice as long")
    parser.add_argument("--no-redis", action="store_true", help="leases in PostgreSQL alone")
    parser.add_argument("--width", type=int, default=4, help="how many migrations are in flight")
    parser.add_argument("--rows", type=int, default=200, help="of each of three tables, in chunks of 10")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--plant", choices=[STALE_WRITER], help="leave the fence of the target out: must be found")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    asked = parser.parse_args()
    plan = Plan(
        rounds=asked.rounds, nodes=asked.nodes, lease=asked.lease, redis=not asked.no_redis, width=asked.width,
        rows=asked.rows, seed=asked.seed, stale_writer=asked.plant is not None,
    )  # fmt: skip
    _say(f"seed {plan.seed}: {plan.rounds} rounds over {plan.nodes} nodes")
    outcome = trio.run(campaign, plan, _say)
    if asked.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")
        return 1 if outcome.wrong else 0
    for one in outcome.wrong:
        _say(f"WRONG: {one}")
    _say(
        f"{outcome.rounds} rounds, {outcome.in_flight} migrations in flight at the stopped nodes;"
        f" others had their shards after {outcome.taken_over:.1f} s at most; woken, they had let go of them after"
        f" {outcome.noticed:.2f} s at most, in {outcome.by_itself} rounds all by their own clock"
    )
    _say(
        f"{outcome.migrations} migrations ({outcome.in_files} into files), {outcome.written:,} transactions in targets,"
        f" {outcome.seconds:.0f} s: {'bad' if outcome.wrong else 'good'}"
    )
    return 1 if outcome.wrong else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
