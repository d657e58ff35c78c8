"""What incidents have in common: the same trouble gets the same fingerprint, whichever run, number or key it names.

The idea is that of error trackers (Sentry's grouping): take out what varies, and hash what is left.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

LENGTH: Final = 12
"""Characters of a fingerprint."""
KEPT: Final = 500
"""Characters of a text that count: beyond that there is mostly data."""

_KEYS: Final = re.compile(r"\[[^\]]*\]|#\d+")
_VARIABLE: Final = (
    (re.compile(r"(?<!\w)(['\"`])(?:(?!\1).)*\1", re.DOTALL), "<value>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s,;<>]+", re.IGNORECASE), "<url>"),
    (re.compile(r"[^\s@<>,;:(]+@[^\s@<>,;:)]+\.\w+"), "<mail>"),
    (re.compile(r"(?<![\w<])(?:~|\.{1,2})?/(?:[^\s,;:'\"()<>]+)"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<n>"),
    (re.compile(r"[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?"), "<n>"),
)


def without_keys(path: str) -> str:
    """A command's path without the keys and counts in it: `load/tables[orders]/copy#2` is `load/tables/copy`."""
    return _KEYS.sub("", path)


def without_variables(text: str) -> str:
    """A text without what varies: quoted values, URLs, addresses, paths, ids and numbers."""
    text = text[:KEPT]
    for pattern, name in _VARIABLE:
        text = pattern.sub(name, text)
    return " ".join(text.split())


def fingerprint(kind: str, workflow: str | None, path: str, error: str) -> str:
    """The fingerprint of an incident: of its kind, workflow, path without keys, and error without what varies."""
    parts = kind, workflow or "", without_keys(path), without_variables(error)
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), digest_size=LENGTH // 2).hexdigest()
