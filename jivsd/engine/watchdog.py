"""The watchdog: a thread that sees when the event loop no longer turns, and says whose code holds it up.

It counts its own ticks, not the clock: a process that was stopped (SIGSTOP, a sleeping laptop) has done nothing wrong.
Code that does not even let go of the interpreter (a regular expression without end) stops this thread too: then the
CPU time that the process has used up since the last beat makes the kernel end it, and `faulthandler` says where.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd import logs
from jivsd.engine.blame import blame, frame_of
from jivsd.engine.lastwords import BROKEN, end_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.engine.blame import Blame
    from jivsd.engine.lastwords import LastWords

log = logs.get(__name__)

BEAT: Final = 1.0
"""Seconds between two beats, at most."""
BEYOND: Final = 2.0
"""How much more CPU time than the limit code may use that does not let go of the interpreter."""


class Watchdog:
    """Watches the loop that calls `run`.

    Args:
        warning: seconds without a turn of the loop after which the log says whose code it is.
        limit: seconds after which the process ends, if it is a run's.
        words: where that is said for the next process.
    """

    def __init__(self, warning: float, limit: float, words: LastWords) -> None:
        self._warning = warning
        self._limit = limit
        self._words = words
        self._tick = min(warning, limit, 4 * BEAT) / 4
        self._beats = 0
        self._done = threading.Event()
        self._end: Callable[[int], Any] = end_process

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat until cancelled."""
        watched = threading.get_ident()
        thread = threading.Thread(target=self._watch, args=(watched,), name="jivsd-watchdog", daemon=True)
        thread.start()
        faulthandler.register(signal.SIGVTALRM, self._words.stack_file, all_threads=True, chain=True)
        try:
            task_status.started()
            while True:
                self._beats += 1
                signal.setitimer(signal.ITIMER_VIRTUAL, self._limit * BEYOND + BEAT)
                await trio.sleep(min(BEAT, self._tick))
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            faulthandler.unregister(signal.SIGVTALRM)
            self._done.set()

    def _watch(self, watched: int) -> None:
        seen, silent = -1, 0.0
        found: set[str] = set()
        while not self._done.wait(self._tick):
            if seen != self._beats:
                seen, silent = self._beats, 0.0
                found.clear()
                continue
            silent += self._tick
            if silent < min(self._warning, self._limit):
                continue
            whose = blame(frame_of(watched))
            if not found:
                _say("code holds up the event loop", whose, silent)
            found.add(whose.run_id if whose.where else "")
            if silent >= self._limit:
                self._give_up(whose, found, silent)

    def _give_up(self, whose: Blame, found: set[str], silent: float) -> None:
        """End the process, if it was one run's code all the time: else the next process would do no better."""
        if whose.run_id and found == {whose.run_id}:
            self._words.say(f"stopped the loop for {silent:g} s", whose)
            log.critical("the process ends; the run will be held by an incident", run_id=whose.run_id, at=whose.where)
            self._end(BROKEN)


def _say(what: str, whose: Blame, seconds: float) -> None:
    log.error(what, run_id=whose.run_id, path=whose.path, at=whose.where, seconds=round(seconds, 1))
