"""Which shards a node believes to be its own, by what it says in its log: lines of JSON, of the level info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

TAKEN: Final = "shards taken"
LOST: Final = "shards lost"
HANDED_OVER: Final = "shards handed over"
BY_ITSELF: Final = "its lease could not be renewed in time"
"""Why shards are lost, when nobody had to tell it."""


class _Line(msgspec.Struct):
    event: str = ""
    shards: list[int] = []
    why: str = ""


class Belief:
    """What a log says, as far as it has been read."""

    def __init__(self, log: Path) -> None:
        self.held: set[int] = set()
        """The shards that the node believes to be its own."""
        self.let_go: set[int] = set()
        """Those that it has let go of since the last call of `mark`."""
        self.lost_by_itself: set[int] = set()
        """Those of them that it has lost because its own clock said so."""
        self._log = log
        self._read = 0

    def mark(self) -> set[int]:
        """Read what there is; return what is held."""
        self.read()
        self.let_go.clear()
        self.lost_by_itself.clear()
        return set(self.held)

    def read(self) -> None:
        """Read what is new."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is still being written
                self._read += len(line)
                self._take_in(_decoded(line))

    def _take_in(self, line: _Line) -> None:
        if line.event == TAKEN:
            self.held.update(line.shards)
        elif line.event in (LOST, HANDED_OVER):
            self.held.difference_update(line.shards)
            self.let_go.update(line.shards)
            if line.why == BY_ITSELF:
                self.lost_by_itself.update(line.shards)


def _decoded(line: bytes) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:  # Python's own words, of a crash
        return _Line()
