"""What many ask for at once is read together; nobody is left without an answer."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from jivsd.engine.loading import Loader
from jivsd.store.api import StoreAway, StoreError


class Source:
    """Reads when it is let."""

    def __init__(self):
        self.asked = []
        self.open = trio.Event()

    async def read(self, ids):
        self.asked.append(list(ids))
        await self.open.wait()
        if "away" in ids:
            raise StoreAway("gone fishing")
        return [StoreError(one) if one == "damaged" else None if one == "nobody" else one.upper() for one in ids]


async def ask(loader, name, answers):
    try:
        answers[name] = await loader.load(name)
    except StoreError as error:
        answers[name] = f"{type(error).__name__}: {error}"


async def test_questions_that_come_meanwhile_are_read_together():
    source, answers = Source(), {}
    loader = Loader(source.read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loader.run)
        for name in ("a", "b", "nobody", "damaged"):
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, loader, name, answers)
        await trio.testing.wait_all_tasks_blocked()
        source.open.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, loader, "away", answers)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert source.asked == [["a"], ["b", "nobody", "damaged"], ["away"]]
    assert answers == {
        "a": "A",
        "b": "B",
        "nobody": None,
        "damaged": "StoreError: damaged",
        "away": "StoreAway: gone fishing",
    }


async def test_when_it_stops_everybody_reads_for_himself():
    source, answers = Source(), {}
    loader = Loader(source.read)
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as inner:
            inner.start_soon(loader.run)
            for name in ("a", "b"):
                await trio.testing.wait_all_tasks_blocked()
                outer.start_soon(ask, loader, name, answers)
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        source.open.set()
        assert await loader.load("c") == "C"
        with pytest.raises(StoreAway, match="fishing"):
            await loader.load("away")
    assert answers == {"a": "A", "b": "B"}


async def test_so_many_are_read_at_once_in_the_order_of_the_questions():
    source = Source()
    source.open.set()
    loader = Loader(source.read, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loader.run)
        await trio.testing.wait_all_tasks_blocked()
        questions = [loader.ask(name) for name in ("a", "b", "nobody", "c", "d")]
        assert [await question.answer() for question in reversed(questions)] == ["D", "C", None, "B", "A"]
        nursery.cancel_scope.cancel()
    assert source.asked == [["a", "b"], ["nobody", "c"], ["d"]]


async def test_who_asks_for_many_waits_for_room():
    source, told = Source(), []
    loader = Loader(source.read, 2)

    async def ask_for_many():
        for name in "abcdef":
            loader.ask(name)
            await loader.room()
            told.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loader.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask_for_many)
        await trio.testing.wait_all_tasks_blocked()
        assert "d" not in told
        source.open.set()
        await trio.testing.wait_all_tasks_blocked()
        assert told == list("abcdef")
        nursery.cancel_scope.cancel()
    await loader.room()


async def test_who_was_asking_when_it_stopped_and_is_cancelled_meanwhile_is_not_woken():
    source, answers = Source(), {}
    loader = Loader(source.read)
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as inner:
            inner.start_soon(loader.run)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0):
                await loader.load("a")
            early = loader.ask("b")
            outer.start_soon(ask, loader, "c", answers)
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        source.open.set()
        assert await early.answer() == "B"
    assert answers == {"c": "C"}
