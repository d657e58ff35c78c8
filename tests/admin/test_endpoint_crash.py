"""The endpoint of a real daemon crashes, comes back at once, and no run notices."""

from __future__ import annotations

import signal

import pytest
import trio

from admin import crashing
from jivsd.client import Client
from jivsd.proof.daemons import Daemon, insist
from jivsd.records import Kind, Status

STEPS = 30


@pytest.mark.slow
async def test_the_endpoint_crashes_and_no_run_notices(tmp_path):
    daemon = Daemon(tmp_path / "state", tmp_path / "log", ["--plugins", crashing.__file__])
    try:
        await daemon.start()
        async with Client.connect(daemon.data_dir) as client:
            runs = [(await client.start("count", STEPS)).run.run_id for _ in range(20)]
            took = [await _back(daemon, client, crashes) for crashes in (1, 2, 3)]
            assert min(took) < 1, took  # of several, because the machine may be busy
            for run_id in runs:
                assert (await insist(lambda run_id=run_id: client.result(run_id, 60))).status is Status.COMPLETED
                events = (await client.timeline(run_id)).items
                kinds = [event.kind for event in events]
                assert kinds == [Kind.STARTED, *[Kind.STEP_DONE] * STEPS, Kind.ENDED]
                assert all(event.attempt == 1 for event in events[1:-1])
        assert daemon.running
        assert await daemon.stop() == 0
    finally:
        await daemon.aclose()
    assert "made on purpose" in daemon.log.read_text()


async def _back(daemon: Daemon, client: Client, crashes: int) -> float:
    """Have the endpoint crash; how many seconds later it answers again."""
    daemon.send(signal.SIGUSR1)
    began = trio.current_time()
    while await _restarts(client) < crashes:
        pass
    return trio.current_time() - began


async def _restarts(client: Client) -> int:
    status = await insist(client.status)
    return next(child.restarts for child in status.children if child.name == "admin")
