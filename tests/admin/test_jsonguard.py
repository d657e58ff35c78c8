"""What the guard lets pass, everything behind it can hold; what it refuses, it explains in one sentence."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivsd.jsonguard import MAX_BYTES, MAX_DEPTH, BadJson, check

REFUSED = [
    (b"", "malformed", "not JSON: it is empty"),
    (b" \n ", "malformed", "not JSON: it is empty"),
    (b'{"a": 1,\n "b": }', "malformed", "not JSON: expecting value, in line 2, column 7"),
    (b'{"a" 1}', "malformed", "not JSON: expecting ':' delimiter, in line 1, column 6"),
    (b"[1] 2", "malformed", "not JSON: extra data, in line 1, column 5"),
    (b'"open', "malformed", "not JSON: unterminated string, in line 1, column 1"),
    (b'"a\nb"', "malformed", "not JSON: invalid control character, in line 1, column 3"),
    (b'"a\0b"', "malformed", "not JSON: invalid control character, in line 1, column 3"),
    (b"[NaN]", "malformed", "not JSON: it contains NaN, which is not a JSON number"),
    (b"-Infinity", "malformed", "not JSON: it contains -Infinity, which is not a JSON number"),
    (b"]" * 200 + b"[" * 200, "malformed", "not JSON: expecting value, in line 1, column 1"),
    (b'\n{"name": "J\xf6rg"}', "encoding", "not UTF-8: byte 0xf6 in line 2 is out of place"),
    (b"[" * 60_000, "too_deep", "nested too deeply: 60,000 levels, at most 64 are accepted"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep", "nested too deeply: 65 levels, at most 64 are accepted"),
    (b"1" * 4000, "number", "the number 11111111111111111111… (4,000 characters) is too large: integers"),
    (
        b"18446744073709551616",
        "number",
        "the number 18446744073709551616 is too large: integers may have at most 64 bits",
    ),
    (b"-9223372036854775809", "number", "the number -9223372036854775809 is too large"),
    (b"1e400", "number", "the number 1e400 is too large: it must fit a double"),
    (b"0." + b"1" * 4000, "number", "(4,002 characters) is too large"),
    (rb'{"a": "x\u0000y"}', "nul", "a text contains the character NUL"),
    (rb'{"\u0000": 1}', "nul", "a text contains the character NUL"),
    (rb'"\ud800"', "surrogate", r"a text contains \ud800, which is half of a surrogate pair"),
    (rb'"\ud83d\u0041"', "surrogate", r"a text contains \ud83d"),
    (rb'"\uDE00\uD83D"', "surrogate", r"a text contains \uDE00"),
    (rb'"\\\ud800"', "surrogate", r"a text contains \ud800"),
    (b'{"a": {"b": 1, "c": 2, "b": 3}}', "duplicate_key", "the key 'b' appears twice in one object"),
    (b'{"a": 1, "\\u0061": 2}', "duplicate_key", "the key 'a' appears twice in one object"),
    (b'"' + b"x" * MAX_BYTES + b'"', "too_large", "too large: 1,048,578 bytes, at most 1,048,576 are accepted"),
]

ACCEPTED = [
    b"null",
    b' {"a": [1, 2.5, -3e-7, true, "x"], "b": {}} ',
    b"18446744073709551615",
    b"-9223372036854775808",
    b"[" * 64 + b"]" * 64,
    b'{"text": "' + b"[{" * 1000 + b'", "quoted": "\\"' + b"[" * 1000 + b'"}',
    rb'"\ud83d\ude00 \\u0000 \\ud800 \u0041\ud83d\ude00 \\\ud83d\ude00"',
    "\N{GRINNING FACE}".join('""').encode(),
    b"1e-400",
]


@pytest.mark.parametrize(("data", "code", "message"), REFUSED, ids=[f"{case[1]}-{i}" for i, case in enumerate(REFUSED)])
def test_refuses(data, code, message):
    with pytest.raises(BadJson) as caught:
        check(data)
    assert caught.value.code == code
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("data", ACCEPTED)
def test_accepts(data):
    check(data)
    msgspec.json.decode(data)


def test_limits_are_the_callers():
    check(b"[[1]]", max_bytes=5, max_depth=2)
    with pytest.raises(BadJson, match="at most 4"):
        check(b"[[1]]", max_bytes=4)
    with pytest.raises(BadJson, match="2 levels, at most 1 "):
        check(b"[[1]]", max_depth=1)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_passes_every_good_value(value, escaped):
    check(json.dumps(value, ensure_ascii=escaped).encode())


pieces = st.sampled_from(
    [
        *(b"%c" % byte for byte in b'[]{},:"\\1-0'),
        b"\\u00",
        b"\\ud83d",
        b"\\ude00",
        b"e9",
        b"null",
        b" ",
        b"\n",
        b'"a"',
        b"\xff",
    ]
)


@given(st.lists(pieces, max_size=30).map(b"".join) | st.binary(max_size=40))
def test_what_passes_is_decoded_and_encoded_again(data):
    try:
        check(data)
    except BadJson:
        return
    value = msgspec.json.decode(data)
    check(msgspec.json.encode(value))
    assert "\0" not in json.dumps(value, ensure_ascii=False)


@given(st.lists(st.sampled_from(["[", '{"k":']), max_size=90))
def test_counts_the_depth(opening):
    data = "".join(opening) + "1" + "".join("]" if mark == "[" else "}" for mark in reversed(opening))
    if len(opening) > MAX_DEPTH:
        with pytest.raises(BadJson, match=f"{len(opening)} levels"):
            check(data.encode())
    else:
        check(data.encode())


@pytest.mark.parametrize(
    "unit", [b"[", b"[],", b'"",', b'\\"', b"\\", b'"', b"\\u0041", b"1", b"1,", b'{"a":1},', b"{", b'{"":'], ids=repr
)
@pytest.mark.parametrize("head", [b"", b'"', b"[" * 70, b"[" * 70 + b'"'], ids=["bare", "in-text", "deep", "deep-text"])
def test_takes_linear_time(head, unit):
    def once(data):
        start = time.thread_time()
        with pytest.raises(BadJson):
            check(data)
        return time.thread_time() - start

    def seconds(size):
        data = head + unit * ((size - len(head)) // len(unit))
        return min(once(data) for _ in range(3))  # what else the machine does only adds to it

    assert seconds(MAX_BYTES) < 0.1 + 40 * max(seconds(MAX_BYTES // 16), 0.001)
