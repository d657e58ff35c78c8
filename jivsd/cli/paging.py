"""Reads as many items of a list as were asked for, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from jivsd.admin.wire import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
C = TypeVar("C")
T_co = TypeVar("T_co", covariant=True)
C_co = TypeVar("C_co", covariant=True)


class Page(Protocol[T_co, C_co]):
    """What the daemon answers: some items, and where the following ones begin."""

    @property
    def items(self) -> Sequence[T_co]: ...

    @property
    def next(self) -> C_co | None: ...


async def collect(
    fetch: Callable[[int, C | None], Awaitable[Page[T, C]]], limit: int, cursor: C | None
) -> tuple[list[T], C | None]:
    """Return up to `limit` items from `cursor` on, and where the rest begins; `fetch` gets a limit and a cursor."""
    page = await fetch(min(limit, MAX_PAGE), cursor)
    items = list(page.items)
    while page.next is not None and len(items) < limit:
        page = await fetch(min(limit - len(items), MAX_PAGE), page.next)
        items += page.items
    return items, page.next
