"""A plugin's own tables: numbered migrations in its folder, as jivsd has them in `schema/`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from jivsd.store.plugin_tables import Migration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.registry.source import Source

DIALECTS: Final = ("sqlite", "postgres")
FOLDER: Final = "migrations/"
_pattern: Final = re.compile(r"migrations/(\w+)/(\d{4})_(\w+)\.sql")


Migrations = dict[str, list[Migration]]
"""Migrations by dialect ("sqlite", "postgres"), in order."""


def migrations_of(source: Source) -> Migrations:
    """Read `migrations/<dialect>/<number>_<name>.sql` of a plugin.

    Raises:
        PluginProblem: a file is named otherwise, or a number is missing or there twice.
    """
    found: Migrations = {}
    for path, dialect, migration in sorted(_files(source)):
        numbered = found.setdefault(dialect, [])
        if migration.number != len(numbered) + 1:
            raise source.problem(
                f"migrations are numbered from 0001 without gaps, so this one would be {len(numbered) + 1:04}",
                path=path,
            )
        numbered.append(migration)
    return found


def _files(source: Source) -> Iterator[tuple[str, str, Migration]]:
    for path, text in source.files.items():
        if not path.startswith(FOLDER):
            continue
        match = _pattern.fullmatch(path)
        if match is None or match[1] not in DIALECTS:
            raise source.problem(
                f"a migration's path is like migrations/sqlite/0001_first.sql; dialects are {', '.join(DIALECTS)}",
                path=path,
            )
        yield path, match[1], Migration(int(match[2]), match[3], text)
