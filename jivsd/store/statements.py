"""Statements that live in `.sql` files, each with a name and a description; and numbered migrations.

The idea is procrastinate's `sql/queries.sql`: SQL is read, formatted and explained as SQL.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd.resources import bundled

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATION: Final = re.compile(r"(\d{4})_\w+\.sql")


class Migration(msgspec.Struct, frozen=True):
    """One step of a schema's history."""

    number: int
    name: str
    sql: str


class Statements:
    """The statements of one store by name."""

    def __init__(self, text: str, source: str) -> None:
        """Take the statements out of a file's text; `source` is what errors call it.

        Raises:
            ValueError: a statement has no description, no SQL, or the name of another one.
        """
        self._sql: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}
        self._source = source
        _, *parts = _NAME.split(text)
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            lines = body.strip().splitlines()
            comment = [line.removeprefix("-- ") for line in lines if line.startswith("--")]
            sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
            if not comment or not sql or name in self._sql:
                raise ValueError(f"{source}: statement {name!r} needs a description, SQL and a name of its own")
            self._sql[name] = sql
            self.descriptions[name] = " ".join(comment)

    def __getitem__(self, name: str) -> str:
        """The SQL of a statement.

        Raises:
            KeyError: no statement has that name.
        """
        try:
            return self._sql[name]
        except KeyError:
            raise KeyError(f"{self._source} has no statement {name!r}") from None


@cache
def statements(dialect: str) -> Statements:
    """The statements of `schema/<dialect>/statements.sql`."""
    path = bundled("schema") / dialect / "statements.sql"
    return Statements(path.read_text(encoding="utf-8"), str(path))


@cache
def migrations(dialect: str) -> tuple[Migration, ...]:
    """The migrations of `schema/<dialect>/`, in order."""
    return read_migrations(bundled("schema") / dialect)


def read_migrations(folder: Path) -> tuple[Migration, ...]:
    """The migrations in a folder: files called `0001_what_it_does.sql`, numbered from 1 without gaps.

    Raises:
        ValueError: a number is missing or there twice.
    """
    found = [(match, path) for path in sorted(folder.glob("*.sql")) if (match := _MIGRATION.fullmatch(path.name))]
    result = tuple(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")) for match, path in found)
    for expected, migration in enumerate(result, 1):
        if migration.number != expected:
            raise ValueError(f"{folder}: expected migration {expected:04d} where {migration.name} is")
    return result
