"""The database of the journal: upgrade, check, backup, copy."""

import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jivsd.cli.command import DataDir, group, interruptibly, local
from jivsd.cli.configuration import ConfigFile, checked, read_config
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from jivsd.cli.output import Page
    from jivsd.store.plugin_tables import Migration
    from jivsd.store.postgres import PostgresStore
    from jivsd.store.sqlite import SqliteStore

T = TypeVar("T")

StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The database. Default: the configured one.")
]

commands = group("Upgrade, check, back up or copy the daemon's database.")


@local(commands, "upgrade", "jivsd db upgrade --data-dir ./state")
def upgrade(store: StoreUrl = None, config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Bring the database's schema up to date.

    The daemon does so by itself when it starts; this is for those who want to see it done before. The daemon must be
    stopped.
    """
    url = _existing(store, config, data_dir)
    before = _use(url, _version, read_only=True)
    after = _use(url, _version, read_only=False)
    done = f"is up to date (version {after})" if before == after else f"went from version {before} to {after}"
    return Answer({"from": before, "to": after}, lambda: [f"The schema of {_shown(url)} {done}."])


@local(commands, "check", "jivsd db check --data-dir ./state", "jivsd db check --store sqlite:////backups/monday.db")
def check(store: StoreUrl = None, config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Verify the whole database: its structure, and the checksum of every event.

    It only reads, and works beside a running daemon. Exit code 1 if something is wrong.
    """
    url = _existing(store, config, data_dir)
    try:
        problems = _use(url, lambda database: database.check(), read_only=True)
    except CommandError as error:
        if error.exit_code is not Exit.CONFLICT:
            raise
        problems = [error.message]  # so damaged that it cannot be opened
    return checked(problems, f"Nothing is wrong with {_shown(url)}.")


@local(commands, "backup", "jivsd db backup /backups/monday.db --data-dir ./state")
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy: a new file.", show_default=False)],
    store: StoreUrl = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> Answer:
    """Write a consistent copy of the database to a new file.

    It works beside a running daemon. A journal in PostgreSQL is saved with pg_dump instead. To restore: stop the
    daemon, put the copy in the database's place and remove the files beside it that end in -wal and -shm.
    """
    url = _existing(store, config, data_dir)
    _use(url, lambda database: database.backup(str(target)), read_only=True)
    size = target.stat().st_size
    return Answer({"file": str(target.absolute()), "bytes": size}, lambda: [f"Wrote {target} ({size:,} bytes)."])


@local(
    commands,
    "copy",
    "jivsd db copy sqlite:////var/lib/jivsd/jivsd.db postgresql://jivsd@localhost/jivsd",
    "jivsd db copy postgresql://jivsd@localhost/jivsd sqlite:////var/lib/jivsd/jivsd.db",
)
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The URL of a database.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TO", help="The URL of an empty or a new one.", show_default=False)],
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE", help="A plugin's table whose rows stay behind; can be given several times."),
    ] = None,
) -> Answer:
    """Move house: copy a stopped daemon's whole state into another database, SQLite or PostgreSQL.

    Runs, journals, messages, locks, timers, incidents, keys, plugins' code and the rows of their tables: started on the
    new database, the daemon goes on with everything. What was written is read again and compared before it counts; if
    the command ends earlier, however it does, nothing was copied. The old database stays as it is.
    """
    import trio

    from jivsd.store import copying

    async def work() -> copying.Copied:
        return await copying.copy(
            source, target, migrations_of=_migrations_of, leave_out=leave_out or [], tell=_progress()
        )

    with _store_errors():
        copied = trio.run(partial(interruptibly, work))

    def view() -> "Page":
        speed = f"in {copied.seconds:,.1f} s, {copied.rows_per_second:,} a second"
        yield f"Copied {copied.rows:,} rows ({speed}) from {copied.source} to {copied.target}, and compared them."

    note = f"Start the daemon on the new database only: on {copied.source} the same runs would go on a second time."
    return Answer(copied, view, notes=[note])


def _migrations_of(plugin: str, files: "Mapping[str, str]") -> "Mapping[str, Sequence[Migration]]":
    from jivsd.registry.migrations import migrations_of
    from jivsd.registry.source import Source

    return migrations_of(Source(plugin, files))


def _progress() -> "Callable[[str, int, int], None]":
    """Tell people at most once a second."""
    last = time.monotonic()

    def tell(what: str, rows: int, total: int) -> None:
        nonlocal last
        if sys.stderr.isatty() and time.monotonic() - last >= 1:
            last = time.monotonic()
            say(f"{what} {rows:,} of {total:,} rows" if total else what)

    return tell


def _existing(store: str | None, config: Path | None, data_dir: Path | None) -> str:
    """The database's URL; if it is a file, that exists."""
    from jivsd.store.choice import is_postgres

    url = read_config(config, {"store": store, "data_dir": data_dir}).store.get_secret_value()
    if not is_postgres(url) and not Path(_shown(url)).is_file():
        hint = "Is it another data folder? Say which: --data-dir DIR"
        raise CommandError(Exit.NOT_FOUND, "no_database", f"there is no database {_shown(url)}", hint=hint)
    return url


def _shown(url: str) -> str:
    """The file, or the URL without passwords."""
    from jivsd.config import sqlite_path
    from jivsd.masking import masked
    from jivsd.store.choice import is_postgres

    return masked(url) if is_postgres(url) else str(sqlite_path(url))


async def _version(database: "SqliteStore | PostgresStore") -> int:
    return await database.schema_version()


def _use(url: str, work: "Callable[[SqliteStore | PostgresStore], Awaitable[T]]", *, read_only: bool) -> T:
    import trio

    from jivsd.store.choice import store_of

    async def opened() -> T:
        async with store_of(url, read_only=read_only) as database:
            await database.open("jivsd db")
            return await work(database)

    with _store_errors():
        return trio.run(opened)


@contextmanager
def _store_errors() -> "Generator[None]":
    from jivsd.store.api import StoreAway, StoreError

    try:
        yield
    except StoreAway as error:
        raise CommandError(Exit.UNAVAILABLE, "unavailable", str(error)) from None
    except StoreError as error:
        raise CommandError(Exit.CONFLICT, "store", str(error)) from None
