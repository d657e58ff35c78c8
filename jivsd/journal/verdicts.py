"""Waiting for what the journal says of something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.api import Verdict


async def verdict_on(submit: Callable[[Callable[[Verdict], None]], object]) -> Verdict:
    """Wait for the verdict on what is submitted; `submit` gets what has to be told it."""
    verdicts: list[Verdict] = []
    arrived = trio.Event()

    def told(verdict: Verdict) -> None:
        verdicts.append(verdict)
        arrived.set()

    submit(told)
    await arrived.wait()
    return verdicts[0]
