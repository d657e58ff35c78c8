"""Refuses JSON from outside that would hurt further in, and says in one sentence what is wrong with it.

msgspec is fast because it is trusting: it recurses as deep as the input does, and takes integers of 4,000 digits, NUL
and the same key twice (PostgreSQL and other readers do not). So what comes through a door is checked here once, before
msgspec sees it, in linear time: regular expressions that never go back over a character, and the standard library's
scanner, which never sees more nesting than was counted first.
"""

from __future__ import annotations

import json
import re
from array import array
from itertools import accumulate
from typing import Any, Final, NoReturn

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1
_NUMBER_CHARACTERS: Final = 400
"""No double needs more than 325 digits to be written out in full."""

# An unclosed string counts as one to the end of the data: trying again at its inner quotes would take quadratic time.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair: one character
    r"|\\u(?P<bad>0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\.",
    re.DOTALL,
)
_SUSPECT_ESCAPES: Final = ("\\u0000", "\\ud", "\\uD")
_SUSPECT_NUMBERS: Final = (b"0" * 19, b"0e000")
_ONE_DIGIT: Final = bytes.maketrans(b"123456789E", b"000000000e")
"""What has none of these, all digits taken for 0 and signs left out, needs no look at single escapes and numbers."""
_STEPS: Final = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else byte for byte in range(256))
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class BadJson(ValueError):
    """JSON that is not accepted; the message is one sentence.

    `code` is one of: too_large, encoding, malformed, too_deep, number, nul, surrogate, duplicate_key.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> None:
    """Return if `data` is one JSON value that every part of jivsd can hold.

    Integers must fit 64 bits (signed or unsigned), other numbers a double; no key may appear twice in an object, no
    text contain NUL or half of a surrogate pair.

    Raises:
        BadJson: it is not; the message says why, and where if it is not JSON at all.
    """
    if len(data) > max_bytes:
        raise BadJson("too_large", f"too large: {len(data):,} bytes, at most {max_bytes:,} are accepted")
    text = _decoded(data)
    if (depth := _depth(data, enough=max_depth)) > max_depth:
        raise BadJson("too_deep", f"nested too deeply: {depth:,} levels, at most {max_depth} are accepted")
    try:
        (_careful if _has_suspect_numbers(data) else _quick).decode(text)
    except json.JSONDecodeError as error:
        raise BadJson("malformed", _explained(text, error)) from None
    if any(suspect in text for suspect in _SUSPECT_ESCAPES):
        _check_escapes(text)


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadJson("encoding", f"not UTF-8: byte 0x{data[error.start]:02x} in line {line} is out of place") from None


def _has_suspect_numbers(data: bytes) -> bool:
    """Whether some of what may be numbers could be too large for 64 bits or a double."""
    plain = data.translate(_ONE_DIGIT, b"+-")
    return any(suspect in plain for suspect in _SUSPECT_NUMBERS)


def _depth(data: bytes, *, enough: int) -> int:
    """How deep arrays and objects are nested, up to the first closing bracket that closes nothing.

    The scanner stops there too. Zero if there are not even `enough` brackets.
    """
    if data.count(b"[") + data.count(b"{") <= enough:
        return 0
    brackets = _STRING.sub(b"", data).translate(_STEPS, _NOT_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


def _explained(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "not JSON: it is empty"
    problem = error.msg[0].lower() + error.msg[1:]
    problem = problem.removesuffix(" at").removesuffix(" starting")
    return f"not JSON: {problem}, in line {error.lineno}, column {error.colno}"


def _check_escapes(text: str) -> None:
    for match in _ESCAPE.finditer(text):
        bad = match["bad"]
        if bad == "0000":
            raise BadJson("nul", "a text contains the character NUL (\\u0000), which databases cannot hold")
        if bad:
            raise BadJson("surrogate", f"a text contains \\u{bad}, which is half of a surrogate pair")


def _integer(digits: str) -> int:
    if len(digits) <= len(str(_SMALLEST)) and _SMALLEST <= (value := int(digits)) <= _LARGEST:
        return value
    raise _too_large(digits, "integers may have at most 64 bits")


def _fraction(digits: str) -> float:
    if len(digits) <= _NUMBER_CHARACTERS and abs(value := float(digits)) != float("inf"):
        return value
    raise _too_large(digits, "it must fit a double")


def _constant(name: str) -> NoReturn:
    raise BadJson("malformed", f"not JSON: it contains {name}, which is not a JSON number")


def _too_large(digits: str, why: str) -> BadJson:
    shown = digits if len(digits) <= 30 else f"{digits[:20]}… ({len(digits):,} characters)"
    return BadJson("number", f"the number {shown} is too large: {why}")


def _object(pairs: list[tuple[str, Any]]) -> None:
    """Keep nothing: the values are not wanted, only that the keys differ."""
    if len(pairs) < 2 or len({key for key, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            shown = key if len(key) <= 60 else f"{key[:60]}…"
            raise BadJson("duplicate_key", f"the key {shown!r} appears twice in one object")
        seen.add(key)


_quick: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_careful: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
