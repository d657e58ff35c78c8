"""Calling: the owners of runs are told that there is something for them, which is in the store already.

A call may get lost: each node also looks by itself, now and then. What is called within one turn of the loop goes out
together.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd import logs
from jivsd.clock import SECOND
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jivsd.engine.host import Host

log = logs.get(__name__)

POLL: Final = 1.0
"""Seconds between two looks for what nobody has called for."""
SWEEP: Final = 30.0
"""Seconds between two looks for runs that should live here and do not."""
LATE: Final = 0.5
"""Seconds after which a message should have been read; who has not read it is told of it again."""


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one node tells another, or all. `runs`: ids of runs for which there is something in the store.

    `keys`: of locks that may have become free. `forwarded`: something may be asked of it. `quarantine`: the one of a
    workflow has begun or is over; the id of its incident.
    """

    runs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    forwarded: bool = False
    quarantine: str | None = None


class Calling:
    """The calls of a host, and what it does about those of others."""

    def __init__(self, host: Host) -> None:
        self.tell: Callable[[int | None, bytes], None] = lambda shard, body: None
        """Has a message go to the node that owns a shard, or to all; best effort. The composition root sets it."""
        self._host = host
        self._runs: dict[int, dict[str, None]] = {}
        self._keys: dict[int, dict[str, None]] = {}
        self._due = trio.Event()
        self._heard: dict[str, None] = {}
        self._ring = trio.Event()

    # ---- to others

    def run(self, shard: int, run_id: str, key: str | None = None) -> None:
        """There is something for a run of another node; its turn for a lock has come, if that is given."""
        self._runs.setdefault(shard, {})[run_id] = None
        if key is not None:
            self._keys.setdefault(shard, {})[key] = None
        self._due.set()

    def summon(self, run_id: str, key: str) -> None:
        """Bring a run back, wherever it lives, because its turn for a lock has come."""
        if self._host.holding.shared:
            self._host.nursery.start_soon(self._summon, run_id, key)
        else:
            self._host.activate(run_id)

    async def _summon(self, run_id: str, key: str) -> None:
        with suppress(StoreError):  # its owner looks by itself, later
            run = await self._host.rows.load(run_id)
            if run is None:
                return
            if run.shard in self._host.holding.shards:
                self._host.activate(run_id)
            else:
                self.run(run.shard, run_id, key)

    def request(self, shard: int) -> None:
        """Something is asked of the owner of a shard."""
        self.tell(shard, msgspec.json.encode(Call(forwarded=True)))

    def quarantine(self, incident_id: str) -> None:
        """A quarantine has begun, or is over."""
        self.tell(None, msgspec.json.encode(Call(quarantine=incident_id)))

    # ---- from others

    def heard(self, body: bytes) -> None:
        """Another node has called."""
        try:
            call = msgspec.json.decode(body, type=Call)
        except msgspec.DecodeError as error:
            log.warning("a call cannot be understood", why=str(error))
            return
        host = self._host
        for key in call.keys:
            host.locks.look(key)
        if call.forwarded:
            host.forwarding.look()
        if call.quarantine is not None:
            host.nursery.start_soon(host.quarantine.heard, call.quarantine)
        if call.runs:
            self._heard |= dict.fromkeys(call.runs)
            self._ring.set()

    # ---- the tasks

    async def send(self) -> None:
        """Call whoever has to be called, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            runs, self._runs = self._runs, {}
            keys, self._keys = self._keys, {}
            for shard, found in runs.items():
                self.tell(shard, msgspec.json.encode(Call(tuple(found), tuple(keys.get(shard, ())))))
            await trio.lowlevel.checkpoint()

    async def listen(self) -> None:
        """Do what others call for, until cancelled."""
        while True:
            await self._ring.wait()
            self._ring = trio.Event()
            heard, self._heard = self._heard, {}
            await self._bring(heard)

    async def poll(self) -> None:
        """Look for what nobody has called for, until cancelled."""
        host = self._host
        next_sweep = trio.current_time() + SWEEP
        while True:
            await trio.sleep(POLL)
            if not host.holding.shards:
                continue
            if trio.current_time() > next_sweep:
                await host.recovery.sweep()
                next_sweep = trio.current_time() + SWEEP
            before = host.clock.now() - round(LATE * SECOND)
            try:
                called = await host.store.called_runs(host.holding.wanted, before)
                await self._bring(called)
                await host.quarantine.look()
            except StoreError as error:
                log.warning("it cannot be seen what there is to do", why=str(error))
                continue
            host.locks.look_again()
            host.waker.look()
            host.forwarding.look()

    async def _bring(self, run_ids: Iterable[str]) -> None:
        """Have runs read their messages, and those come back that are not in memory."""
        host = self._host
        present = [run_id for run_id in run_ids if run_id in host.living]
        if present:
            for message in await host.recovery.patiently(partial(host.store.messages, *present)):
                host.deliver(message)
        for run_id in run_ids:
            await host.recovery.bring(run_id)
