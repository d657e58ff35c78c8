"""What the fences of all systems have in common: what they refuse, and how they keep a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .errors import Fenced

if TYPE_CHECKING:
    from .model import Chunk, Key


def missing() -> Fenced:
    """The target has no fence."""
    return Fenced("the target has no fence any more: it was finished, or replaced by another database")


def require_epoch(epoch: int, current: int, run: str) -> None:
    """Raises Fenced unless `epoch` is the target's, which is `current` and belongs to `run`."""
    if epoch != current:
        raise Fenced(
            f"run {run} has taken over the target (epoch {current}); this attempt, of epoch {epoch}, wrote nothing",
            epoch=epoch,
            current=current,
        )


def awaits(chunk: Chunk, chunks: int) -> bool:
    """Whether a part with so many chunks awaits this one, or had it last."""
    return chunk.number - 1 <= chunks <= chunk.number


def misplaced(chunk: Chunk, chunks: int | None) -> Fenced:
    """A part with so many chunks does not await this one. None: there is no such part."""
    return Fenced(
        f"table {chunk.table.name!r} is at chunk {chunks} in the target; "
        f"this attempt, at chunk {chunk.number}, wrote nothing"
    )


def write_key(key: Key | None) -> str | None:
    """A key as the fence keeps it."""
    return None if key is None else msgspec.json.encode(key).decode()


def read_key(text: str | None) -> Key | None:
    """The key that the fence has kept."""
    return None if text is None else msgspec.json.decode(text)
