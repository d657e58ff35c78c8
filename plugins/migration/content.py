"""The content of a table as one number that does not depend on the order of its rows.

Each row is encoded as a MessagePack array and hashed with BLAKE2b (128 bits); the content is the sum of the rows'
hashes modulo 2**128, beside their count. Sums of stretches add up to the sum of the whole, so that a table is hashed
chunk by chunk, and two systems may read it in different orders. (The idea: Bellare and Micciancio, "A New Paradigm
for Collision-Free Hashing: Incrementality at Reduced Cost", 1997.) It finds accidents, not forgeries.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from .keys import RawText

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_modulus = 1 << 128
_raw_text = 1
"""MessagePack extension type of a text that is not valid UTF-8."""


def _extension(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, RawText):
        return msgspec.msgpack.Ext(_raw_text, value.data)
    raise TypeError(f"a database returned a {type(value).__name__}, which has no place in a content hash")


_encode = msgspec.msgpack.Encoder(enc_hook=_extension).encode


def size_of(rows: list[tuple[Any, ...]]) -> int:
    """The bytes of at most 65,535 rows: of their encodings, without the list's own header."""
    return len(_encode(rows)) - (1 if len(rows) < 16 else 3)


def content_of(rows: Iterable[Sequence[Any]]) -> int:
    """The sum of the rows' hashes."""
    total = 0
    for row in rows:
        total += int.from_bytes(blake2b(_encode(row), digest_size=16).digest())
    return total % _modulus


def add(left: int, right: int) -> int:
    """The content of two stretches together."""
    return (left + right) % _modulus


def shown(content: int) -> str:
    """As 32 hexadecimal digits."""
    return f"{content:032x}"


@dataclass(frozen=True, slots=True)
class Content:
    """What a table holds: how many rows, of how many bytes, and their sum as 32 hexadecimal digits."""

    rows: int = 0
    bytes: int = 0
    sum: str = shown(0)

    def with_more(self, rows: int, size: int, sum: str) -> Content:
        """Together with a further stretch."""
        return Content(self.rows + rows, self.bytes + size, shown(add(int(self.sum, 16), int(sum, 16))))

    def difference(self, target: Content) -> str | None:
        """How a target's content differs from this; None: it does not."""
        if self.rows != target.rows:
            return f"has {self.rows:,} rows in the source and {target.rows:,} in the target{_suspicion}"
        if self.sum != target.sum:
            return f"has other values in the source than in the target{_suspicion}"
        return None


_suspicion = "; was the source changed while it was migrated?"
