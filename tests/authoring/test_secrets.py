"""Where types say that there are secrets, and what is left when they are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd import Secret
from jivsd.authoring.secrets import SHORTEST, Veil, mask_of

Word = Annotated[str, Secret]


class Node(msgspec.Struct, rename="camel"):
    own_name: str
    pass_word: Word
    more: list[Node] = []


class Row(msgspec.Struct, array_like=True, tag=True):
    place: int
    word: Word


class Cat(msgspec.Struct, tag="cat"):
    word: str


class Dog(msgspec.Struct, tag="dog"):
    word: Word


class Typed(TypedDict):
    word: Word


class Named(NamedTuple):
    place: int
    word: Word


@dataclass
class Data:
    word: Annotated[int, Secret]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Word, "x", "***"),
        (Word | None, None, None),
        (Annotated[dict[str, int], Secret], {"a": 1}, "***"),
        (Node, {"ownName": "a", "passWord": "b", "more": [{"ownName": "c", "passWord": "d"}]},
         {"ownName": "a", "passWord": "***", "more": [{"ownName": "c", "passWord": "***"}]}),
        (Row, ["Row", 1, "x"], ["Row", 1, "***"]),
        (dict[str, Word], {"a": "x"}, {"a": "***"}),
        (tuple[int, Word], [1, "x"], [1, "***"]),
        (tuple[Word, ...], ["x", "y"], ["***", "***"]),
        (set[Word], ["x"], ["***"]),
        (Typed, {"word": "x"}, {"word": "***"}),
        (Named, [1, "x"], [1, "***"]),
        (Data, {"word": 7}, {"word": "***"}),
        (Cat | Dog, {"type": "dog", "word": "x"}, {"type": "dog", "word": "***"}),
        (Data, {"word": None, "other": 1}, {"word": None, "other": 1}),
        (Data, "odd", "odd"),
    ],
)  # fmt: skip
def test_what_is_marked_is_hidden_wherever_it_stands(kind, value, shown):
    assert mask_of(kind).hide(value) == shown


@pytest.mark.parametrize("kind", [int, Any, list[str], dict[str, list[int]], Cat, type])
def test_types_without_secrets_have_no_mask(kind):
    assert mask_of(kind) is None


words = st.text("abcde -", min_size=SHORTEST, max_size=12)
nodes = st.recursive(
    st.builds(lambda name, word: {"ownName": name, "passWord": word}, st.text("xyz"), words),
    lambda inner: st.builds(
        lambda name, word, more: {"ownName": name, "passWord": word, "more": more},
        st.text("xyz"), words, st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


@given(nodes, st.lists(st.text("vw", max_size=5), max_size=3))
def test_nothing_secret_is_left_in_what_is_shown(node, others):
    mask = mask_of(Node)
    secrets = mask.secrets(node)
    veil = Veil(secrets)
    errors = [f"{other}{word}{other}" for other in others for word in sorted(secrets)]
    shown = msgspec.json.encode([mask.hide(node), veil.value({"errors": errors})]).decode()
    assert not [secret for secret in secrets if secret in shown]
    assert veil.value({"kept": [1, None, "vw"]}) == {"kept": [1, None, "vw"]}


def test_longer_secrets_go_first_and_short_ones_are_not_looked_for():
    assert Veil({"abcd", "abcdef", "x"}).text("x abcdef abcd") == "x *** ***"
