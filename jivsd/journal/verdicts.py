"""Waiting for what the journal says of something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.store.api import Verdict


async def verdict_on(submit: Callable[[Callable[[Verdict], None]], object]) -> Verdict:
    """Wait for the verdict on what is submitted; `submit` gets what has to be told it."""
    awaited = _Awaited()
    submit(awaited.tell)
    await awaited.wait()
    return awaited.verdict


class _Awaited(Bell):
    __slots__ = ("verdict",)
    verdict: Verdict

    def tell(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.set()
