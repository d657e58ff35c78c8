"""Attributes of runs: a few names and plain values by which people find them again."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | int | float | bool

MAX_ATTRIBUTES: Final = 32
MAX_TEXT: Final = 512
"""Characters of a value."""

_NAME: Final = re.compile(r"[\w.:/-]{1,100}")
_LARGEST: Final = 2**63


def checked(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """Attributes as they may be kept.

    Raises:
        ValueError: a name or value is not one of an attribute, or there are too many; says which, and what would be.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"a run has at most {MAX_ATTRIBUTES} attributes, not {len(attributes)}")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"attribute {name[:40]!r}: a name is 1 to 100 letters, digits and any of _ . : / -")
        if not _is_value(value):
            raise ValueError(
                f"attribute {name!r}: a value is a text of up to {MAX_TEXT} characters, a number or a truth value, "
                f"not {repr(value)[:40]}"
            )
    return dict(attributes)


def merged(present: Mapping[str, Value], changes: Mapping[str, Value | None]) -> dict[str, Value]:
    """What the attributes are after a change: None takes one away."""
    after = {**present, **changes}
    return {name: value for name, value in after.items() if value is not None}


def text(value: Value) -> str:
    """How a value is written where it is looked for: a text as it is, anything else as in JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse(given: str) -> tuple[str, str]:
    """Name and value of `name=value`.

    Raises:
        ValueError: it is not of that form.
    """
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise ValueError(f"{given!r} is not of the form NAME=VALUE")
    return name, value


def _is_value(value: Any) -> bool:
    match value:
        case str():
            return len(value) <= MAX_TEXT and "\0" not in value
        case bool():
            return True
        case int():
            return -_LARGEST <= value < _LARGEST
        case float():
            return math.isfinite(value)
        case _:
            return False
