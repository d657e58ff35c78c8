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
"""

from jivsd.testing.env import Env, RunFailed, run

__all__ = ["Env", "RunFailed", "run"]
