"""Places in the feed: whoever goes on from one misses nothing and sees nothing twice, however transactions overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd.store.errors import BadCursor
from jivsd.store.feed import LONGEST, Cursor, FeedGone, Horizon, Page, Part, Snapshot, old_batches, read
from store.overlapping import Database


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
