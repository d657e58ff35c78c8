"""A connection behind a pooler that may give every transaction another session (pgbouncer in transaction mode).

The driver prepares a statement and runs it in two messages, between which the pooler may change sessions, unless they
are in one transaction; and a setting lasts no longer than one. So every statement gets a transaction, and every
transaction begins with our settings.
"""

from __future__ import annotations

import re
import shlex
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from jivsd.store.postgres.connections import Connection


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class Pooled:
    """Keeps the protocol `Connection`."""

    def __init__(self, connection: Connection, settings: Mapping[str, str]) -> None:
        """Wrap a connection.

        Args:
            connection: the driver's, which keeps no prepared statements.
            settings: of the server, for each transaction.
        """
        self._connection = connection
        setting = [f"set_config({_literal(name)}, {_literal(text)}, true)" for name, text in expanded(settings).items()]
        self._settings = "SELECT " + ", ".join(setting)

    async def execute(self, query: str, *args: Any) -> str:
        if query.startswith("BEGIN"):
            return await self._connection.execute(f"{query}; {self._settings}")
        if not args and self.is_in_transaction():
            return await self._connection.execute(query)
        return await self._alone(lambda: self._connection.execute(query, *args))

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        return await self._alone(lambda: self._connection.fetch(query, *args))

    async def fetchrow(self, query: str, *args: Any) -> Any:
        return await self._alone(lambda: self._connection.fetchrow(query, *args))

    async def fetchval(self, query: str, *args: Any) -> Any:
        return await self._alone(lambda: self._connection.fetchval(query, *args))

    @asynccontextmanager
    async def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> AsyncGenerator[None]:
        outermost = not self.is_in_transaction()
        async with self._connection.transaction(isolation=isolation, readonly=readonly):
            if outermost:
                await self._connection.execute(self._settings)
            yield

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    def is_in_transaction(self) -> bool:
        return self._connection.is_in_transaction()

    def get_server_pid(self) -> int:
        """The process that the pooler has named; it is not the one that works."""
        return self._connection.get_server_pid()

    def terminate(self) -> None:
        self._connection.terminate()

    async def _alone(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask in a transaction: the present one, or one for this alone."""
        if self.is_in_transaction():
            return await ask()
        await self._connection.execute(f"BEGIN; {self._settings}")
        try:
            answer = await ask()
        except Exception:
            if not self.is_closed():
                await self._connection.execute("ROLLBACK")
            raise
        await self._connection.execute("COMMIT")
        return answer


def expanded(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings with those spelled out that are given as a command line: `options=-c name=value`."""
    found = {name: text for name, text in settings.items() if name != "options"}
    line = re.sub(r"(^|\s)-c\s*", " --", settings.get("options", ""))
    for word in shlex.split(line):
        name, equals, text = word.removeprefix("--").partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise StoreError("options in the URL of the store: write them as -c name=value")
        found.setdefault(name.replace("-", "_"), text)
    return found


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
