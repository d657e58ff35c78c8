"""kill -9 at random in the middle of migrations, compensations, fan-outs and timers: real daemons, real databases.

The demo's own trials, smaller; what they must not have done is counted in the databases by SQL.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from jivsd.proof import recount
from jivsd.proof.trial import Plan, Trial

SMALL = {
    "a migration": Plan(seed=1, kills=3, rows=20_000, chunk_rows=100, orders=0, campaigns=0),
    "orders that compensate": Plan(seed=2, kills=3, rows=0, orders=24, campaigns=0),
    "fan-outs with timers and signals": Plan(seed=3, kills=3, rows=0, orders=0, campaigns=4),
}


async def holds(plan: Plan) -> None:
    with tempfile.TemporaryDirectory(prefix="jivsd-kill-") as folder:
        trial = Trial(Path(folder), plan)
        await trial.run()
        found = await trio.to_thread.run_sync(recount.recount, trial.databases)
    assert found.holds, [count for count in found.counts if count.found]
    assert found.rows >= plan.rows
    assert len(trial.kills) >= plan.kills


@pytest.mark.slow
@pytest.mark.parametrize("work", SMALL)
async def test_nothing_is_lost_or_done_twice(work):
    await holds(SMALL[work])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
async def test_nothing_is_lost_or_done_twice_for_long(seed):
    await holds(Plan(seed=seed, kills=20))


@pytest.mark.slow
def test_the_demo_holds_and_says_so():
    done = subprocess.run(
        [sys.executable, "-m", "jivsd", "demo", "--json", "--seed", "7"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= 3
    assert report["rows"] >= 100_000
    assert (report["lost"], report["recorded_twice"]) == (0, 0)
    assert report["seconds"] > 0
