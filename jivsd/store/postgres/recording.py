"""Batches in which transaction steps are to be committed: each commits by itself, in its run's turn.

What comes before a step in its run's entries is written before, what comes after it when its commit is known. A step
that cannot commit is an ordinary entry from then on, with the event that says so.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd.store.api import DamagedRow, Entry, OutcomeUnknown, Post, Refused, StoreAway, Written
from jivsd.store.payloads import INLINE_BYTES, payload_hash
from jivsd.store.postgres.batch import for_later
from jivsd.store.postgres.transactions import COMMIT, CUT, Fenced, Gone
from jivsd.store.txstep import TxDone, TxStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jivsd.bridge import Bridge
    from jivsd.records import Event
    from jivsd.store.api import Verdict
    from jivsd.store.postgres.connections import Sql

    Batch = Sequence[Entry | Post]

_EVENT: Final = ("uuid", "bigint", "bigint", "integer", "integer", "text", "text", "text", "bytea", "text")
"""The types of the columns of an event, in the order of the function `append_events`."""


def has_steps(batch: Batch) -> bool:
    """Whether transaction steps are to be committed."""
    return any(isinstance(entry, Entry) and entry.tx is not None for entry in batch)


class Recorder:
    """Writes one batch with transaction steps in it."""

    def __init__(
        self,
        batch: Batch,
        *,
        bridge: Bridge,
        sql: Sql,
        write: Callable[[Batch], Awaitable[list[Verdict]]],
        stored: Callable[[str, int], Awaitable[Event | None]],
    ) -> None:
        """Prepare.

        Args:
            batch: what is to be written.
            bridge: where transactions live.
            sql: the statements.
            write: writes what has no steps in it, as a batch.
            stored: looks an event up.
        """
        self._batch = batch
        self._bridge = bridge
        self._sql = sql
        self._write = write
        self._stored = stored
        self._verdicts: dict[int, Verdict] = {}
        self._stopped: dict[str, Verdict] = {}

    async def commit(self) -> list[Verdict]:
        """See `jivsd.store.api.Store.commit`."""
        left = list(range(len(self._batch)))
        while left:
            plain, steps, later = self._divided(left)
            try:
                await self._write_plain(plain)
            except StoreAway as error:
                if not self._verdicts:
                    raise
                raise OutcomeUnknown(str(error)) from error  # some of the batch is written
            again = await self._commit_steps(steps)
            left = sorted([*again, *later])
        return [self._verdicts[place] for place in range(len(self._batch))]

    def _divided(self, left: list[int]) -> tuple[list[int], list[int], list[int]]:
        """What can be written together now, the steps that can commit after that, and what comes after those."""
        plain: list[int] = []
        steps: list[int] = []
        later: list[int] = []
        waiting: set[str] = set()
        for place in left:
            entry = self._batch[place]
            if not isinstance(entry, Entry):
                plain.append(place)
            elif entry.run_id in waiting:
                later.append(place)
            elif isinstance(entry.tx, TxDone) and entry.tx.instead is None:
                steps.append(place)
                waiting.add(entry.run_id)
            else:
                plain.append(place)
        return plain, steps, later

    async def _write_plain(self, places: list[int]) -> None:
        held = [place for place in places if not self._settled(place)]
        if held:
            verdicts = await self._write([self._plain(place) for place in held])
            for place, verdict in zip(held, verdicts, strict=True):
                self._settle(place, verdict)

    def _plain(self, place: int) -> Entry | Post:
        entry = self._batch[place]
        if isinstance(entry, Post) or entry.tx is None:
            return entry
        if isinstance(entry.tx, TxStep):
            raise TypeError("a transaction step on PostgreSQL is run before it is recorded")
        assert entry.tx.instead is not None
        return Entry(entry.run_id, entry.shard, entry.epoch, events=(entry.tx.instead,))

    def _settled(self, place: int) -> bool:
        """Whether an earlier entry of the same run has decided this one."""
        entry = self._batch[place]
        if isinstance(entry, Entry) and (verdict := self._stopped.get(entry.run_id)) is not None:
            self._verdicts[place] = verdict
            return True
        return False

    def _settle(self, place: int, verdict: Verdict) -> None:
        entry = self._batch[place]
        if isinstance(entry, Entry):
            if isinstance(entry.tx, TxDone) and isinstance(verdict, Written):
                verdict = Written(entry.tx.instead or entry.tx.event)
            if (later := for_later(entry, verdict)) is not None:
                self._stopped[entry.run_id] = later
        self._verdicts[place] = verdict

    async def _commit_steps(self, places: list[int]) -> list[int]:
        """Commit steps side by side; return those in whose place something else is to be written."""
        open_steps = [place for place in places if not self._settled(place)]
        errors: list[OutcomeUnknown] = []
        async with trio.open_nursery() as nursery:
            for place in open_steps:
                nursery.start_soon(self._commit_step, place, errors)
        if errors:
            raise errors[0]
        return [place for place in open_steps if place not in self._verdicts]

    async def _commit_step(self, place: int, errors: list[OutcomeUnknown]) -> None:
        entry = self._batch[place]
        assert isinstance(entry, Entry)
        step: Any = entry.tx
        message = self._message(entry, step.event)
        try:
            await self._bridge.call(partial(step.open.commit, message), timeout=COMMIT + 2 * CUT)
        except Fenced:
            self._settle(place, Refused("fenced"))
        except Gone:
            await self._look(place, entry, step, errors)
        except (OutcomeUnknown, TimeoutError) as error:
            errors.append(OutcomeUnknown(str(error)))
        except Exception as error:
            step.instead = step.failed(error)
        else:
            self._settle(place, Written())

    async def _look(self, place: int, entry: Entry, step: TxDone, errors: list[OutcomeUnknown]) -> None:
        """Its transaction has ended: perhaps it committed, and nobody heard of it."""
        try:
            stored = await self._stored(entry.run_id, step.seq)
        except DamagedRow as error:
            self._settle(place, Refused("exists", entry.run_id, str(error)))
        except StoreAway as error:
            errors.append(OutcomeUnknown(str(error)))
        else:
            if stored is None:
                step.instead = step.again
            else:
                self._settle(place, Written() if stored == step.event else Refused("exists", entry.run_id))

    def _message(self, entry: Entry, event: Event) -> str:
        """What writes a step's event, checks the fence and commits, as one message."""
        payload: bytes | None = event.payload
        name = None
        statements: list[str] = []
        if len(event.payload) > INLINE_BYTES:
            payload, name = None, payload_hash(event.payload)
            large = (("text", name), ("bigint", 1), ("bytea", event.payload))
            statements.append(_filled(self._sql["use_payloads"], large))
        values = (event.run_id, event.at, event.checksum(), event.seq, event.attempt, event.kind, event.path, event.by)
        columns = zip(_EVENT, (*values, payload, name), strict=True)
        fence = (("integer", entry.shard), ("bigint", entry.epoch))
        statements.append(_filled(self._sql["append_events"], (*fence, *columns)))
        return "; ".join([*statements, "COMMIT"])


def _filled(sql: str, parameters: Sequence[tuple[str, Any]]) -> str:
    """A statement whose parameters are lists of one, with those in it: what is sent with others takes none."""
    literals = [f"ARRAY[{_literal(value)}]::{kind}[]" for kind, value in parameters]
    return re.sub(r"\$(\d+)", lambda place: literals[int(place[1]) - 1], sql)


def _literal(value: Any) -> str:
    """Whatever text it is, nothing but letters and digits of ours gets into the SQL."""
    match value:
        case None:
            return "NULL"
        case int():
            return str(int(value))
        case bytes():
            return f"decode('{value.hex()}', 'hex')"
        case _:
            return f"convert_from(decode('{str(value).encode().hex()}', 'hex'), 'UTF8')"
