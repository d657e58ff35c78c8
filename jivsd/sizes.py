"""How large one value in the journal may be.

A store takes a batch in the seconds that a commit may last, or counts as away and is given the same batch again: what
can never be written in that time must not get there.
"""

from __future__ import annotations

from typing import Final

LARGEST: Final = 64 << 20
"""Bytes of JSON that an input, a result, an output or a message may have."""


def too_large(what: str, size: int) -> str:
    """What to say of one that has more."""
    return f"{what} has {size:,} bytes, of at most {LARGEST:,}: keep it elsewhere, and pass on where it is"
