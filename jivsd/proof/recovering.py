"""How soon all is under way again after `kill -9`: a daemon with many runs in flight, each in a step, is killed and
started again.

The steps themselves write down when they begin, in a file beside the journal: so it is known which ran twice.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.client import Client
from jivsd.proof.daemons import BULK, Daemon, DaemonFailed, loaded_daemon, start_runs

if TYPE_CHECKING:
    from pathlib import Path

DONE: Final = 2
"""Steps that each run has behind it when the process is killed."""
LOOK_AGAIN: Final = 0.02
"""Seconds between two looks at what the steps have written down."""
PATIENCE: Final = 120.0
"""Seconds until all steps are under way."""


Step = tuple[str, int]
"""A run and the number of its step."""


class Recovery(msgspec.Struct, frozen=True):
    """Seconds from the start of the process (of Python, that is) until the first run's step, and all of them, are
    under way again. `steps_twice`: how many steps were begun a second time; those in flight were, all of them.
    """

    in_flight: int
    first_step_s: float
    all_running_s: float
    steps_twice: int


class NotRecovered(Exception):
    """Runs were lost, or a step ran again whose outcome was recorded."""


def measure(in_flight: int, *, store: str | None = None) -> Recovery:
    """Kill a daemon with so many runs in flight, and start it again.

    Args:
        in_flight: how many.
        store: the URL of the daemon's store; None: a file that is removed afterwards.

    Raises:
        DaemonFailed: a daemon did not start, or its runs did not get going.
        NotRecovered.
    """
    return trio.run(_measure, in_flight, store)


async def _measure(in_flight: int, store: str | None) -> Recovery:
    room = {f"JIVSD_LIMITS__{limit}": str(in_flight + BULK) for limit in ("ACTIVE_RUNS", "RUNNING_STEPS")}
    async with loaded_daemon(store, room) as daemon:
        notes = _Notes(daemon.data_dir / "notes")
        async with Client.connect(daemon.data_dir, by="bench") as client:
            await start_runs(client, "in-flight", {"notes": str(notes.path), "steps": DONE}, in_flight)
        before = await notes.until_held(daemon, in_flight)
        await daemon.kill()
        began = time.time()
        await daemon.launch()
        after = await notes.until_held(daemon, in_flight)
    return judged(in_flight, began, before, after)


class _Notes:
    """What the steps of one process after the other have written down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    async def until_held(self, daemon: Daemon, runs: int) -> dict[Step, float]:
        """Return when the last steps of so many runs are under way in a process: when each of its steps began.

        Raises:
            DaemonFailed: the process ended, or took too long.
        """
        found: dict[Step, float] = {}
        with trio.move_on_after(PATIENCE):
            while True:
                for line in self._new_lines():
                    moment, process, run_id, number = line.split()
                    if int(process) == daemon.pid:
                        found[run_id, int(number)] = float(moment)
                if sum(number == DONE for _, number in found) == runs:
                    return found
                if not daemon.running:
                    break
                await trio.sleep(LOOK_AGAIN)
        raise DaemonFailed(f"{len(found):,} steps have begun, and then no more: {daemon.last_words()}")

    def _new_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode().splitlines()


def judged(in_flight: int, began: float, before: dict[Step, float], after: dict[Step, float]) -> Recovery:
    """What the steps of two processes say that began at these times; the second process began at `began`.

    Raises:
        NotRecovered.
    """
    again = before.keys() & after.keys()
    if redone := sorted(step for step in again if step[1] != DONE):
        raise NotRecovered(
            f"{len(redone):,} steps ran again that had ended; one is step {redone[0][1]} of run {redone[0][0]}"
        )
    if after.keys() - before.keys():
        raise NotRecovered("runs are under way that nobody has started")
    first, last = min(after.values()), max(after.values())
    return Recovery(in_flight, round(first - began, 3), round(last - began, 3), len(again))


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(measure(int(sys.argv[1]))).decode())
