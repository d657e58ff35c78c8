"""The client's calls for code that changes."""

from __future__ import annotations

from typing import Final

import msgspec

from jivsd.admin.code import AdoptBody
from jivsd.admin.wire import NoBody
from jivsd.asking import Calls
from jivsd.engine.api import Moves, Reloaded, Which

PATIENCE: Final = 600.0
"""Seconds to wait for an answer: plugins are loaded, or a page of runs is compared."""
ALL: Final = Which()


class CodeCalls(Calls):
    """What a client can ask about the code that runs go by."""

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
