"""Paths: a command's identity is where it stands in the code, never when it arrived.

`load/tables[orders]/copy#2`: in the nursery `tables` of branch `load`, child `orders`, the second `copy`.
"""

from __future__ import annotations

import re

from jivsd.authoring.errors import InvalidDefinition

_forbidden = re.compile(r"[/\[\]#!:\x00-\x1f]")


def check_name(name: str, what: str) -> str:
    """Return a name that may stand in a path.

    Raises:
        InvalidDefinition: it is empty, longer than 200 characters, or has one of `/ [ ] # ! :` or a control character.
    """
    if not name or len(name) > 200 or _forbidden.search(name):
        raise InvalidDefinition(f"{name!r} cannot be {what}: 1 to 200 characters, none of / [ ] # ! : or control ones")
    return name


def escape_key(key: object) -> str:
    """A child's key as it stands in a path; characters that have a meaning there are percent-encoded."""
    text = str(key)
    return _forbidden.sub(lambda match: f"%{ord(match.group()):02X}", text.replace("%", "%25"))
