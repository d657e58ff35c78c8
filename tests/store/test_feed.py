"""Places in the feed: whoever goes on from one misses nothing and sees nothing twice, however transactions overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd.store.errors import BadCursor
from jivsd.store.feed import (
    LONGEST,
    Batch,
    Cursor,
    FeedEvent,
    FeedGone,
    Horizon,
    Page,
    Part,
    Snapshot,
    end_of,
    old_batches,
    read,
)


class Writer:
    """A connection: one transaction at a time."""

    def __init__(self, database, stream):
        self.database = database
        self.stream = stream
        self.open = None

    def step(self, *, commits):
        """Begin a transaction, draw its number, or end it."""
        if self.open is None:
            self.open = self.database.begin()
        elif self.open[1] is None:
            self.open = self.open[0], self.database.draw()
        else:
            self.database.end(*self.open, self.stream if commits else None)
            self.open = None


class Database:
    """Transactions and numbers as PostgreSQL gives them out."""

    def __init__(self, streams):
        self.following = 1
        self.drawn = 0
        self.running = set()
        self.batches = {}
        self.removed = self.removed_at = 0
        self.at = 1
        self.writers = [Writer(self, stream) for stream in range(1, streams + 1)]

    def begin(self):
        self.following += 1
        self.running.add(self.following - 1)
        return self.following - 1, None

    def draw(self):
        self.drawn += 1
        return self.drawn

    def end(self, transaction, number, stream):
        self.running.remove(transaction)
        if stream is not None:
            events = [event(number, seq) for seq in range(1, number % 3 + 2)]
            self.batches[number] = Batch(stream, number, events)

    @property
    def snapshot(self):
        oldest = min(self.running, default=self.following)
        newest = max(self.batches, default=0)
        return Snapshot(self.at, newest, self.removed, self.removed_at, oldest, self.following)

    def page(self, after, limit):
        found, events = [], 0
        for number in sorted(self.batches):
            batch = self.batches[number]
            if not after.has(batch.stream, number) and events < limit:
                found.append(batch)
                events += len(batch.events)
        return Page(found, self.snapshot, events >= limit)

    def end_place(self):
        seen = {}
        for number, batch in self.batches.items():
            seen[batch.stream] = max(number, seen.get(batch.stream, 0))
        return end_of(self.snapshot, seen)

    @property
    def events(self):
        return {(one.run_id, one.seq) for batch in self.batches.values() for one in batch.events}


def event(number, seq):
    return FeedEvent(f"run{number}", seq, 0, "StepDone", "a", 1, "", "nap", "id", "RUNNING")


def follow(database, after, limit):
    """A page: its events, each with its cursor, and the place after it."""
    pieces, following = read(after, database.page(after, limit))
    found = [
        (f"{piece.place}.{count}", one)
        for piece in pieces
        for count, one in enumerate(piece.batch.events[piece.skip :], piece.skip + 1)
    ]
    return found, following


STEPS = st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.integers(1, 6)), max_size=150)


@given(STEPS, st.integers(1, 5))
def test_every_event_comes_once(steps, streams):
    """Reading goes on while transactions overlap; now and then it is left after any event and taken up again."""
    database = Database(streams)
    place, seen = Cursor(), []
    for who, yes, limit in steps:
        if who < streams:
            database.writers[who].step(commits=yes)
            continue
        found, following = follow(database, place, limit)
        if found and yes:
            found = found[: (limit % len(found)) + 1]
            place = Cursor.of(found[-1][0])
        else:
            place = Cursor.of(str(following))
        seen += [one for _, one in found]
    for writer in database.writers:
        while writer.open is not None:
            writer.step(commits=True)
    while database.page(place, 1).more:
        found, place = follow(database, place, 3)
        seen += [one for _, one in found]
    _, place = follow(database, place, 3)
    keys = [(one.run_id, one.seq) for one in seen]
    assert len(keys) == len(set(keys))
    assert set(keys) == database.events
    assert place == Cursor(place.at, max(database.batches, default=0))  # nothing is under way: it is one number


@given(STEPS, st.integers(1, 5))
def test_from_the_end_on_comes_what_is_committed_later(steps, streams):
    database = Database(streams)
    place, before = None, set()
    for number, (who, yes, _) in enumerate(steps):
        if number == len(steps) // 2:
            place, before = Cursor.of(str(database.end_place())), database.events
        database.writers[who % streams].step(commits=yes)
    if place is not None:
        seen = []
        while database.page(place, 1).more:
            found, following = follow(database, place, 3)
            seen += [(one.run_id, one.seq) for _, one in found]
            place = Cursor.of(found[-1][0]) if found else following
        assert sorted(seen) == sorted(database.events - before)


def test_a_long_transaction_keeps_nobody_waiting_and_the_cursor_small():
    database = Database(3)
    slow, *others = database.writers
    for _ in range(2):
        slow.step(commits=True)
    place = Cursor()
    for _ in range(50):
        for writer in others:
            for _ in range(3):
                writer.step(commits=True)
        found, place = follow(database, place, 100)
        assert found
        assert len(place.seen) == 2
        assert len(str(place)) < 80
    slow.step(commits=True)
    found, place = follow(database, place, 100)
    assert {one.run_id for _, one in found} == {"run1"}
    assert place == Cursor(1, 101)


def test_what_was_removed_is_missed():
    page = Page([], Snapshot(LONGEST * 9, 120, 100, 5, 7, 7), more=False)
    with pytest.raises(FeedGone, match="begin again"):
        read(Cursor(LONGEST, 99), page)
    assert read(Cursor(LONGEST, 100), page)[1].floor == 120
    # its floor is behind, but it was read long after whatever was removed had been written
    assert read(Cursor(LONGEST * 2, 99, {1: 110}), page)[1].floor == 120


def test_a_place_in_another_feed():
    page = Page([], Snapshot(0, 120), more=False)
    with pytest.raises(BadCursor, match="of another feed"):
        read(Cursor(0, 121), page)


@pytest.mark.parametrize("text", ["", ".", "abc", "W10", "W10.", "W10.x", "e30.1", "ñ.1", "WzFd", "W251bGxd.0"])
def test_what_is_no_cursor(text):
    with pytest.raises(BadCursor, match="is no cursor of this feed"):
        Cursor.of(text)


@given(
    st.builds(
        Cursor,
        st.integers(0, 2**53),
        st.integers(0, 2**62),
        st.dictionaries(st.integers(0, 2**31), st.integers(0, 2**62)),
        st.none() | st.builds(Horizon, st.integers(0, 2**62), st.integers(0, 2**62)),
        st.none() | st.builds(Part, st.integers(0, 2**62), st.integers(0, 1000)),
    )
)
def test_a_cursor_is_read_as_it_was_written(cursor):
    assert Cursor.of(str(cursor)) == cursor


def test_old_batches_and_the_mark_of_what_was_removed():
    assert old_batches([(3, 10, 0), (4, 20, 2), (7, 30, 1), (9, 40, 1)], 35) == (2, 7)
    assert old_batches([(3, 10, 0), (4, 40, 2)], 35) == (0, 3)
    assert old_batches([], 35) == (0, 0)
