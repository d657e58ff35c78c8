from __future__ import annotations

import dataclasses
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd.authoring.errors import InvalidDefinition, InvalidValue
from jivsd.authoring.signature import Signature, hints_of, result_kind, unknown_field

if TYPE_CHECKING:
    from decimal import Decimal


class Address(msgspec.Struct, rename="camel"):
    street_name: str
    house: int = 1


class Person(msgspec.Struct):
    name: str
    addresses: list[Address] = []


class Card(msgspec.Struct, tag="card"):
    number: str


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def none(ctx: Any) -> None: ...
def one(ctx: Any, seconds: float) -> str: ...
def optional(ctx: Any, count: int = 3) -> str: ...
def nullable(ctx: Any, count: int | None = 3) -> str: ...
def several(ctx: Any, name: str, age: int, tags: list[str] = ["a"]) -> bool: ...  # noqa: B006 -- what is tested
def person(ctx: Any, person: Person) -> Person: ...
def people(ctx: Any, people: dict[str, Person], points: tuple[Point, ...] = ()) -> None: ...
def anything(ctx: Any, value) -> None: ...


def of(function) -> Signature:
    return Signature(function, 1, "workflow 'w'")


def test_input_is_the_value_of_the_one_parameter():
    assert of(one).decode_input(b"30") == (30.0,)
    assert of(one).encode_input((30,), {}) == b"30"
    assert of(person).decode_input(b'{"name": "Ann", "addresses": [{"streetName": "A"}]}') == (
        Person("Ann", [Address("A")]),
    )
    assert of(anything).decode_input(b'{"a": [1]}') == ({"a": [1]},)


def test_input_of_several_parameters_is_an_object_by_name():
    signature = of(several)
    assert signature.decode_input(b'{"age": 5, "name": "Ann"}') == ("Ann", 5, ["a"])
    assert signature.encode_input(("Ann",), {"age": 5}) == b'{"name":"Ann","age":5,"tags":["a"]}'


def test_no_parameters_take_null():
    assert of(none).decode_input(b"null") == ()
    assert of(none).encode_input((), {}) == b"null"
    with pytest.raises(InvalidValue, match="workflow 'w': invalid input: Expected `null`, got `int`"):
        of(none).decode_input(b"5")


def test_null_stands_for_a_default_unless_the_parameter_takes_null():
    assert of(optional).decode_input(b" null\n") == (3,)
    assert of(optional).decode_input(b"5") == (5,)
    assert of(nullable).decode_input(b"null") == (None,)


def test_defaults_are_not_shared_between_calls():
    of(several).decode_input(b'{"age": 5, "name": "Ann"}')[2].append("mine")
    assert of(several).decode_input(b'{"age": 5, "name": "Ann"}')[2] == ["a"]

    def listed(ctx: Any, tags: list[str] = []) -> None: ...  # noqa: B006 -- what is tested

    signature = of(listed)
    signature.decode_input(b"null")[0].append("mine")
    assert signature.decode_input(b"null") == ([],)


@pytest.mark.parametrize(
    ("function", "data", "message"),
    [
        (several, b'{"name": "Ann", "age": 5, "colour": 1}', "`colour`"),
        (several, b'{"name": "Ann"}', "missing required field `age`"),
        (several, b'{"name": "Ann", "age": "5"}', r"Expected `int`, got `str` - at `\$.age`"),
        (person, b'{"name": "Ann", "addresses": [{"streetName": 5}]}', r"`\$.addresses\[0\].streetName`"),
        (person, b'{"name": "Ann", "nick": 5}', r"unknown field - at `\$.nick`"),
        (person, b'{"name": "Ann", "addresses": [{"streetName": "A", "zip": 5}]}', r"`\$.addresses\[0\].zip`"),
        (people, b'{"people": {"a": {"name": "A", "b": 1}}}', r"`\$.people.a.b`"),
        (people, b'{"people": {}, "points": [{"x": 1, "z": 2}]}', r"`\$.points\[0\].z`"),
        (one, b'"soon"', "Expected `float`, got `str`"),
        (person, b"{", "truncated"),
        (one, b"\xff", "invalid character|malformed|utf-8"),
        (anything, b"[" * 100_000, "recursion"),
    ],
)
def test_strict_input_names_what_is_wrong(function, data, message):
    with pytest.raises(InvalidValue, match=f"workflow 'w': invalid input: .*(?i:{message})"):
        of(function).decode_input(data, strict=True)


def test_only_strict_input_refuses_unknown_fields_of_structs():
    assert of(person).decode_input(b'{"name": "Ann", "nick": 5}') == (Person("Ann"),)


def test_a_tag_is_no_unknown_field():
    assert unknown_field({"type": "card", "number": "1"}, Card("1")) is None
    assert unknown_field({"type": "card", "pin": "1"}, Card("1")) == ".pin"


def test_a_call_is_a_json_array_with_its_defaults():
    signature = of(several)
    assert signature.encode(("Ann",), {"age": 5}) == b'["Ann",5,["a"]]'
    assert signature.decode(b'["Ann",5,["a"]]') == ("Ann", 5, ["a"])
    assert of(none).decode(of(none).encode((), {})) == ()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "lacks its argument 'name'"),
        (("Ann",), {}, "lacks its argument 'age'"),
        (("Ann", 5, [], 6), {}, "takes name, age, tags, but got 4 arguments"),
        (("Ann",), {"name": "B"}, "got parameter 'name' twice"),
        (("Ann",), {"colour": "B"}, "has no parameter 'colour'; it has name, age, tags"),
        (("Ann", object()), {}, "an argument has no JSON form"),
    ],
)
def test_a_call_that_does_not_fit_is_a_type_error(args, kwargs, message):
    with pytest.raises(TypeError, match=f"^workflow 'w'.*{message}"):
        of(several).encode(args, kwargs)


def test_an_argument_of_the_wrong_type_names_the_parameter():
    with pytest.raises(TypeError, match="Expected `int`, got `str` - at `age`"):
        of(several).decode(of(several).encode(("Ann", "five"), {}))


def test_result_of_any_kind_of_function():
    async def asynchronous(ctx: Any) -> Person: ...

    def awaitable(ctx: Any) -> Awaitable[Person]: ...

    for function in (asynchronous, awaitable, person):
        assert Signature(function, 1, "f").result.decode(b'{"name": "Ann"}') == Person("Ann")
    assert result_kind(Awaitable[int]) is int


def test_parameters_that_the_journal_cannot_name_are_refused():
    def starred(ctx: Any, *tables: str) -> None: ...
    def keywords(ctx: Any, **tables: str) -> None: ...
    def keyword_only(ctx: Any, *, table: str) -> None: ...

    for function in (starred, keywords, keyword_only):
        with pytest.raises(InvalidDefinition, match=r"^workflow 'w': parameter 'tables?' is .*; the journal needs"):
            of(function)


class Tree(msgspec.Struct):
    children: list[Tree]
    thread: threading.Thread | None = None


@pytest.mark.parametrize("kind", [Path, list[Path], dict[str, Path | None], Tree, object, Callable[[], int]])
def test_types_without_a_json_form_are_refused(kind):
    def takes(ctx: Any, value: kind) -> None: ...
    def returns(ctx: Any) -> kind: ...

    takes.__annotations__["value"] = returns.__annotations__["return"] = kind
    for function in (takes, returns):
        with pytest.raises(InvalidDefinition, match=r"^workflow 'w'.* has no JSON form"):
            of(function)


def test_sets_are_encoded_alike_in_every_process():
    def takes(ctx: Any, names: set[str]) -> None: ...

    assert of(takes).encode(({"c", "a", "b"},), {}) == b'[["a","b","c"]]'
    assert of(person).encode(({"b": 1, "a": 2},), {}) == b'[{"b":1,"a":2}]'


def test_a_default_of_another_type_is_refused():
    def wrong(ctx: Any, count: int = None) -> None: ...  # noqa: RUF013 -- what is tested

    with pytest.raises(InvalidDefinition, match="'count' is int, which its default None is not: Expected `int`"):
        of(wrong)


def test_an_annotation_imported_for_typing_only_is_a_clear_error():
    def typed(ctx: Any, amount: Decimal) -> None: ...

    with pytest.raises(InvalidDefinition, match=r"step 's': .*'Decimal' is not defined.*import its type at run time"):
        hints_of(typed, "step 's'")


def test_schema_for_people_and_programs():
    assert of(several).schema()["$defs"]["Input"]["required"] == ["name", "age"]
    assert of(person).struct_fields() == {"name", "addresses"}
    assert of(several).struct_fields() == set()


@given(st.text(), st.integers(-(2**63), 2**64 - 1), st.lists(st.text()))
def test_arguments_cross_unchanged(name, age, tags):
    signature = of(several)
    assert signature.decode(signature.encode((name, age, tags), {})) == (name, age, tags)
    assert signature.decode_input(signature.encode_input((name, age, tags), {}), strict=True) == (name, age, tags)
