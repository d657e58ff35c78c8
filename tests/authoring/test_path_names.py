from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd import InvalidDefinition
from jivsd.authoring.paths import check_name, escape_key


@given(st.text(), st.text())
def test_a_key_can_stand_in_a_path_and_no_two_look_alike(one, other):
    assert not set("/[]#!:") & set(escape_key(one))
    assert (escape_key(one) == escape_key(other)) == (one == other)


def test_plain_keys_stay_readable():
    assert escape_key("orders") == "orders"
    assert escape_key(5) == "5"
    assert escape_key("a/b%") == "a%2Fb%25"


def test_names():
    assert check_name("move-tenant 2", "a name") == "move-tenant 2"
    for bad in ("", "a/b", "a[b", "a#2", "a:b", "a!", "a\nb", "x" * 201):
        with pytest.raises(InvalidDefinition, match="cannot be a step's name: 1 to 200 characters"):
            check_name(bad, "a step's name")
