"""One interpreter for the loop and the threads beside it: the one that writes the journal, readers, a driver's loop.

A thread that wants the interpreter asks for it after `SWITCH_INTERVAL`. A loop that does little in each of very many
turns lets go of it in every turn, to ask the system what has arrived, and has it back before the other thread has woken
up, whose patience then begins anew: a commit could take seconds (`jivsd.proof.hostile`, bodies in chunks of one byte).
This is the convoy effect that David Beazley has described (bugs.python.org/issue7946), with the threads' parts changed.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import trio

SWITCH_INTERVAL: Final = 0.001
"""Seconds for which a busy loop may keep the interpreter from another thread within one of its turns."""
EVERY: Final = 0.001
"""Seconds after which a loop that always has something to do lets others have it between two turns."""
NAP: Final = 1e-6
"""Seconds that the loop sleeps then. The system makes that some 60 microseconds: enough for another thread to wake."""


class _Breather(trio.abc.Instrument):
    def __init__(self) -> None:
        self._due = 0.0

    def before_io_wait(self, timeout: float) -> None:
        if not timeout and time.perf_counter() > self._due:
            time.sleep(NAP)
            self._due = time.perf_counter() + EVERY

    def after_io_wait(self, timeout: float) -> None:
        if timeout:
            self._due = time.perf_counter() + EVERY


def share() -> None:
    """Let other threads have the interpreter in good time while the loop that calls this is busy."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    trio.lowlevel.add_instrument(_Breather())
