"""The database of the embedded store: upgrade, check, backup."""

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jivsd.cli.command import DataDir, group, local
from jivsd.cli.configuration import ConfigFile, checked, read_config
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from jivsd.store.sqlite import SqliteStore

T = TypeVar("T")

StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The database. Default: the configured one.")
]

commands = group("Upgrade, check or back up the daemon's database.")


@local(commands, "upgrade", "jivsd db upgrade --data-dir ./state")
def upgrade(store: StoreUrl = None, config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Bring the database's schema up to date.

    The daemon does so by itself when it starts; this is for those who want to see it done before. The daemon must be
    stopped.
    """
    path = _path(store, config, data_dir)
    before = _version(path)
    _use(path, _nothing, read_only=False)
    after = _version(path)
    done = f"is up to date (version {after})" if before == after else f"went from version {before} to {after}"
    return Answer({"from": before, "to": after}, lambda: [f"The schema of {path} {done}."])


@local(commands, "check", "jivsd db check --data-dir ./state", "jivsd db check --store sqlite:////backups/monday.db")
def check(store: StoreUrl = None, config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Verify the whole database: its structure, and the checksum of every event.

    It only reads, and works beside a running daemon. Exit code 1 if something is wrong.
    """
    path = _path(store, config, data_dir)
    try:
        problems = _use(path, lambda database: database.check(), read_only=True)
    except CommandError as error:
        if error.exit_code is not Exit.CONFLICT:
            raise
        problems = [error.message]  # so damaged that it cannot be opened
    return checked(problems, f"Nothing is wrong with {path}.")


@local(commands, "backup", "jivsd db backup /backups/monday.db --data-dir ./state")
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy: a new file.", show_default=False)],
    store: StoreUrl = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> Answer:
    """Write a consistent copy of the database to a new file.

    It works beside a running daemon. To restore: stop the daemon, put the copy in the database's place and remove the
    files beside it that end in -wal and -shm.
    """
    path = _path(store, config, data_dir)
    _use(path, lambda database: database.backup(str(target)), read_only=True)
    size = target.stat().st_size
    return Answer({"file": str(target.absolute()), "bytes": size}, lambda: [f"Wrote {target} ({size:,} bytes)."])


def _path(store: str | None, config: Path | None, data_dir: Path | None) -> Path:
    """The database's file; it exists."""
    from jivsd.store.sqlite.database import path_of

    settings = read_config(config, {"store": store, "data_dir": data_dir})
    with _store_errors():
        path = Path(path_of(settings.store.get_secret_value()))
    if not path.is_file():
        hint = "Is it another data folder? Say which: --data-dir DIR"
        raise CommandError(Exit.NOT_FOUND, "no_database", f"there is no database {path}", hint=hint)
    return path


def _version(path: Path) -> int:
    from jivsd.store.sqlite.database import check_version, connect_reader

    with _store_errors(), closing(connect_reader(str(path))) as connection:
        return check_version(connection, str(path))


def _use(path: Path, work: "Callable[[SqliteStore], Awaitable[T]]", *, read_only: bool) -> T:
    import trio

    from jivsd.store.sqlite import SqliteStore

    async def opened() -> T:
        async with SqliteStore(path, read_only=read_only) as database:
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


async def _nothing(database: "SqliteStore") -> None:
    pass
