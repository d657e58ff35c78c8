"""Engines in this process, on stores of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from jivsd import interpreter, memory
from jivsd.engine.engine import Engine
from jivsd.metrics import Metrics
from jivsd.proof import load
from jivsd.registry.registry import Registry
from jivsd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from jivsd.store.api import Store


def engine_on(path: Path, **options: Any) -> AbstractAsyncContextManager[Engine]:
    """An engine that runs the bench's workflows on the database file at `path`; `options` are those of `Engine`."""
    return engine_with(SqliteStore(path), **options)


@asynccontextmanager
async def engine_with(store: Store, **options: Any) -> AsyncGenerator[Engine]:
    """An engine that runs the bench's workflows on a store, which is closed at the end."""
    registry = Registry()
    registry.add_module(load)
    async with store:
        epoch = await store.open("bench")
        for plugin in registry.plugins:
            await store.put_plugin(plugin.stored)
        memory.settle()
        interpreter.share()
        engine = Engine(store, registry, node="bench", epoch=epoch, metrics=Metrics(), **options)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            yield engine
            await engine.stop(5)
