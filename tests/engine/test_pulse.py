"""A pulse is felt as long as the loop turns and the journal answers, whatever it answers."""

from __future__ import annotations

import pytest
import trio

from engine.stores import FickleStore
from jivsd.engine.engine import Engine
from jivsd.engine.pulse import Pulse
from jivsd.registry.registry import Registry
from jivsd.store.api import StoreAway


class Journal(FickleStore):
    """`hangs`: a commit never returns."""

    hangs = False

    async def probe(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        if self.writes_fail:
            raise StoreAway("the disk is full")
        await super().probe()


@pytest.mark.jump
@pytest.mark.embedded
async def test_a_journal_that_answers_has_one_and_one_that_hangs_has_none():
    async with Journal() as store:
        engine = Engine(store, Registry(), node="n", epoch=await store.open("n"))
        beats = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pulse(engine, 8.0, lambda: beats.append(trio.current_time())).run)
            began = trio.current_time()
            await trio.sleep(9)
            assert [beat - began for beat in beats] == pytest.approx([0, 2, 4, 6, 8])
            store.writes_fail = True  # away is an answer, too
            await trio.sleep(10)
            assert len(beats) == 10
            store.writes_fail, store.hangs = False, True
            await trio.sleep(20)
            assert len(beats) == 10
            store.hangs = False
            await trio.sleep(3)
            assert len(beats) > 10
            nursery.cancel_scope.cancel()
        pulse = Pulse(engine, 8.0, lambda: None)
        store.hangs = True
        assert not await pulse.run_once()
        engine.metrics.journal_batch_size.observe(1)
        assert await pulse.run_once()  # what is written meanwhile is answer enough
        assert not await pulse.run_once()
