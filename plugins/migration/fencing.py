"""What the fences of all systems have in common: what they refuse, and how they keep a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .errors import Fenced, Finished, Unavailable

if TYPE_CHECKING:
    from .model import Chunk, Key, Right


def missing() -> Finished:
    """The target has no fence."""
    return Finished("the target has no fence any more: it was finished, or replaced by another database")


def require(right: Right, epoch: int, run: str, fence: int) -> None:
    """See whether an attempt may write.

    Args:
        right: what it has.
        epoch: of the target's last claim.
        run: whose that claim is.
        fence: the highest that the target has seen under that epoch.

    Raises:
        Fenced: another run has claimed the target since.
        Unavailable: the run has gone on at another node since. Here it will not; if this is still the run's node,
            which was in doubt of that for a moment, the next attempt has a higher fence.
    """
    if right.epoch != epoch:
        raise Fenced(
            f"run {run} has taken over the target (epoch {epoch}); this attempt, of epoch {right.epoch}, wrote nothing",
            epoch=right.epoch,
            current=epoch,
        )
    if right.fence < fence:
        raise Unavailable(
            f"the run has gone on elsewhere (fence {fence}); this attempt, of fence {right.fence}, wrote nothing"
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
