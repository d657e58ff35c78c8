"""Planning as pure functions, with properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from migration_cases import unhurried

from plugins.migration.planning import cut, estimated_seconds, order, select, too_little_space

names = st.integers(0, 12).map(lambda number: f"t{number}")
graphs = st.dictionaries(names, st.lists(names, max_size=4), max_size=12)


def reachable(graph, start):
    seen, todo = set(), [start]
    while todo:
        for target in graph.get(todo.pop(), ()):
            if target in graph and target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


@unhurried
@given(graphs)
def test_referenced_tables_come_first_and_only_cycles_are_deferred(graph):
    tables, deferred = order(graph)
    assert sorted(tables) == sorted(graph)
    place = {table: index for index, table in enumerate(tables)}
    for table, targets in graph.items():
        for target in targets:
            if target in graph and (table, target) not in deferred:
                assert place[target] < place[table]
    for table, target in deferred:
        assert target in graph[table]
        assert table in reachable(graph, target) or table == target


@unhurried
@given(graphs)
def test_the_order_is_the_same_every_time(graph):
    assert order(graph) == order(dict(graph))


@unhurried
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 10**6),
    st.integers(1, 10**7),
    st.integers(1, 20),
    st.integers(1, 10_000),
    st.data(),
)
def test_every_key_is_in_exactly_one_part(first, spread, rows, ranges, chunk_rows, data):
    last = min(first + spread, 2**63 - 1)
    parts = cut("t", first, last, rows, ranges, chunk_rows)
    assert 1 <= len(parts) <= ranges
    assert [part.number for part in parts] == list(range(len(parts)))
    edges = st.sampled_from(
        [first, last, -(2**63), 2**63 - 1, *[part.until for part in parts if part.until is not None]]
    )
    key = data.draw(st.one_of(st.integers(-(2**63), 2**63 - 1), edges, edges.map(lambda it: it + 1)))
    homes = [
        part
        for part in parts
        if (part.after is None or key > part.after[0]) and (part.until is None or key <= part.until)
    ]
    assert len(homes) == 1


def test_small_tables_are_not_cut():
    assert len(cut("t", 1, 3999, 3999, 4, 1000)) == 1
    assert len(cut("t", 1, 8000, 8000, 4, 1000)) == 2
    assert len(cut("t", 1, 10**6, 10**6, 4, 1000)) == 4


def test_selection_keeps_the_sources_order_and_names_what_is_not_there():
    present = ["Album", "artist", "Track"]
    assert select(present, None, []) == (present, [])
    assert select(present, ["TRACK", "Album"], []) == (["Album", "Track"], [])
    assert select(present, None, ["album"]) == (["artist", "Track"], [])
    chosen, problems = select(present, ["Albun"], [])
    assert chosen == []
    assert problems == ["tables names 'Albun', which the source does not have; did you mean 'Album'?"]
    assert select(present, ["Album"], ["Album"])[1] == ["all tables of the source are excluded"]
    assert select([], None, [])[1] == ["the source has no tables"]
    assert select(["a", "A"], ["A"], []) == (["A"], [])


def test_space_and_time_estimates():
    assert too_little_space(10, 10) is None
    assert too_little_space(9, 1000) == "the target's disk has 9 bytes free, but the rows alone take about 1,000"
    assert estimated_seconds(0, 0) == 0
    assert estimated_seconds(100_000, 1) < estimated_seconds(100_000, 10**9)
