"""Where the bench measures: stores of its own, that are removed afterwards, and what they can write at best."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import apsw

from jivsd.proof import rawlimit
from jivsd.store.choice import is_postgres
from jivsd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Generator

    from jivsd.proof.rawlimit import Raw
    from jivsd.store.api import Store


class Ground(Protocol):
    """Makes new, empty stores of one kind."""

    @property
    def name(self) -> str:
        """The kind: sqlite or postgresql."""
        ...

    def url(self) -> str:
        """The URL of a new store."""
        ...

    def store(self) -> Store:
        """A new store."""
        ...

    async def raw(self, *, rows: int, runs: int, batch: int) -> Raw:
        """Append `rows` events of `runs` concurrent runs, `batch` in a commit, to a store of its own."""
        ...

    async def versions(self) -> dict[str, str]:
        """Of what it is made."""
        ...


@contextmanager
def ground(url: str | None = None) -> Generator[Ground]:
    """Where to measure: in temporary files, or in schemas of a PostgreSQL database that are dropped afterwards.

    Raises:
        StoreError: the URL is not that of a PostgreSQL database.
    """
    if url is not None and is_postgres(url):
        from jivsd.proof.pgground import schemas

        with schemas(url) as found:
            yield found
    else:
        with tempfile.TemporaryDirectory(prefix="jivsd-bench-") as folder:
            yield _Files(Path(folder))


class _Files:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self) -> str:
        return f"sqlite:///{self._file()}"

    def store(self) -> Store:
        return SqliteStore(self._file())

    async def raw(self, **counts: Any) -> Raw:
        return await rawlimit.measure(self._file(), **counts)

    async def versions(self) -> dict[str, str]:
        return {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

    def _file(self) -> Path:
        return self._folder / f"{uuid4().hex}.db"
