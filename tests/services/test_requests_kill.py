"""What is asked for in SQL by many sessions at once, while the daemon is killed with -9 again and again."""

from __future__ import annotations

import inspect
import random
import tempfile
from pathlib import Path

import pytest
import trio
from databases import NEWEST
from services import desk
from store.test_postgres import somebody

from jivsd.proof.daemons import Daemon

SESSIONS = 4
EACH = 40
LEFT = "SELECT FROM jivsd.request UNION ALL SELECT FROM jivsd.run WHERE open"


async def sell(url, number, wanted):
    """Ask for runs, each with its two signals, in transactions of which every fourth is rolled back."""
    chance = random.Random(number)
    async with somebody(url) as session:
        for sale in range(EACH):
            id = f"sale-{number}-{sale}"
            await session("BEGIN")
            await session("INSERT INTO public.sale VALUES ($1)", id)
            await session("SELECT jivsd.start('sale', '2', $1)", id)
            await session("SELECT jivsd.signal('sale', $1, 'say', '\"a\"')", id)
            await session("SELECT jivsd.signal('sale', $1, 'say', '\"b\"')", id)
            if chance.random() < 0.25:
                await session("ROLLBACK")
            else:
                await session("COMMIT")
                wanted.add(id)
            await trio.sleep(chance.random() * 0.05)


@pytest.mark.slow
async def test_killed_daemons_carry_out_each_request_once(postgres):
    url = postgres(NEWEST).fresh()
    wanted = set()
    with tempfile.TemporaryDirectory(prefix="jivsd-requests-") as name:
        folder = Path(name)
        plugin = folder / "desk.py"
        plugin.write_text(inspect.getsource(desk))
        plugin.chmod(0o644)
        arguments = ["--plugins", str(plugin), "--log-level", "warning"]
        daemon = Daemon(folder / "state", folder / "daemon.log", arguments, {"JIVSD_STORE": url})
        try:
            async with somebody(url) as session:
                await session("CREATE TABLE public.sale (id text)")
                await daemon.start()
                async with trio.open_nursery() as nursery:
                    for number in range(SESSIONS):
                        nursery.start_soon(sell, url, number, wanted)
                    await trio.sleep(0.6)
                    await daemon.kill()
                    await daemon.start()
                with trio.fail_after(60):
                    while await session(LEFT):  # noqa: ASYNC110 -- in a database
                        await trio.sleep(0.1)
                ended = await session("SELECT workflow_id, status, output FROM jivsd.run")
                assert (
                    {id for id, *_ in ended} == wanted == {id for (id,) in await session("SELECT id FROM public.sale")}
                )
                assert len(ended) == len(wanted) > SESSIONS * EACH / 2
                assert {(status, bytes(output)) for _, status, output in ended} == {("COMPLETED", b'["a","b"]')}
                assert await session("SELECT FROM jivsd.incident") == []
        finally:
            await daemon.aclose()
