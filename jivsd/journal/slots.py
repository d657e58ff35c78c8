"""What waits for its commit: an entry, and whom to tell; and what has to be known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from jivsd.store.api import WRITTEN, Busy, Duplicate, Entry, Post, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection  # noqa: TC004 -- nobody decodes a slot

    from jivsd.store.api import Verdict  # noqa: TC004 -- nobody decodes a slot


class Slot(Protocol):
    """An entry that waits, and whom to tell."""

    @property
    def entry(self) -> Entry | Post: ...

    unsure: bool
    """It was in a commit whose outcome nobody knew."""

    def done(self, verdict: Verdict, /) -> None:
        """Tell the verdict."""
        ...


class Told(msgspec.Struct, eq=False):
    """A slot of somebody who wants to be called."""

    entry: Entry | Post
    done: Callable[[Verdict], None]
    unsure: bool = False


def weight(slot: Slot) -> int:
    """How many bytes of payload it has, those aside that never are many."""
    entry = slot.entry
    if isinstance(entry, Post):
        return len(entry.message.payload)
    return sum(len(event.payload) for event in entry.events) + sum(len(message.payload) for message in entry.inbox)


def is_outside(slot: Slot) -> bool:
    """Whether somebody outside waits for it who can be told to come again: nothing of it is recorded."""
    entry = slot.entry
    if slot.unsure:
        return False
    return isinstance(entry, Post) or (entry.new is not None and entry.new.run.options.parent is None)


def landed(slot: Slot, verdict: Duplicate) -> bool:
    """Whether it is this very message that waits in the inbox: put there by the commit whose answer was lost.

    Its run may have read it since, or it may have been sent before: then there is nothing to hand over.
    """
    return slot.unsure and isinstance(slot.entry, Post) and slot.entry.message.at == verdict.unread


def concerned(entry: Entry | Post) -> str:
    """The run that an entry is for; a message may be for whichever runs under its workflow id."""
    return entry.run_id if isinstance(entry, Entry) else entry.message.run_id or ""


def is_of(entry: Entry | Post, shards: Collection[int]) -> bool:
    """Whether an entry writes for one of some shards."""
    if not isinstance(entry, Entry):
        return False
    return entry.shard in shards or (entry.new is not None and entry.new.run.shard in shards)


def leads(slot: Slot, verdict: Verdict) -> bool:
    """Whether a verdict decides over entries that wait: they must not be written before that has been seen to."""
    if verdict is WRITTEN:
        return False
    if isinstance(verdict, Refused):
        return isinstance(slot.entry, Entry) and not verdict.lives(slot.entry)
    return isinstance(verdict, Busy)


def begins_on_trio(slot: Slot) -> bool:
    """Whether the store has to be asked on trio's thread: it may have to finish a transaction step there."""
    return isinstance(slot.entry, Entry) and slot.entry.tx is not None
