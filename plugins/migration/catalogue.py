"""What a database holds besides its rows, in words that do not depend on the system."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Definition, Table

_kinds = ("type", "function", "sequence", "table", "index", "reference", "view", "trigger")
"""In the order in which they can be made."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`unsupported`: by table, why it cannot be migrated. `required`: by table, columns without which no row goes in.

    `sequences`: by table, where AUTOINCREMENT stands. `analysed`: there are statistics for the query planner.
    `fenced`: a migration into this database is unfinished.
    """

    tables: dict[str, Table]
    unsupported: dict[str, str]
    required: dict[str, list[str]]
    definitions: list[Definition]
    settings: dict[str, int | str]
    sequences: dict[str, int]
    analysed: bool
    fenced: bool
    notes: list[str] = field(default_factory=list[str])
    """What will not come over as it is, a sentence each."""

    @property
    def names(self) -> list[str]:
        """All tables that a request may name."""
        return [*self.tables, *self.unsupported]

    def definitions_for(self, tables: Sequence[str]) -> list[Definition]:
        """The objects of the schema that go with these tables, in an order in which they can be made.

        Views, and what has no table at all (types, functions), belong to no table: all of them go.
        """
        views = {it.name.casefold() for it in self.definitions if it.kind == "view"}
        homes = {name.casefold() for name in tables} | views | {""}
        chosen = [it for it in self.definitions if it.table.casefold() in homes]
        return sorted(chosen, key=lambda it: _kinds.index(it.kind))


@dataclass(frozen=True, slots=True)
class TargetState:
    """What planning must know of a target. `catalogue` is None if there is no database yet.

    `fence`: the fingerprint and the run of an unfinished migration into it.
    """

    catalogue: Catalogue | None
    free_bytes: int
    problems: list[str] = field(default_factory=list[str])
    fence: tuple[str, str] | None = None
