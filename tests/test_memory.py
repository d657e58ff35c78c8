"""What the collector looks at, and when."""

from __future__ import annotations

import gc
import weakref

import pytest

from jivsd import memory


class Ring:
    """Holds itself: only the collector finds out that nobody else does."""

    def __init__(self):
        self.self = self


@pytest.fixture(autouse=True)
def _as_before():
    threshold, callbacks = gc.get_threshold(), gc.callbacks[:]
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    gc.callbacks[:] = callbacks


def test_what_comes_while_much_comes_that_stays_is_not_looked_at_even_later():
    with memory.growing():
        assert gc.get_threshold()[0] == memory.GROWTH
        ring = Ring()
    assert gc.get_threshold() == memory.THRESHOLDS
    found = weakref.ref(ring)
    del ring
    memory.trim()
    assert found() is not None
    ring = Ring()
    found = weakref.ref(ring)
    del ring
    memory.trim()
    assert found() is None


def test_a_failure_meanwhile_changes_nothing_of_that():
    with pytest.raises(KeyError), memory.growing():
        raise KeyError
    assert gc.get_threshold() == memory.THRESHOLDS


def test_the_collector_comes_less_often_as_long_as_it_finds_nothing():
    memory.settle()
    memory.settle()  # again changes nothing
    gc.set_threshold(*memory.THRESHOLDS)
    gc.collect()
    assert gc.get_threshold()[0] == 2 * memory.THRESHOLDS[0]
    for _ in range(5):
        gc.collect()
    assert gc.get_threshold()[0] == memory.PATIENT
    rings = [Ring() for _ in range(memory.GARBAGE + 1)]
    del rings
    gc.collect()
    assert gc.get_threshold() == memory.THRESHOLDS


def test_a_collection_in_between_does_not_end_the_growing():
    memory.settle()
    with memory.growing():
        gc.collect()
        assert gc.get_threshold()[0] == memory.GROWTH
