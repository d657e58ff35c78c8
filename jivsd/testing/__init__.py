"""Running workflows in memory, for plugin authors' tests: the real engine and journal, and time that jumps.

import jivsd.testing
import greeting

async def scenario() -> None:
    async with jivsd.testing.Env(greeting) as env:
        run = await env.start("greeting", {"name": "Ann"})
        await env.signal(run, "approve", "boss")
        assert await env.result(run) == "Hello, Ann"

def test_greeting() -> None:
    jivsd.testing.run(scenario)

def test_that_no_crash_harms_it() -> None:
    jivsd.testing.crash_everywhere([greeting], scenario)
"""

from jivsd.testing.crash import crash_everywhere
from jivsd.testing.env import Env, RunFailed, run
from jivsd.testing.history import History, Mismatch, record, replay

__all__ = ["Env", "History", "Mismatch", "RunFailed", "crash_everywhere", "record", "replay", "run"]
