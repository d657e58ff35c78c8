"""A plugin's own tables: which of its migrations have not been applied. For every store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jivsd.records import hash_of
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence


class Migration(NamedTuple):
    """One step from an older to a newer schema of a plugin's tables; applied once, in the order of the numbers."""

    number: int
    name: str
    sql: str


class Pending(NamedTuple):
    """A migration to be applied. `where` names it for people; `row` says that it was applied."""

    where: str
    sql: str
    row: tuple[str, int, str, str]


def pending(plugin: str, migrations: Sequence[Migration], applied: Mapping[int, str]) -> Generator[Pending]:
    """The migrations of a plugin that are to be applied, when those were whose number and hash are in `applied`.

    Raises:
        StoreError: one was applied with another text.
    """
    for number, name, sql in migrations:
        where = f"migration {number:04}_{name} of plugin {plugin!r}"
        digest = hash_of(sql.encode())
        if number not in applied:
            yield Pending(where, sql, (plugin, number, name, digest))
        elif applied[number] != digest:
            raise StoreError(f"{where} was applied with another text; leave it as it was and add another one")
