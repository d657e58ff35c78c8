"""Group commit: everything that runs want to have written goes through here, in batches.

While one batch is being committed the next one collects; nothing waits for a batch to fill. The committer decides
nothing about content: it keeps order, keeps entries while the store is away, and finds out what became of a commit
whose answer was lost. (DESIGN.md section 3.)
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from jivsd.journal.slots import Told, begins_on_trio, concerned, is_of, is_outside, landed, leads, weight
from jivsd.journal.verdicts import verdict_on
from jivsd.records import SHARDS, shard_of
from jivsd.store.api import (
    WRITTEN,
    Busy,
    Delivered,
    Duplicate,
    Entry,
    OutcomeUnknown,
    Post,
    Refused,
    StoreAway,
    StoreError,
)
from jivsd.store.payloads import INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence

    from jivsd.journal.slots import Slot
    from jivsd.store.api import Store, Verdict

BATCH_ENTRIES: Final = 256
"""Entries in one batch unless the engine says otherwise."""
BATCH_BYTES: Final = 8 << 20
"""Bytes of payload in one batch, if it has more than one entry: a store that takes too long over a batch would be taken
for one that is away, and be given the same batch again, for ever.
"""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 2.0
"""Seconds between attempts while the store is away: doubled from the first to the last."""
BUSY_PAUSE: Final = 0.01
"""Seconds before a run whose row somebody holds is tried again, when nothing else is to be written."""
ENOUGH: Final = 128
"""Entries that make a batch worth being written right behind another one, if they are half a batch, too: with fewer the
runs take turns."""
NOT_HELD: Final = -1
"""The epoch of a shard that this node does not own: nothing is written under it."""
GLANCE: Final = 0.005
"""Seconds between two looks whether everything of some shards has been written."""
ROW: Final = 0.1
"""Seconds for which batches may be written in a row before the committer, and others who want to write, have a turn."""

_log = structlog.get_logger(__name__)


@contextmanager
def _shield() -> Generator[None]:
    with trio.CancelScope(shield=True):
        yield


def _fitting(batch: list[Slot]) -> list[Slot]:
    """The first of a batch, and those behind it that do not make it too large."""
    return batch[: max(1, sum(total <= BATCH_BYTES for total in accumulate(map(weight, batch))))]


class Fenced(NamedTuple):
    """Of an entry that was refused because its shard has another owner: under which epoch it was submitted."""

    shard: int
    epoch: int


class _Written(NamedTuple):
    """A batch that the store has answered, and the seconds that it took."""

    batch: list[Slot]
    verdicts: list[Verdict]
    seconds: float


class Committer:
    """Collects entries and writes them in batches. All methods are called on the trio thread.

    As long as many wait and all goes well, the store's thread helps itself to the next batch as soon as it has written
    one: trio may be a while in the runs before it hears of that.
    """

    def __init__(
        self,
        store: Store,
        *,
        node: str,
        epoch: int = NOT_HELD,
        cap: Callable[[], int] = lambda: BATCH_ENTRIES,
        on_batch: Callable[[int, float], None] = lambda entries, seconds: None,
        on_fenced: Callable[[Sequence[Fenced]], None] = lambda fenced: None,
        on_away: Callable[[str | None], None] = lambda reason: None,
        on_held: Callable[[Iterable[str]], None] = lambda runs: None,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            store: an open store.
            node: who owns the shards.
            epoch: under which epoch `node` claimed all shards, as `Store.open` returned it; without, it has none yet.
            cap: how many entries a batch may have; asked for each batch.
            on_batch: told how many entries a batch had and how many seconds its commit took.
            on_fenced: told of the entries of a batch that were refused because their shard was taken over.
            on_away: told why the store is away, when that begins; and None when it is back.
            on_held: told the ids of the runs that a batch could not be written for because somebody holds their rows.
        """
        self.epochs = [epoch] * SHARDS
        """The epoch of each shard, as this node knows it; entries are stamped with it when they are submitted."""
        self.away: str | None = None
        """Why the store cannot be written to, or None."""
        self._store = store
        self._node = node
        self._cap = cap
        self._on_batch = on_batch
        self._on_fenced = on_fenced
        self._on_away = on_away
        self._on_held = on_held
        self._owed = 0
        self._waiting: deque[Slot] = deque()
        """What goes from here to `_writing` and on to `_written` goes in the store's thread, too."""
        self._writing: list[Slot] = []
        self._heavy = False
        """Whether something large may wait."""
        self._written: deque[_Written] = deque()
        """What nobody has been told of so far."""
        self._began = 0.0
        self._row_ends = 0.0
        self._token: trio.lowlevel.TrioToken | None = None
        self._news = trio.Event()
        """Set when there is something in `_written`."""
        self._unknown: set[int] = set()
        """Shards of commits whose outcome is being found out; what is for them waits."""
        self._pause = FIRST_PAUSE
        self._work: trio.Event | None = None
        """Set when there is something to write, as long as the committer waits for that."""
        self._idle: trio.Event | None = None
        """Set when every entry has its verdict, as long as somebody waits for that."""

    @property
    def pending(self) -> int:
        """How many entries have no verdict yet."""
        return self._owed

    def starting(self) -> set[str]:
        """The run ids of the starts that have no verdict yet, though they may be committed already."""
        entries = self._entries()
        return {entry.run_id for entry in entries if isinstance(entry, Entry) and entry.new is not None}

    def _entries(self) -> list[Entry | Post]:
        """What has no verdict yet."""
        slots = [*self._waiting, *self._writing]  # in the order in which they go, perhaps just now
        slots += [slot for written in list(self._written) for slot in written.batch]
        return [slot.entry for slot in slots]

    def hold(self, epochs: Mapping[int, int]) -> None:
        """This node owns some shards from now on, under these epochs."""
        for shard, epoch in epochs.items():
            self.epochs[shard] = epoch

    def let_go(self, shards: Iterable[int]) -> None:
        """This node does not own some shards any more: what is submitted for them from now on is refused."""
        for shard in shards:
            self.epochs[shard] = NOT_HELD

    async def flushed(self, shards: Collection[int]) -> None:
        """Return when nothing waits to be written for some shards, starts that others vouch for included."""
        while any(is_of(entry, shards) for entry in self._entries()):  # noqa: ASYNC110 -- no entry has to know of it
            await trio.sleep(GLANCE)

    def submit(self, entry: Entry | Post, done: Callable[[Verdict], None], *, void: bool = False) -> None:
        """Have an entry written; `done` gets its verdict, after the commit, in the order of submission.

        One that is `void` is refused as if its shard had another owner.

        It never gets Busy: that is waited out here.
        """
        self.add(Told(entry, done), void=void)

    def add(self, slot: Slot, *, void: bool = False) -> None:
        """The same for what is an entry already that knows whom to tell."""
        entry = slot.entry
        if isinstance(entry, Entry):
            entry.epoch = NOT_HELD if void else self.epochs[entry.shard]
            for event in entry.events:
                if len(event.payload) > INLINE_BYTES:
                    self._heavy = True
        elif len(entry.message.payload) > INLINE_BYTES:
            self._heavy = True
        self._owed += 1
        self._waiting.append(slot)
        if self._work is not None:
            self._wake()

    async def submit_and_wait(self, entry: Entry | Post, done: Callable[[Verdict], None] | None = None) -> Verdict:
        """Have an entry written and return its verdict. A caller who is cancelled leaves the entry where it is.

        `done` is told the verdict too, before the caller, and also when that one was cancelled.
        """

        def submit(told: Callable[[Verdict], None]) -> None:
            def tell(verdict: Verdict) -> None:
                told(verdict)
                if done is not None:
                    done(verdict)

            self.submit(entry, tell)

        return await verdict_on(submit)

    async def drain(self) -> None:
        """Return when every entry has its verdict. While the store is away that is never: use a deadline."""
        while self.pending:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled. What is under way then is finished; the rest stays for the next `run`.

        Raises:
            StoreError: the store says something unexpected; no entry is lost.
        """
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._teller)
            if self._unknown:
                nursery.start_soon(self._shut_out, frozenset(self._unknown))
            task_status.started()
            while True:
                await self._until_work()
                await self._write(self._take(), nursery)

    async def _until_work(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while all(map(self._held_back, self._waiting)) if self._unknown else not self._waiting:
            await self._new_work()

    async def _new_work(self) -> None:
        self._work = trio.Event()
        await self._work.wait()

    def _wake(self) -> None:
        if self._work is not None:
            self._work.set()
            self._work = None

    def _take(self) -> list[Slot]:
        """Take the next batch: what came first, apart from shards of which nobody knows what was written."""
        cap = max(1, self._cap())
        if not self._unknown:
            batch = [self._waiting.popleft() for _ in range(min(cap, len(self._waiting)))]
            return self._light(batch) if self._heavy else batch
        free = _fitting([slot for slot in self._waiting if not self._held_back(slot)][:cap])
        taken = set(map(id, free))
        self._waiting = deque(slot for slot in self._waiting if id(slot) not in taken)
        return free

    def _light(self, batch: list[Slot]) -> list[Slot]:
        """As much of a batch as may be written at once; the rest goes back."""
        light = _fitting(batch)
        self._keep(batch[len(light) :])
        self._heavy = any(weight(slot) > INLINE_BYTES for slot in self._waiting)
        return light

    async def _write(self, batch: list[Slot], nursery: trio.Nursery) -> None:
        """Have one batch committed, and perhaps more in a row, and tell everyone; what was not written is kept."""
        self._writing = batch
        self._began = time.perf_counter()
        self._row_ends = self._began + ROW
        try:
            with _shield():  # the outcome of a commit that nobody waits for is unknown
                verdicts = await self._store.commit([slot.entry for slot in batch], self._next)
        except StoreAway as error:
            self._keep(self._last())
            self._tell_written()
            self._note_away(error)
            await self._stay_away()
        except OutcomeUnknown as error:
            unknown = self._last()
            self._keep(unknown)
            self._find_out(unknown, error, nursery)
            self._tell_written()
        except BaseException:
            self._keep(self._last())
            raise
        else:
            self._written.append(_Written(self._last(), verdicts, time.perf_counter() - self._began))
            if self._tell_written():
                with trio.move_on_after(BUSY_PAUSE):
                    await self._new_work()

    def _next(self, verdicts: list[Verdict]) -> list[Entry | Post]:
        """In the store's thread: what to write right behind the last batch; nothing if somebody has to look first."""
        now, cap = time.perf_counter(), max(1, self._cap())
        if self._unknown or self._heavy or now > self._row_ends or len(self._waiting) < max(ENOUGH, cap // 2):
            return []
        if verdicts.count(WRITTEN) < len(verdicts) and any(map(leads, self._writing, verdicts)):
            return []
        # by their places: what trio adds meanwhile would end an iteration
        following = [self._waiting[place] for place in range(min(cap, len(self._waiting)))]
        if any(map(begins_on_trio, following)):
            return []
        self._written.append(_Written(self._writing, verdicts, now - self._began))
        self._began, self._writing = now, following
        for _ in following:
            self._waiting.popleft()
        assert self._token is not None
        self._token.run_sync_soon(self._announce, idempotent=True)
        return [slot.entry for slot in following]

    def _last(self) -> list[Slot]:
        """The batch that the store has had last."""
        batch, self._writing = self._writing, []
        return batch

    def _announce(self) -> None:
        self._news.set()

    async def _teller(self) -> None:
        """Tell of batches while others are being written."""
        while True:
            self._tell_written()
            await self._news.wait()
            self._news = trio.Event()

    def _tell_written(self) -> bool:
        """Tell of what has been written. True if nothing of the last batch could be because all rows were held."""
        all_held = False
        while self._written:
            batch, verdicts, seconds = self._written.popleft()
            try:
                all_held = self._settle(batch, verdicts)
            finally:
                self._note_back()
                self._on_batch(len(batch), seconds)
        return all_held

    def _keep(self, batch: list[Slot]) -> None:
        self._waiting.extendleft(reversed(batch))

    def _settle(self, batch: list[Slot], verdicts: list[Verdict]) -> bool:
        """Tell everyone what became of a batch. True if nothing could be written because all rows were held."""
        if verdicts.count(WRITTEN) == len(batch):
            self._tell(zip(batch, verdicts, strict=True))
            return False
        told: list[tuple[Slot, Verdict]] = []
        held: list[Slot] = []
        refused: dict[str, tuple[Refused, int]] = {}
        for slot, verdict in zip(batch, verdicts, strict=True):
            if verdict is WRITTEN:
                told.append((slot, verdict))
            elif isinstance(verdict, Busy):
                held.append(slot)
            elif isinstance(verdict, Duplicate) and landed(slot, verdict):
                told.append((slot, Delivered(verdict.run_id)))
            else:
                told.append((slot, verdict))
                if isinstance(verdict, Refused) and isinstance(slot.entry, Entry) and not verdict.lives(slot.entry):
                    refused[slot.entry.run_id] = verdict, slot.entry.epoch
        if held:
            self._keep(held)
            self._on_held([concerned(slot.entry) for slot in held])
        if refused:
            told += self._later_entries(refused)
            fenced = [slot.entry for slot, verdict in told if isinstance(verdict, Refused) and verdict.why == "fenced"]
            if fenced:
                self._on_fenced([Fenced(one.shard, one.epoch) for one in fenced if isinstance(one, Entry)])
        self._tell(told)
        return not told

    def _later_entries(self, refused: dict[str, tuple[Refused, int]]) -> list[tuple[Slot, Verdict]]:
        """What a refused run submitted after the refused entry: it builds on it, and is refused too.

        Not so what a later life of it submits under a later epoch, when an earlier one was fenced.
        """
        kept: deque[Slot] = deque()
        told: list[tuple[Slot, Verdict]] = []
        for slot in self._waiting:
            entry = slot.entry
            verdict, epoch = refused.get(entry.run_id, (None, 0)) if isinstance(entry, Entry) else (None, 0)
            if verdict is None or (verdict.why == "fenced" and isinstance(entry, Entry) and entry.epoch > epoch):
                kept.append(slot)
            else:
                told.append((slot, verdict))
        self._waiting = kept
        return told

    def _tell(self, told: Iterable[tuple[Slot, Verdict]]) -> None:
        errors: list[Exception] = []
        for slot, verdict in told:
            self._owed -= 1
            try:
                slot.done(verdict)
            except Exception as error:  # the others must still hear of theirs
                errors.append(error)
        if self._idle is not None and not self.pending:
            self._idle.set()
            self._idle = None
        if errors:
            raise ExceptionGroup("entries were committed, but those who were told of it failed", errors)

    def _note_away(self, error: StoreError) -> None:
        if self.away is None:
            _log.warning("store away", reason=str(error), pending=self.pending)
            self._on_away(str(error))
        self.away = str(error)

    def _note_back(self) -> None:
        if self.away is not None:
            _log.warning("store back", pending=self.pending)
            self.away = None
            self._on_away(None)
        self._pause = FIRST_PAUSE

    async def _stay_away(self) -> None:
        """Wait before the next attempt, telling those outside to come again later."""
        with trio.move_on_after(self._next_pause()):
            while True:
                outside = [slot for slot in self._waiting if is_outside(slot)]
                self._waiting = deque(slot for slot in self._waiting if not is_outside(slot))
                self._tell([(slot, Refused("away", detail=self.away or "")) for slot in outside])
                await self._new_work()

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, LAST_PAUSE)
        return pause

    def _find_out(self, batch: list[Slot], error: OutcomeUnknown, nursery: trio.Nursery) -> None:
        """The answer to a commit was lost: write the batch again, once the first attempt can no longer land.

        Written again, what is there already is found equal and left alone; the shards' raised epochs shut out the
        first attempt. Other shards go on meanwhile.
        """
        _log.warning("outcome of a commit unknown", reason=str(error), entries=len(batch))
        for slot in batch:
            slot.unsure = True
        shards = frozenset(slot.entry.shard for slot in batch if isinstance(slot.entry, Entry))
        if shards:
            self._unknown |= shards
            nursery.start_soon(self._shut_out, shards)

    async def _shut_out(self, shards: frozenset[int]) -> None:
        held = {shard: self.epochs[shard] for shard in shards if self.epochs[shard] != NOT_HELD}
        raised = await self._raise_epochs(held)
        self.hold({shard: epoch for shard, epoch in raised.items() if self.epochs[shard] == held[shard]})
        for slot in self._waiting:
            entry = slot.entry
            if isinstance(entry, Entry) and entry.shard in raised and entry.epoch == held[entry.shard]:
                entry.epoch = raised[entry.shard]
        self._unknown -= shards
        self._wake()

    async def _raise_epochs(self, epochs: dict[int, int]) -> dict[int, int]:
        while True:
            try:
                with _shield():
                    return await self._store.raise_epoch(self._node, epochs)
            except (StoreAway, OutcomeUnknown) as error:
                self._note_away(error)
            await trio.sleep(self._next_pause())

    def _held_back(self, slot: Slot) -> bool:
        """Whether it has to wait until the outcome of an earlier commit for its shard is known."""
        entry = slot.entry
        shard = entry.shard if isinstance(entry, Entry) else shard_of(entry.message.workflow_id)
        return shard in self._unknown
