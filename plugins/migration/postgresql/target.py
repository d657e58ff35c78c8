"""A PostgreSQL database that is written: claimed, loaded by COPY under its fence, completed, released."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from ..catalogue import TargetState
from ..errors import Finished, MigrationError
from ..model import Copied
from . import fence
from .catalogue import read_catalogue
from .connect import quoted, within
from .source import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..model import Chunk, Claim, Claimant, Definition, Job, Part, Right, Table
    from ..request import Endpoint
    from ..rows import Row, Rows

_unknown_bytes = 1 << 62
"""Free bytes: a server does not tell."""
_needs_other = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
)
_escaped = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class PostgresTarget(PostgresDatabase):
    """The schema that rows are moved to."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, "target")

    def examine(self) -> TargetState:
        """Look without changing anything."""

        async def work(session: Any) -> TargetState:
            state = await session.fetchrow(
                "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS sealed,"
                " has_schema_privilege(current_schema(), 'CREATE') AS writable, current_schema()::text AS schema"
            )
            problems: list[str] = []
            if state["sealed"]:
                problems.append(f"the target {self.endpoint.shown} is read-only, or a replica")
            if not state["writable"]:
                problems.append(f"the target's user may make nothing in the schema {state['schema']!r}")
            held = await fence.job_of(session) if await fence.exists(session) else None
            return TargetState(await read_catalogue(session), _unknown_bytes, problems, held)

        return within(self.endpoint, self.role, work)

    def claim(
        self,
        job: Job,
        claimant: Claimant,
        parts: Sequence[Part],
        definitions: Sequence[Definition],
        settings: dict[str, int | str],
    ) -> Claim:
        """Make the tables and the fence, or take over the fence of an unfinished run of the same job.

        Raises:
            MigrationError: the target is no longer as it was planned for.
        """

        async def work(session: Any) -> Claim:
            await fence.alone(session)
            if await fence.exists(session):
                fingerprint, owner = await fence.job_of(session)
                if fingerprint != job.fingerprint:
                    text = f"the target {self.endpoint.shown} holds another unfinished migration, of run {owner}"
                    raise MigrationError(text)
            else:
                if (await read_catalogue(session)).definitions:
                    raise MigrationError(f"the target {self.endpoint.shown} is not empty any more")
                await session.execute("SET LOCAL check_function_bodies = off")
                for definition in definitions:
                    await session.execute(definition.sql)
                await fence.make(session, job.fingerprint, claimant, parts)
            return await fence.claim(session, claimant)

        return self._write(work, " while making its tables", f" claim, fence {claimant.fence}")

    def load(self, job: Job, right: Right, chunk: Chunk, rows: Rows) -> Copied:
        """Commit a chunk and its watermark together, or find that it was committed before.

        Raises:
            Fenced: the target belongs to another run by now; nothing was written.
        """

        async def work(session: Any) -> Copied:
            earlier = await fence.committed(session, right, chunk)
            if earlier is not None:
                return earlier
            if rows.values:
                await session.copy_to_table(
                    chunk.table.name,
                    source=io.BytesIO(_copied(rows.values)),
                    columns=chunk.table.columns,
                    format="text",
                )
            copied = Copied(len(rows.values), rows.bytes, rows.after, rows.done)
            await fence.advance(session, chunk, copied)
            return copied

        return self._hold(right, work, f" while loading table {chunk.table.name!r}")

    def build(self, right: Right, definitions: Sequence[Definition]) -> None:
        """Make indexes, constraints, views or triggers that are not there yet."""

        async def work(session: Any) -> None:
            await fence.require(session, right)
            await _make(session, definitions)

        self._hold(right, work, _making(definitions))

    def build_working(self, right: Right, definitions: Sequence[Definition]) -> list[tuple[str, str]]:
        """Make references, views and triggers, but none that needs what the target does not have.

        Returns:
            Kind and name of those that were left out.
        """

        async def work(session: Any) -> list[tuple[str, str]]:
            await fence.require(session, right)
            broken: list[tuple[str, str]] = []
            for it in definitions:
                try:
                    async with session.transaction():
                        await _make(session, [it])
                except _needs_other:
                    broken.append((it.kind, it.name))
            return broken

        return self._hold(right, work, _making(definitions))

    def set_sequences(self, job: Job, right: Right, sequences: dict[str, int]) -> None:
        """They go on where the source's stand when all is done: see `finish`."""

    def content_of_keys(self, table: Table, rows: Rows) -> tuple[int, int]:
        """For UPSERT, which PostgreSQL as a target does not have."""
        raise MigrationError("strategy UPSERT is not there for a PostgreSQL target")

    def finish(self, job: Job, right: Right, settings: dict[str, int | str], analyse: bool) -> None:
        """Let sequences go on where the source's stand and remove the fence; nothing of the migration is left then."""

        async def work(session: Any) -> None:
            await fence.require(session, right)
            for name, position in settings.items():
                last, called = str(position).split(",")
                if await session.fetchval("SELECT to_regclass($1)", quoted(name)) is not None:
                    sql = "SELECT setval($1::text::regclass, $2, $3)"
                    await session.execute(sql, quoted(name), int(last), called == "true")
            tables = [quoted(it.name) for it in (await read_catalogue(session)).tables.values()]
            await fence.drop(session)
            await session.execute(f"ANALYZE {', '.join(tables)}")

        with suppress(Finished):  # an earlier attempt has done it
            self._hold(right, work, " while finishing it")

    def _hold(self, right: Right, work: Callable[[Any], Awaitable[Any]], doing: str) -> Any:
        """Do work by a right, which shuts out the owners before."""
        by = f" epoch {right.epoch}, fence {right.fence}"
        try:
            return self._write(work, doing, by)
        except fence.Behind:
            self._write(lambda session: fence.take(session, right), doing, by)
            return self._write(work, doing, by)

    def _write(self, work: Callable[[Any], Awaitable[Any]], doing: str, by: str) -> Any:
        return within(self.endpoint, self.role, work, writes=True, doing=doing, by=by)


def _copied(rows: list[Row]) -> bytes:
    """Rows of texts in COPY's text format."""
    lines = ("\t".join("\\N" if value is None else value.translate(_escaped) for value in row) for row in rows)
    return ("\n".join(lines) + "\n").encode()


async def _make(session: Any, definitions: Sequence[Definition]) -> None:
    present = {(it.kind, it.name) for it in (await read_catalogue(session)).definitions}
    for definition in definitions:
        if (definition.kind, definition.name) not in present:
            await session.execute(definition.sql)


def _making(definitions: Sequence[Definition]) -> str:
    return " while making " + ", ".join(f"{it.kind} {it.name!r}" for it in definitions[:3])
