"""Replays journals in a process of its own: `python -m replay.elsewhere FILE` prints what each asked for, digested."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import msgspec
import trio

from jivsd.records import Event
from replay.programs import Program
from replay.world import Incarnation


def digest(journal: list[Event]) -> int:
    incarnation = Incarnation(Program, journal)
    for event in journal:
        incarnation.deliver(event)
    incarnation.machine.freeze()
    return zlib.crc32(repr((incarnation.trace, incarnation.turns)).encode())


async def main(journals: list[list[Event]]) -> None:
    """Under trio, which has ways of its own with async generators."""
    digests: list[int] = []
    for journal in journals:
        digests.append(digest(journal))
        await trio.lowlevel.checkpoint()
    sys.stdout.write(msgspec.json.encode(digests).decode())


if __name__ == "__main__":
    trio.run(main, msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[list[Event]]))
