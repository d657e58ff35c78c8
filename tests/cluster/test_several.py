"""The program that says what sharing costs says something."""

from __future__ import annotations

from jivsd.proof import several


async def test_it_measures_one_node_two_and_one_beside_an_idle_one(monkeypatch):
    monkeypatch.setattr(several, "WARM_UP", 4)
    found = await several.measure(20, 1)
    assert [len(rates) for rates in (found.one, found.two, found.beside_idle)] == [1, 1, 1]
    first, second, third = found.report().splitlines()
    assert first.startswith("one node ")
    assert all(line.endswith("% of that") for line in (second, third))
