from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd import ChildFailed, Failure, StepFailed, TimedOut
from jivsd.authoring.errors import MESSAGE_LIMIT, InvalidValue, NotDurable, rebuild_error, record_error
from jivsd.records import ErrorRecord


class Declined(Failure):
    class Forever(Failure):
        pass


class Short(Failure):
    def __init__(self, missing: int):
        super().__init__(f"{missing} short", missing=missing)


class Forgetful(Failure):
    def __init__(self):
        pass


class Plain(Exception):
    pass


class Picky(Exception):
    def __init__(self, code: int, reason: str):
        super().__init__(code, reason)


class Broken(Exception):
    def __str__(self):
        raise RuntimeError


def crossed(error: BaseException) -> Exception:
    data = msgspec.json.encode(record_error(error))
    return rebuild_error(msgspec.json.decode(data, type=ErrorRecord), [globals()])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "/x"),
        Plain("mine"),
        Plain(),
        Declined("no funds", amount=12),
        Declined.Forever("no", why=["a", {"b": None}]),
        Short(5),
        TimedOut("late", after="5m"),
        ChildFailed("child", run_id="r", status="FAILED"),
        NotDurable("open()"),
        InvalidValue("field"),
    ],
    ids=repr,
)
def test_an_error_comes_back_as_itself_however_often_it_crosses(error):
    once = crossed(error)
    again = crossed(once)
    assert type(once) is type(again) is type(error)
    assert str(once) == str(again) == str(error)
    assert getattr(again, "data", None) == getattr(error, "data", None)


def test_what_cannot_be_built_again_is_a_step_failed():
    class Local(Exception):
        pass

    for error, shown in ((Picky(5, "r"), "Picky: (5, 'r')"), (Local("x"), f"{Local.__qualname__}: x")):
        failed = crossed(crossed(error))
        assert type(failed) is StepFailed
        assert str(failed) == shown
    assert type(crossed(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"))) is StepFailed


def test_a_lost_class_keeps_its_data_and_is_found_again():
    lost = rebuild_error(record_error(Declined("no", amount=5)))
    assert isinstance(lost, StepFailed)
    assert (lost.type, lost.data) == ("Declined", {"amount": 5})
    found = crossed(lost)
    assert type(found) is Declined
    assert found.data == {"amount": 5}


def test_groups_cross_with_their_members():
    group = crossed(ExceptionGroup("both", [ValueError("a"), ExceptionGroup("inner", [Declined("b", n=1)])]))
    assert isinstance(group, ExceptionGroup)
    inner = group.exceptions[1]
    assert isinstance(inner, ExceptionGroup)
    assert (inner.message, str(inner.exceptions[0])) == ("inner", "b")


def test_whatever_an_author_does_there_is_a_record():
    assert record_error(Broken()).message == "its __str__ raised RuntimeError"
    assert record_error(Forgetful()) == ErrorRecord("Forgetful", "")
    assert record_error(ValueError("a\0b\udc80")).message == "a\N{SYMBOL FOR NULL}b\\udc80"
    assert len(record_error(ValueError("x" * 10**6)).message) == MESSAGE_LIMIT
    odd = Declined("no", what=object, name="n\udc80")
    assert record_error(odd).data == {"what": "<class 'object'>", "name": "'n\\udc80'"}
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert record_error(Declined("deep", list=deep)).data == {"list": "<list whose repr raised RecursionError>"}


def test_a_name_that_is_no_exception_is_not_called():
    assert type(rebuild_error(ErrorRecord("print", "x"))) is StepFailed
    assert type(rebuild_error(ErrorRecord("SystemExit", "x"))) is StepFailed
    assert type(rebuild_error(ErrorRecord("Declined.__class__", "x"), [globals()])) is StepFailed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=100), st.dictionaries(st.text(), json_values, max_size=3))
def test_message_and_data_cross_unchanged(message, data):
    error = Declined(message)
    error.data = data
    once = crossed(error)
    assert type(once) is Declined
    assert once.data == data
    assert record_error(once) == record_error(error)
