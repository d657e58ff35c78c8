"""Content hashes and keys: what they must tell apart and what not."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from migration_cases import unhurried

from plugins.migration.content import Content, add, content_of, shown, size_of
from plugins.migration.keys import RawText, decode_key, encode_key
from plugins.migration.rows import slices

integers = st.integers(-(2**63), 2**63 - 1)
values = st.one_of(st.none(), integers, st.floats(allow_nan=False), st.text(), st.binary())
tables = st.lists(st.tuples(values, values), max_size=20)


def same(left, right):
    """Equal as SQLite's values are: type and value, and -0.0 is not 0.0."""
    return sorted(map(repr, left)) == sorted(map(repr, right))


@unhurried
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert content_of(shuffled) == content_of(rows)


@unhurried
@given(tables, tables)
def test_different_rows_have_different_contents(left, right):
    assert (content_of(left) == content_of(right)) == same(left, right)


@unhurried
@given(tables, st.integers(0, 20))
def test_stretches_add_up(rows, at):
    assert add(content_of(rows[:at]), content_of(rows[at:])) == content_of(rows)
    halves = [(len(part), size_of(part), shown(content_of(part))) for part in (rows[:at], rows[at:])]
    whole = Content(len(rows), size_of(rows), shown(content_of(rows)))
    assert Content().with_more(*halves[0]).with_more(*halves[1]) == whole


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((1,), (1.0,)),
        (("",), (None,)),
        (("a",), (b"a",)),
        ((b"a",), (RawText(b"a"),)),
        (("a", "b"), ("ab", "")),
        ((0.0,), (-0.0,)),
        (("1",), (1,)),
    ],
)
def test_kinds_are_told_apart(left, right):
    assert content_of([left]) != content_of([right])


def test_a_missing_double_is_noticed():
    assert content_of([(1,), (1,)]) != content_of([(1,)])
    assert content_of([(1,), (1,)]) != 0


def test_the_documented_hash_can_be_computed_by_anyone():
    from hashlib import blake2b

    row = ("a", None, 5)
    expected = int.from_bytes(blake2b(msgspec.msgpack.encode(row), digest_size=16).digest(), "big")
    assert content_of([row, row]) == 2 * expected % 2**128


@unhurried
@given(st.lists(st.one_of(integers, st.floats(allow_nan=False), st.text(), st.binary(), st.binary().map(RawText))))
def test_keys_come_back_from_json_as_they_were(key):
    back = decode_key(msgspec.json.decode(msgspec.json.encode(encode_key(key))))
    assert [(type(it), it.data if isinstance(it, RawText) else repr(it)) for it in back] == [
        (type(it), it.data if isinstance(it, RawText) else repr(it)) for it in key
    ]


@unhurried
@given(st.lists(st.tuples(st.binary(max_size=300)), max_size=300), st.integers(1, 300), st.integers(1, 5000))
def test_slices_are_bounded_in_rows_and_bytes(rows, limit, budget):
    taken = list(slices(iter(rows), limit, budget))
    flat = [row for part, _ in taken for row in part]
    assert flat == rows[: len(flat)]
    assert len(flat) <= limit
    assert sum(weight for _, weight in taken) == size_of(flat)
    assert sum(weight for _, weight in taken[:-1]) < budget
    stopped = len(flat) < min(limit, len(rows))
    assert stopped <= (size_of(flat) >= budget)


def test_large_rows_come_alone():
    random.seed(1)
    rows = [(random.randbytes(1_000_000),) for _ in range(20)]
    taken = list(slices(iter(rows), 1000, 4_000_000))
    assert [len(part) for part, _ in taken] == [1, 2, 1]


def test_differences_are_sentences():
    one = Content(1000, 10, shown(5))
    assert one.difference(Content(1000, 99, shown(5))) is None
    assert "has 1,000 rows in the source and 3 in the target" in one.difference(Content(3, 10, shown(5)))
    assert "other values" in one.difference(Content(1000, 10, shown(6)))
