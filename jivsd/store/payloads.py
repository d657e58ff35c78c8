"""Large payloads: from which size on they lie in a table of their own, and under which name."""

from __future__ import annotations

import hashlib
from typing import Final

INLINE_BYTES: Final = 64 * 1024
"""Payloads over this lie in a table of their own, so that the journal's rows stay small."""


def payload_hash(payload: bytes) -> str:
    """Under which name a large payload is kept: BLAKE2b, 256 bits."""
    return hashlib.blake2b(payload, digest_size=32).hexdigest()
