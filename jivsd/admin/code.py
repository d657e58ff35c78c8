"""What is sent about code that changes: which runs to move."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from jivsd.admin.wire import MAX_PAGE
from jivsd.engine.api import Which


class AdoptBody(Which, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which open runs to move to the newest code of their plugin; one page of them."""

    dry_run: bool = False
    additions: bool = False
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None

    def which(self) -> Which:
        return Which(**{name: getattr(self, name) for name in Which.__struct_fields__})
