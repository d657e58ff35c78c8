"""Replays journals in a process of its own: `python -m replay.elsewhere FILE` prints what each asked for, digested."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import msgspec

from jivsd.records import Event
from replay.programs import Program
from replay.world import Incarnation


def digest(journal: list[Event]) -> int:
    incarnation = Incarnation(Program, journal)
    for event in journal:
        incarnation.deliver(event)
    incarnation.machine.freeze()
    return zlib.crc32(repr((incarnation.trace, incarnation.turns)).encode())


if __name__ == "__main__":
    journals = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[list[Event]])
    sys.stdout.write(msgspec.json.encode([digest(journal) for journal in journals]).decode())
