"""`python -m jivsd.proof.locking`: see `jivsd.proof.locking`."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

import trio

from jivsd.proof import pgserver, redisserver
from jivsd.proof.locking.campaign import Plan, campaign


def main() -> int:
    """Run a campaign; 0: nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.locking", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--ahead", type=int, default=1_000, help="how many runs may be started and not have ended")
    parser.add_argument("--nodes", type=int, default=1, help="how many daemons share the database")
    parser.add_argument("--no-redis", action="store_true", help="several nodes without Redis")
    parser.add_argument("--every", default="2:10", metavar="LEAST:MOST", help="seconds between two kills; 0:0: none")
    parser.add_argument("--away", default="0:0", metavar="LEAST:MOST", help="seconds before a killed one starts again")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--store", help="an empty PostgreSQL database; a private server by default")
    asked = parser.parse_args()
    with ExitStack() as stack:
        store = asked.store or stack.enter_context(pgserver.Server()).url()
        redis = None
        if asked.nodes > 1 and not asked.no_redis:
            redis = stack.enter_context(redisserver.Server()).url
        plan = Plan(
            store=store, runs=asked.runs, keys=asked.keys, ahead=asked.ahead, nodes=asked.nodes, redis=redis,
            every=_span(asked.every), away=_span(asked.away), lease=asked.lease, seed=asked.seed,
        )  # fmt: skip
        _say(f"seed {plan.seed}: {plan.runs:,} runs on {plan.keys} keys over {plan.nodes} nodes")
        outcome = trio.run(campaign, plan, _say)
    for one in outcome.wrong:
        _say(f"WRONG: {one}")
    _say(f"{outcome.runs:,} runs, {outcome.kills} kills, {outcome.seconds:.0f} s: {'bad' if outcome.wrong else 'good'}")
    return 1 if outcome.wrong else 0


def _span(text: str) -> tuple[float, float]:
    least, _, most = text.partition(":")
    return float(least), float(most or least)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
