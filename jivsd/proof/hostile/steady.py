"""The work that goes on meanwhile, and how long its steps take: what they have written down themselves.

A step is done when the next one begins: its outcome is then durable, and the run has gone on. That is measured by the
clock, and by what the daemon's loop worked meanwhile: this is the same however much else the machine has to do. After
the last step of a run another run begins: an end and a start, four writes instead of one, which are counted apart.
"""

from __future__ import annotations

from statistics import quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from jivsd.proof.load import STEADY

if TYPE_CHECKING:
    from pathlib import Path

    from jivsd.client import Client

PAUSE: Final = 0.5
"""Seconds that a step waits, on average; not counted."""


class Latency(msgspec.Struct, frozen=True):
    """How long steps took, in milliseconds, and how many there were."""

    steps: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    loop_p99_ms: float
    """The p99 of what the loop worked from the end of a step to the next."""


class Took(NamedTuple):
    """Milliseconds of a step, by the clock and by what the loop worked. `last`: it was the last one of its run."""

    clock: float
    loop: float
    last: bool


class Steady:
    """So many workflows with steps that never end, in runs of some."""

    def __init__(self, notes: Path, runs: int) -> None:
        self._notes = notes
        self._read = 0
        self._last: dict[str, _Beat] = {str(number): _Beat(-1, 0.0, 0.0, 0.0, 0.0, 0.0) for number in range(runs)}

    async def start(self, client: Client) -> None:
        for name in self._last:
            given = {"name": name, "first": 0, "notes": str(self._notes), "pause": PAUSE}
            await client.start("steady", given, id=name)

    def look(self) -> list[Took]:
        """How long steps took, of those that have ended since the last look."""
        with self._notes.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        took: list[Took] = []
        for line in whole.decode().splitlines():
            name, number, *times = line.split()
            before, beat = self._last[name], _Beat(int(number), *map(float, times))
            if beat.number == before.number + 1 and before.number >= 0:
                clock, loop = beat.began - before.began - before.wanted, beat.worked_began - before.worked_ended
                took.append(Took(clock * 1000, loop * 1000, beat.number % STEADY == 0))
            self._last[name] = beat
        return took

    def behind(self, now: float, seconds: float) -> list[str]:
        """Those of which nothing has been heard for so long."""
        return [name for name, beat in self._last.items() if now - beat.ended > seconds]


class _Beat(NamedTuple):
    number: int
    wanted: float
    began: float
    worked_began: float
    ended: float
    worked_ended: float


def latency(took: list[Took], *, last: bool = False) -> Latency:
    """How long steps took: those that are followed by another in their run, or the `last` ones."""
    took = [one for one in took if one.last == last]
    if len(took) < 2:
        return Latency(len(took), 0.0, 0.0, 0.0, 0.0)
    clock, loop = quantiles([one.clock for one in took], n=100), quantiles([one.loop for one in took], n=100)
    worst = max(one.clock for one in took)
    return Latency(len(took), round(clock[49], 1), round(clock[98], 1), round(worst, 1), round(loop[98], 1))
