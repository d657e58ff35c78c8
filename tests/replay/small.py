"""Small steps and helpers that the tests of the rules share."""

from __future__ import annotations

import msgspec

from jivsd import step, workflow
from jivsd.authoring.errors import Failure
from jivsd.records import Status

SECOND = 1_000_000


class Declined(Failure):
    pass


@step
async def work(n: int = 0) -> int:
    return n


@step
async def other(n: int = 0) -> int:
    return n


@step
async def book(n: int = 0) -> int:
    return n


@book.compensate
async def unbook(result: int | None, n: int) -> None: ...


@step(cancel="wait")
async def patient(n: int = 0) -> int:
    return n


def flow(function):
    return workflow("flow")(function)


def output(machine):
    assert machine.outcome is not None, machine.blocked
    assert machine.outcome.status is Status.COMPLETED, machine.outcome
    return msgspec.json.decode(machine.outcome.output)
