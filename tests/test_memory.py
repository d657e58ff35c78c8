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
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


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
