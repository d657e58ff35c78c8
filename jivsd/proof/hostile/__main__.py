"""`python -m jivsd.proof.hostile`: see `jivsd.proof.hostile`."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from jivsd.proof import pgserver
from jivsd.proof.hostile.campaign import Plan, campaign

if TYPE_CHECKING:
    from jivsd.proof.hostile.campaign import Report


def main() -> int:
    """Run a campaign; 0: nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m jivsd.proof.hostile", description="Attack a daemon by HTTP.")
    parser.add_argument("--seconds", type=float, default=120.0, help="in all; each attack gets its part")
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones")
    parser.add_argument("--runs", type=int, default=300, help="at work meanwhile")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="an attack; again for more")
    parser.add_argument("--together", action="store_true", help="only all at once")
    parser.add_argument("--store", help="URL of a PostgreSQL database, or postgresql for a private server")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with ExitStack() as stack:
        store = asked.store
        if store == "postgresql":
            store = stack.enter_context(pgserver.Server()).url()
        plan = Plan(
            asked.seconds, asked.connections, asked.runs, asked.seed, store, asked.only, one_by_one=not asked.together
        )
        report = campaign(plan, (lambda _: None) if asked.json else _say)
    if asked.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    else:
        _conclude(report)
    return 1 if report.wrong or report.slow else 0


def _conclude(report: Report) -> None:
    for one in report.wrong:
        _say(f"WRONG: {one}")
    for one in report.slow:
        _say(f"SLOW: {one}")
    worst = max(report.attacks, key=lambda one: one.steps.p99_ms)
    _say(
        f"seed {report.seed}, {report.idle_connections:,} idle connections, {report.runs} runs at work: "
        f"step p99 {report.before.p99_ms} ms before, {worst.steps.p99_ms} ms at worst ({worst.name}); "
        f"{report.rss_before / 1e6:.0f} MB before, {report.rss_peak / 1e6:.0f} at most, {report.rss_after / 1e6:.0f} "
        f"after; {report.log_bytes:,} bytes in the log: {'bad' if report.wrong or report.slow else 'good'}"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
