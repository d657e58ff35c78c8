"""Looking things up: one request after the other, so that the steps of runs have most of the interpreter.

What is looked up is read and made into an answer in Python, in the loop or in a thread beside it, and there is one
interpreter: with two at once the p99 of steps is half as long again under a flood (`jivsd.proof.hostile`). What takes
long does so in the database, and goes on beside the next.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from jivsd.admin.problems import BUSY, Problem

LOOKS: Final = 3
"""How many of a door's requests look things up, at most."""
LONG: Final = 0.25
"""Seconds after which one that goes on keeps the next one waiting no more."""
LOOK_WITHIN: Final = 10.0
"""Seconds that a request waits for its turn."""


class Looks:
    """What the requests of one door share."""

    def __init__(self) -> None:
        self.places = trio.Semaphore(LOOKS)
        self.last: Look | None = None
        """Who has begun last, while that one goes on."""
        self.gone = trio.lowlevel.ParkingLot()


class Look:
    """The right of one request to look things up; it is given back when the request begins to wait for something."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._has_place = False
        self._long_at = math.inf

    async def take(self) -> None:
        """Wait for it. Whatever comes of that, it has to be given back.

        Raises:
            Problem: there was none to be had in time (503).
        """
        with trio.move_on_after(LOOK_WITHIN) as patience:
            await self._looks.places.acquire()
            self._has_place = True
            await self._turn()
        if patience.cancelled_caught:
            detail = "too many requests look things up at once"
            raise Problem(503, "unavailable", detail, headers=BUSY)

    async def _turn(self) -> None:
        """Wait until whoever has begun last has ended, or takes long."""
        looks = self._looks
        while (last := looks.last) is not None and trio.current_time() < last._long_at:
            with trio.move_on_at(last._long_at):
                await looks.gone.park()
        self._long_at = trio.current_time() + LONG
        looks.last = self

    def give_back(self) -> None:
        looks = self._looks
        if looks.last is self:
            looks.last = None
            looks.gone.unpark()
        if self._has_place:
            self._has_place = False
            looks.places.release()
