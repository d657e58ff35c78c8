"""Keeps passwords out of what people and log files get to see."""

from __future__ import annotations

import re

HIDDEN = "***"
"""What is shown in place of a secret."""

_QUERY_SECRET = re.compile(r"([?&;][^=&;\s]*(?:pass|pwd|secret|token)[^=&;\s]*=)[^&;\s]+", re.IGNORECASE)
# Greedy up to the last "@": a password that nobody escaped may itself contain "@", "/", "?" or "#".
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/?#@]*:)\S*@", re.IGNORECASE)


def masked(text: str) -> str:
    """Return the text with the passwords of all URLs in it replaced; in doubt it hides too much."""
    if "://" not in text:
        return text
    return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", _QUERY_SECRET.sub(rf"\1{HIDDEN}", text))
