"""What verification compares besides rows: schemas, sequences, references. Pure functions over catalogues."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from .catalogue import Catalogue
    from .model import Survey


def schema_differences(
    survey: Survey, source: Catalogue, target: Catalogue, left_out: Collection[tuple[str, str]]
) -> list[str]:
    """How the target's schema differs from what was to be made of the source's, but for what was `left_out`.

    Rows alone do not bring a schema: of DATA_ONLY only the sequences are compared.
    """
    tables = [pair.source.name for pair in survey.pairs]
    alike = survey.job.source.system == survey.job.target.system  # or else their SQL is not
    return [
        *(_definitions(tables, source, target, left_out, alike=alike) if survey.job.full else []),
        *_sequences(tables, source, target, exactly=survey.job.full),
    ]


def _definitions(
    tables: list[str], source: Catalogue, target: Catalogue, left_out: Collection[tuple[str, str]], *, alike: bool
) -> list[str]:
    wanted = {(it.kind, it.name): it.sql for it in source.definitions_for(tables) if (it.kind, it.name) not in left_out}
    made = {(it.kind, it.name): it.sql if alike else wanted.get((it.kind, it.name), "") for it in target.definitions}
    return [
        *(f"the target has no {kind} {name!r}" for kind, name in wanted if (kind, name) not in made),
        *(f"the target has {kind} {name!r}, the source has not" for kind, name in made if (kind, name) not in wanted),
        *(
            f"{kind} {name!r} is defined otherwise in the target"
            for (kind, name), sql in wanted.items()
            if made.get((kind, name), sql) != sql
        ),
    ]


def _sequences(tables: list[str], source: Catalogue, target: Catalogue, *, exactly: bool) -> list[str]:
    problems: list[str] = []
    for table in tables:
        wanted, present = source.sequences.get(table), target.sequences.get(table)
        if wanted is None or present == wanted or (not exactly and (present is None or present > wanted)):
            continue
        problems.append(f"the sequence of table {table!r} is at {wanted} in the source, at {present} in the target")
    return problems


def reference_problems(
    table: str, source: dict[str, int] | None, target: dict[str, int] | None
) -> tuple[list[str], list[str]]:
    """Differences and warnings from both sides' broken references; what the source had broken is no difference."""
    if target is None:
        text = f"the references of table {table!r} cannot be checked: what they refer to is not unique"
        return ([], [text]) if source is None else ([text], [])
    differences: list[str] = []
    warnings: list[str] = []
    before = source or {}
    for parent, count in target.items():
        text = f"{count} rows of table {table!r} refer to rows of {parent!r} that are not there"
        if count > before.get(parent, 0):
            differences.append(text)
        else:
            warnings.append(f"{text}, in the source neither")
    return differences, warnings
