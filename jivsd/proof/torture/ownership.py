"""Who owns which shards, asked in PostgreSQL directly; and a watch there over who writes what.

The watch is a trigger in the database: whatever a node that does not own a run's shard appends to its journal is noted
in the transaction that does it. The engine's fence has that transaction fail, so a note that stays is a hole in it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import trio

from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

EVEN_WITHIN: Final = 30.0
"""Seconds within which the shards are shared evenly once nothing is done to anybody any more."""
LOOK_AGAIN: Final = 0.2
"""Seconds between two looks."""

_WATCH: Final = (
    """CREATE TABLE IF NOT EXISTS {tables}.torture_stale (
    run_id uuid NOT NULL, seq integer NOT NULL, kind text NOT NULL, path text NOT NULL, writer text, owner text)""",
    """CREATE OR REPLACE FUNCTION {tables}.torture_watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {tables}.torture_stale
    SELECT fresh.run_id, fresh.seq, fresh.kind, fresh.path, said.writer, shard.node
    FROM fresh
    JOIN {schema}.run USING (run_id)
    JOIN {schema}.shard ON shard.id = run.shard
    CROSS JOIN (SELECT split_part(current_setting('application_name'), ' of ', 2) AS writer) AS said
    -- any node may start a run; it is parked then, and its owner goes on with it
    WHERE fresh.kind <> 'Started' AND shard.node <> said.writer;
    RETURN NULL;
END $$""",
    """CREATE TRIGGER torture_watch AFTER INSERT ON {schema}.event REFERENCING NEW TABLE AS fresh
FOR EACH STATEMENT EXECUTE FUNCTION {tables}.torture_watch()""",
)


class Ownership:
    """Asks by `ask`, in the schema of the journal; the watch has its things in the schema `tables`."""

    def __init__(self, ask: Callable[..., Awaitable[list[Any]]], schema: str, tables: str) -> None:
        self._ask = ask
        self._schema = schema
        self._tables = tables

    async def watch(self) -> None:
        """Note from now on what is written by whom it is not to be written by."""
        for statement in _WATCH:
            await self._ask(statement.format(schema=self._schema, tables=self._tables))

    async def stale(self) -> list[tuple[str, str, str]]:
        """What was: run, path, and a sentence."""
        noted = f"FROM {self._tables}.torture_stale ORDER BY run_id, seq"
        found = await self._ask(f"SELECT run_id::text, seq, kind, path, writer, owner {noted}")
        return [
            (run_id, path, f"event {seq} ({kind}) was written by {writer} while its shard was {owner or 'nobody'}'s")
            for run_id, seq, kind, path, writer, owner in found
        ]

    async def owners(self) -> dict[int, tuple[str, int]] | None:
        """Node and epoch of each shard; None: PostgreSQL does not answer just now."""
        try:
            return {
                row[0]: (row[1], row[2]) for row in await self._ask(f"SELECT id, node, epoch FROM {self._schema}.shard")
            }
        except StoreError:
            return None

    async def owns(self, node: str) -> bool:
        """Whether a node has a shard, or may have one, as that cannot be asked just now."""
        owners = await self.owners()
        return owners is None or any(owner == node for owner, _ in owners.values())

    async def uneven(self, nodes: Collection[str]) -> list[str]:
        """What is wrong with how these nodes share the shards, once they have had time for it."""
        wrong: list[str] = []
        with trio.move_on_after(EVEN_WITHIN):
            while wrong := self.unevenness(await self.owners(), nodes):  # noqa: ASYNC110 -- in PostgreSQL
                await trio.sleep(LOOK_AGAIN)
        return wrong

    def unevenness(self, owners: dict[int, tuple[str, int]] | None, nodes: Collection[str]) -> list[str]:
        """What is wrong with how these nodes share the shards just now."""
        if owners is None:
            return ["PostgreSQL does not say who owns the shards"]
        counts = Counter(dict.fromkeys(nodes, 0))
        counts.update(owner for owner, _ in owners.values())
        wrong = [f"{counts[owner]} shards are {owner or 'nobody'}'s" for owner in counts if owner not in nodes]
        if not wrong and max(counts.values()) - min(counts.values()) > 1:
            wrong = [f"the shards are shared unevenly: {dict(sorted(counts.items()))}"]
        return wrong
