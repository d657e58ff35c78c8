"""A copy from one store to another: what is looked at first, what is written, what is looked at afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from jivsd.config import sqlite_path
from jivsd.records import hash_of
from jivsd.store.api import StoreError
from jivsd.store.choice import is_postgres, store_of
from jivsd.store.copying.foreign import matched
from jivsd.store.copying.postgres import PostgresEnd
from jivsd.store.copying.sqlite import SqliteEnd
from jivsd.store.copying.tables import TABLES, Row, Table, Tally
from jivsd.store.plugin_tables import Migration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from jivsd.store.copying.foreign import Foreign
    from jivsd.store.copying.postgres import Rows as PostgresRows
    from jivsd.store.copying.sqlite import Rows as SqliteRows

    End = SqliteEnd | PostgresEnd
    Rows = SqliteRows | PostgresRows

MigrationsOf = Callable[[str, Mapping[str, str]], Mapping[str, Sequence[Migration]]]
"""The migrations of a plugin by dialect, given its name and files."""

Tell = Callable[[str, int, int], None]
"""Is told what is done at present, how many rows of it are done, and how many there are."""

AHEAD: Final = 2
"""How many pieces are read before they can be written."""

_CODE: Final = next(table for table in TABLES if table.name == "plugin_code")


class Copied(msgspec.Struct, frozen=True):
    """What was copied: how many rows of each table, and how long that took, looking at them included."""

    source: str
    target: str
    tables: dict[str, int]
    left_out: list[str]
    rows: int
    seconds: float
    rows_per_second: int


async def copy(
    source_url: str, target_url: str, *, migrations_of: MigrationsOf, leave_out: Sequence[str] = (), tell: Tell
) -> Copied:
    """Copy all that a store holds into another one, which is empty or not there yet. The source stays as it is.

    What was written is read again and compared before it counts; until then the target stays what it was, however the
    copy ends. The target's epochs are above all that the source ever had.

    Args:
        source_url: where to copy from.
        target_url: where to copy to.
        migrations_of: the migrations of a plugin.
        leave_out: tables of plugins whose rows are not copied.
        tell: told of progress.

    Raises:
        StoreError: a daemon runs on one of them, the target is not empty, the source is damaged, a plugin's table does
            not fit, or one of them has another schema than this program.
        StoreAway: one of them cannot be reached, or has no room.
    """
    began = time.monotonic()
    source, target = _end(source_url), _end(target_url)
    if source.shown == target.shown:
        raise StoreError(f"{source.shown} cannot be copied to itself")
    async with _closing(source), _closing(target):
        await source.open_source()
        await target.open_target()
        await _refuse_damaged(source_url, source.shown, tell)
        await source.begin()
        made, fitting = await _fit_plugins(source, target, migrations_of, leave_out)
        copied = await _write_all(source, target, made, fitting, tell)
        await target.settle(max(await source.epoch(), await target.epoch()) + 1, await source.numbers())
        await _verify(target, copied, tell)
        await target.commit()
    counts = {table.name: tally.rows for table, tally in copied.items()}
    rows, seconds = sum(counts.values()), time.monotonic() - began
    left = sorted(set(leave_out))
    return Copied(source.shown, target.shown, counts, left, rows, round(seconds, 3), round(rows / seconds))


def _end(url: str) -> End:
    if is_postgres(url):
        return PostgresEnd(url)
    try:
        return SqliteEnd(Path(sqlite_path(url)).resolve())
    except ValueError as error:
        raise StoreError(f"the URL of a store {error}, or postgresql://user@host/database") from None


@asynccontextmanager
async def _closing(end: End) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await end.close()


async def _refuse_damaged(url: str, shown: str, tell: Tell) -> None:
    tell("checking", 0, 0)
    async with store_of(url, read_only=True) as store:
        await store.open("jivsd db copy")
        problems = await store.check()
    if problems:
        more = f", and {len(problems) - 1:,} more" if len(problems) > 1 else ""
        raise StoreError(f"the database {shown} is damaged: {problems[0]}{more}; see: jivsd db check --store URL")


async def _fit_plugins(
    source: End, target: End, migrations_of: MigrationsOf, leave_out: Sequence[str]
) -> tuple[list[Foreign], list[Table]]:
    """Make the plugins' tables in the target, by their own migrations; say which these are, and what is copied."""
    theirs = await source.foreign()
    if unknown := sorted(set(leave_out) - theirs.keys()):
        raise StoreError(f"there is no plugin table {unknown[0]} in {source.shown} that could be left out")
    before = await target.foreign()
    for plugin, migrations in (await _plugins(source, migrations_of)).items():
        await target.migrate(plugin, migrations.get(target.dialect, ()))
    after = await target.foreign()
    made = [after[name] for name in after if name not in before]
    fresh = {**after, **{table.name: table._replace(rows=0) for table in made}}
    wanted = [table for name, table in theirs.items() if table.rows and name not in leave_out]
    return made, [matched(table, fresh.get(table.name)) for table in wanted]


async def _plugins(source: End, migrations_of: MigrationsOf) -> dict[str, Mapping[str, Sequence[Migration]]]:
    """The migrations of the plugins that have tables in the source, from the newest code that made these."""
    applied = await source.applied()
    found: dict[str, tuple[int, Mapping[str, Sequence[Migration]]]] = {}
    reading = await source.read(_CODE)
    names = [column.name for column in _CODE.columns]
    while rows := await reading.fetch():
        for row in rows:
            code = dict(zip(names, row, strict=True))
            plugin, at = code["name"], code["at"]
            if plugin not in applied or (plugin in found and found[plugin][0] > at):
                continue
            migrations = migrations_of(plugin, msgspec.json.decode(code["files"], type=dict[str, str]))
            hashes = {one.number: hash_of(one.sql.encode()) for one in migrations.get(source.dialect, ())}
            if applied[plugin].items() <= hashes.items():
                found[plugin] = (at, migrations)
    return {plugin: migrations for plugin, (_, migrations) in found.items()}


async def _write_all(
    source: End, target: End, made: Sequence[Foreign], foreign: Sequence[Table], tell: Tell
) -> dict[Table, Tally]:
    total = sum([await source.count(table) for table in (*TABLES, *foreign)])
    copied: dict[Table, Tally] = {}

    async def write(table: Table) -> None:
        tally = copied[table] = Tally(table)
        before = sum(one.rows for one in copied.values())
        async with _ahead(await source.read(table)) as pieces:
            async for rows in pieces:
                tally.add(rows)
                await target.write(table, rows)
                tell("copying", before + tally.rows, total)

    for table in TABLES:
        await write(table)
    await target.free(made, foreign)
    for table in foreign:
        await write(table)
    return copied


async def _verify(target: End, copied: Mapping[Table, Tally], tell: Tell) -> None:
    """Read again what was written.

    Raises:
        StoreError: it is something else.
    """
    total = sum(tally.rows for tally in copied.values())
    done = 0
    for table, wanted in copied.items():
        found = Tally(table)
        async with _ahead(await target.read(table)) as pieces:
            async for rows in pieces:
                found.add(rows)
                done += len(rows)
                tell("verifying", done, total)
        if (found.rows, found.sum) != (wanted.rows, wanted.sum):
            raise StoreError(
                f"{target.shown} did not keep what was written: the table {table.name} was given {wanted.rows:,} rows, "
                f"and has {found.rows:,}, or others; nothing was copied"
            )
    if problems := await target.problems():
        raise StoreError(f"{target.shown} did not keep what was written: {problems[0]}; nothing was copied")


@asynccontextmanager
async def _ahead(rows: Rows) -> AsyncGenerator[trio.MemoryReceiveChannel[list[Row]]]:
    """Read what comes next while the caller is busy with what came before."""
    send, receive = trio.open_memory_channel[list[Row]](AHEAD)

    async def read() -> None:
        async with send:
            while piece := await rows.fetch():
                await send.send(piece)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            yield receive
    except BaseExceptionGroup as group:  # of one error: whoever was not the cause was cancelled
        error = group.exceptions[0]
        raise error from error.__cause__
