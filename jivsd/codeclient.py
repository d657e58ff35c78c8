"""The client's calls for code that changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from jivsd.admin.code import AdoptBody
from jivsd.admin.wire import NoBody
from jivsd.engine.api import Moves, Reloaded, Which

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE: Final = 600.0
"""Seconds to wait for an answer: plugins are loaded, or a page of runs is compared."""
ALL: Final = Which()

Kind = TypeVar("Kind")


class CodeCalls(ABC):
    """What a client can ask about the code that runs go by."""

    @abstractmethod
    async def _post(
        self,
        path: str,
        kind: type[Kind],
        body: msgspec.Struct,
        *,
        query: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Kind: ...

    @abstractmethod
    def _name(self, text: str, what: str) -> str:
        """A name as one segment of a path."""

    async def reload_plugins(self) -> Reloaded:
        """Load the plugins again, for new runs; says what has become of each."""
        return await self._post("/plugins/reload", Reloaded, NoBody(), patience=PATIENCE)

    async def adopt_code(
        self,
        plugin: str,
        which: Which = ALL,
        *,
        dry_run: bool = False,
        additions: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Moves:
        """Move a page of a plugin's open runs to its newest code, where that does what theirs has done.

        `dry_run` only says what would become of each; `additions` also moves runs for which the new code asks for
        more, as long as all else is the same.
        """
        given = msgspec.structs.asdict(which)
        body = AdoptBody(**given, dry_run=dry_run, additions=additions, limit=limit, cursor=cursor)
        return await self._post(f"/plugins/{self._name(plugin, 'plugin')}/adopt", Moves, body, patience=PATIENCE)
