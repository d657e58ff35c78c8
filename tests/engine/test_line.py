"""The line: any order of joining, leaving and being called, against a model that sorts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from jivsd.engine.line import FEW, PRIORITY_WORTH, Line

GROUPS = (None, "a", "b")
joins = st.tuples(
    st.just("join"),
    st.sampled_from(GROUPS),
    st.integers(-3, 3),
    st.integers(0, 4 * PRIORITY_WORTH) | st.integers(0, 3),
)
leaves = st.tuples(st.just("leave"), st.integers(0, 30))
nexts = st.tuples(st.just("next"), st.sets(st.sampled_from(GROUPS)))


@settings(max_examples=100, deadline=None)
@given(st.lists(joins | leaves | nexts, max_size=40))
def test_the_next_is_who_has_the_highest_priority_and_waits_longest(orders):
    line: Line[int] = Line()
    model: dict[int, tuple[object, int, int]] = {}
    places = []
    for order in orders:
        match order:
            case ("join", group, priority, since):
                places.append(line.join(len(places), since=since, priority=priority, group=group))
                model[len(places) - 1] = (group, priority, since)
            case ("leave", number) if number < len(places):
                assert line.leave(places[number]) is (model.pop(number, None) is not None)
            case ("next", groups):
                free = [number for number in model if model[number][0] in groups]
                best = min(free, key=lambda number: _rank(number, *model[number]), default=None)
                assert line.next(groups.__contains__) == best
                model.pop(best, None)
        assert len(line) == len(model)
        assert [line.count(group) for group in GROUPS] == [
            sum(one[0] == group for one in model.values()) for group in GROUPS
        ]


def _rank(number, group, priority, since):
    return since - priority * PRIORITY_WORTH, number


def test_who_waits_long_goes_before_those_of_a_higher_priority_who_keep_coming():
    line: Line[str] = Line()
    line.join("patient", since=0)
    for late in range(10):
        line.join(f"urgent {late}", since=late * PRIORITY_WORTH // 2, priority=2)
    order = [line.next(lambda _: True) for _ in range(11)]
    assert order.index("patient") == 4  # behind those who came within two minutes


def test_places_that_were_left_do_not_pile_up():
    line: Line[int] = Line()
    for number in range(20 * FEW):
        line.leave(line.join(number, since=number, group=number % 7))
    assert sum(map(len, line._heaps.values())) <= FEW + 1
    assert line.next(lambda _: True) is None
